//! One interrupt: what its arrivals read and write without a lock, and what changes under it.

use super::quotas::AttachmentId;
use crate::apic::{ApicVector, CpuVector};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use msi_types::{Cpu, Fit};

/// Vectors that an interrupt has left and that are not free again yet: a move that would leave one
/// more is refused.
const MOST_FORMER: usize = 4;
/// A freed hwirq leaves its present vector too, and one that it was moving to.
const FORMER_VECTORS: usize = MOST_FORMER + 2;

/// Arrivals are held back.
pub(super) const HELD: u32 = 1;
/// One was, or could not be sent.
pub(super) const PENDING: u32 = 2;
/// The interrupt was freed.
pub(super) const RELEASED: u32 = 4;

/// State of a hwirq that arrivals use without a lock. A vector is 0 for none, or see [`pack`].
#[derive(Debug, Default)]
pub(super) struct IrqData {
    pub(super) flags: AtomicU32,
    cpu_vector: AtomicU32,
    /// The vector at which an interrupt must arrive before the former ones are given up; 0
    /// afterwards.
    awaited: AtomicU32,
    /// Written under the lock.
    former: [AtomicU32; FORMER_VECTORS],
}

impl IrqData {
    pub(super) fn cpu_vector(&self) -> Option<CpuVector> {
        unpack(self.cpu_vector.load(Ordering::Acquire))
    }

    /// Under the lock.
    pub(super) fn set_cpu_vector(&self, cpu_vector: Option<CpuVector>) {
        self.cpu_vector.store(cpu_vector.map_or(0, pack), Ordering::Release);
    }

    /// Under the lock. Sequentially consistent, as [`arrived`](Self::arrived) is: either the
    /// arrival sees the former vectors, or the thread that adds them sees the arrival.
    pub(super) fn await_arrival(&self, cpu_vector: Option<CpuVector>) {
        self.awaited.store(cpu_vector.map_or(0, pack), Ordering::SeqCst);
    }

    pub(super) fn awaits_arrival(&self) -> bool {
        self.awaited.load(Ordering::SeqCst) != 0
    }

    /// Records an arrival. Returns true if it is the one that was waited for. Must be called
    /// without holding the lock.
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

    /// So many former vectors that they are given up without an arrival, before there is no room.
    pub(super) fn is_crowded(&self) -> bool {
        self.former().count() >= MOST_FORMER / 2
    }

    /// Under the lock; the array is long enough for all that can be added.
    pub(super) fn add_former(&self, cpu_vector: CpuVector) {
        let free = self.former.iter().find(|cpu_vector| cpu_vector.load(Ordering::SeqCst) == 0);
        debug_assert!(free.is_some());
        if let Some(free) = free {
            free.store(pack(cpu_vector), Ordering::SeqCst);
        }
    }

    /// Under the lock.
    pub(super) fn remove_former(&self, cpu_vector: CpuVector) {
        for former in &self.former {
            if former.load(Ordering::SeqCst) == pack(cpu_vector) {
                former.store(0, Ordering::SeqCst);
            }
        }
    }
}

/// State of a hwirq under the lock.
#[derive(Debug, Default)]
pub(super) struct IrqDataLocked {
    pub(super) phase: Phase,
    /// The destination of a move, between its two phases.
    pub(super) moving: Option<CpuVector>,
    /// The only CPUs that it is delivered to, with a vector set aside on each, if it is managed.
    pub(super) managed: Option<Vec<Cpu>>,
    /// Former vectors are given up without an arrival at the present one.
    pub(super) impatient: bool,
}

/// A hwirq's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Phase {
    #[default]
    Free,
    /// Handed out.
    Owned { attachment: AttachmentId, message: MessageKeeper },
    /// Freed; vectors remain to be cleaned up.
    Draining,
    /// Freed, and never used again.
    Lost,
}

/// The keeper of the interrupt's message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MessageKeeper {
    /// An endpoint, with these limits.
    Endpoint(Fit),
    /// Nobody: a layer delivers to wherever the vector is.
    Nowhere,
}

/// Fate of freed vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FreedVectors {
    /// They are handed out again once cleaned up.
    Reusable,
    /// They are never handed out again: something may still send them.
    Retired,
}

/// Never 0: vectors begin at 0x10.
fn pack(cpu_vector: CpuVector) -> u32 {
    cpu_vector.cpu.get() << 8 | u32::from(cpu_vector.vector.get())
}

fn unpack(raw: u32) -> Option<CpuVector> {
    let [vector, ..] = raw.to_le_bytes();
    Some(CpuVector { cpu: Cpu::new(raw >> 8), vector: ApicVector::new(vector)? })
}
