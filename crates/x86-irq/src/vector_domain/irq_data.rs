//! State of each hwirq (a lock-free part for arrivals, and a part under the lock), and the quota of
//! each attachment, to which a hwirq belongs.

use crate::apic::{ApicVector, CpuVector};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_fallible::SortedMap;
use msi_types::{Attachment, Cpu, Fit, MsiError, RequesterId};

/// Maximum number of former vectors that are not yet freed. A move that would exceed this number is
/// refused.
const MOST_FORMER: usize = 4;
/// Capacity for former vectors: a freed hwirq adds its present vector, and the target of a move in
/// progress.
const FORMER_VECTORS: usize = MOST_FORMER + 2;

/// Flag that is set while arrivals are held back.
pub(super) const HELD: u32 = 1;
/// Flag that is set after an interrupt was held back or could not be sent.
pub(super) const PENDING: u32 = 2;
/// Flag that is set once the hwirq was freed.
pub(super) const RELEASED: u32 = 4;

/// The part of a hwirq's state that arrivals use without a lock. [`pack`] encodes each vector; a
/// value of 0 stands for no vector.
#[derive(Debug, Default)]
pub(super) struct IrqData {
    pub(super) flags: AtomicU32,
    cpu_vector: AtomicU32,
    /// Vector at which an interrupt must arrive before the former vectors can be freed, or 0 once
    /// the interrupt has arrived.
    awaited: AtomicU32,
    /// Former vectors. They must only be written under the lock.
    former: [AtomicU32; FORMER_VECTORS],
}

impl IrqData {
    pub(super) fn cpu_vector(&self) -> Option<CpuVector> {
        unpack(self.cpu_vector.load(Ordering::SeqCst))
    }

    /// Sets the present vector. The caller must hold the lock.
    pub(super) fn set_cpu_vector(&self, cpu_vector: Option<CpuVector>) {
        self.cpu_vector.store(cpu_vector.map_or(0, pack), Ordering::SeqCst);
    }

    /// Sets the vector at which an arrival is awaited. The caller must hold the lock. Like the
    /// accesses in [`arrived`](Self::arrived), the store is sequentially consistent, so that either
    /// the arrival sees the former vectors, or the thread that adds them sees the arrival.
    pub(super) fn await_arrival(&self, cpu_vector: Option<CpuVector>) {
        self.awaited.store(cpu_vector.map_or(0, pack), Ordering::SeqCst);
    }

    pub(super) fn awaits_arrival(&self) -> bool {
        self.awaited.load(Ordering::SeqCst) != 0
    }

    /// Records an arrival. Returns `true` if this arrival was awaited. The caller must not hold the
    /// lock.
    ///
    /// Context: any.
    pub(super) fn arrived(&self, cpu_vector: CpuVector) -> bool {
        let cpu_vector = pack(cpu_vector);
        self.awaited.load(Ordering::SeqCst) == cpu_vector
            && self
                .awaited
                .compare_exchange(cpu_vector, 0, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
    }

    pub(super) fn former(&self) -> impl Iterator<Item = CpuVector> {
        self.former.iter().filter_map(|cpu_vector| unpack(cpu_vector.load(Ordering::SeqCst)))
    }

    pub(super) fn has_room(&self) -> bool {
        self.former().count() < MOST_FORMER
    }

    /// Returns `true` if little room is left for former vectors, so that they must be freed without
    /// waiting for an arrival.
    pub(super) fn is_crowded(&self) -> bool {
        self.former().count() >= MOST_FORMER / 2
    }

    /// Adds a former vector. The array always has room for this vector. The caller must hold the
    /// lock.
    pub(super) fn add_former(&self, cpu_vector: CpuVector) {
        let free = self.former.iter().find(|cpu_vector| cpu_vector.load(Ordering::SeqCst) == 0);
        debug_assert!(free.is_some());
        if let Some(free) = free {
            free.store(pack(cpu_vector), Ordering::SeqCst);
        }
    }

    /// Removes a former vector. The caller must hold the lock.
    pub(super) fn remove_former(&self, cpu_vector: CpuVector) {
        for former in &self.former {
            if former.load(Ordering::SeqCst) == pack(cpu_vector) {
                former.store(0, Ordering::SeqCst);
            }
        }
    }
}

/// The part of a hwirq's state that the lock protects.
#[derive(Debug, Default)]
pub(super) struct IrqDataLocked {
    pub(super) phase: Phase,
    /// Target of a move, between its two phases.
    pub(super) moving: Option<CpuVector>,
    /// CPUs of a managed hwirq, each of which has a vector reserved for it.
    pub(super) managed: Option<Vec<Cpu>>,
    /// `true` if former vectors are freed without waiting for an arrival at the present one.
    pub(super) impatient: bool,
}

/// Life cycle of a hwirq.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Phase {
    #[default]
    Free,
    /// Allocated.
    Owned { attachment: AttachmentId, message: MessageKeeper },
    /// Freed, with vectors that are not yet cleaned up.
    Draining,
    /// Freed, and never reused.
    Lost,
}

/// Holder of an interrupt's message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MessageKeeper {
    /// An endpoint with these limits.
    Endpoint(Fit),
    /// No endpoint; a remapping layer delivers messages to the present vector.
    Nowhere,
}

/// Treatment of freed vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FreedVectors {
    /// Reused after their clean-up.
    Reusable,
    /// Never reused, because messages to them may still be sent.
    Retired,
}

/// ID of an attachment, which is never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AttachmentId(u32);

impl AttachmentId {
    pub(crate) fn of(attachment: &Attachment) -> Self {
        Self(attachment.cookie())
    }
}

#[derive(Debug)]
struct VectorQuota {
    limit: u32,
    used: u32,
}

/// Each attached device's limit and number of vectors in use.
#[derive(Debug, Default)]
pub(super) struct QuotaTable {
    next: u32,
    quotas: SortedMap<u32, VectorQuota>,
}

impl QuotaTable {
    pub(super) fn attach(
        &mut self,
        device: RequesterId,
        limit: u32,
    ) -> Result<Attachment, MsiError> {
        let cookie = self.next;
        let next =
            cookie.checked_add(1).ok_or(MsiError::NoMemory("another attachment's number"))?;
        self.quotas.reserve().map_err(|_| MsiError::NoMemory("the list of attachments"))?;
        self.next = next;
        self.quotas.insert(cookie, VectorQuota { limit, used: 0 });
        Ok(Attachment::new(device, cookie))
    }

    pub(super) fn detach(&mut self, attachment: &Attachment) {
        self.quotas.remove(attachment.cookie());
    }

    /// Counts vectors against the device's limit.
    pub(super) fn charge(
        &mut self,
        attachment: &Attachment,
        wanted: u16,
    ) -> Result<AttachmentId, MsiError> {
        let unknown = MsiError::DeviceFull { wanted, limit: 0 };
        let quota = self.quotas.get_mut(attachment.cookie()).ok_or(unknown)?;
        let used = quota.used.checked_add(wanted.into()).filter(|used| *used <= quota.limit);
        quota.used = used.ok_or(MsiError::DeviceFull { wanted, limit: quota.limit })?;
        Ok(AttachmentId::of(attachment))
    }

    pub(super) fn refund(&mut self, attachment: AttachmentId, count: u16) {
        if let Some(quota) = self.quotas.get_mut(attachment.0) {
            quota.used = quota.used.saturating_sub(count.into());
        }
    }
}

/// Encodes a vector. The result is never 0, because vectors begin at 0x10.
fn pack(cpu_vector: CpuVector) -> u32 {
    cpu_vector.cpu.get() << 8 | u32::from(cpu_vector.vector.get())
}

fn unpack(raw: u32) -> Option<CpuVector> {
    let [vector, ..] = raw.to_le_bytes();
    Some(CpuVector { cpu: Cpu::new(raw >> 8), vector: ApicVector::new(vector)? })
}
