//! Root domain of the interrupt hierarchy on x86. It manages the vectors on all CPUs.
//!
//! # Numbers
//! On x86, an interrupt is identified by a CPU and a vector, but an interrupt core needs one number
//! per interrupt that does not change when the interrupt moves. The domain therefore allocates
//! [`HwIrq`]s, starting at [`FIRST_HWIRQ`]. Lower numbers are reserved for interrupts that each CPU
//! receives on its own vectors. For each CPU, the domain maintains a table from vector to hwirq,
//! which [`VectorDomain::arrive`] reads at the trap entry without a lock:
//!
//! ```text
//! trap(cpu, vector):
//!     match ApicVector::new(vector).map(|vector| domain.arrive(cpu, vector)) {
//!         Some(Arrival::Deliver(hwirq))                => interrupts.dispatch(cpu, hwirq)
//!         Some(Arrival::Held | Arrival::Released)      => nothing
//!         Some(Arrival::Unknown) | None                => the kernel's own vector, or spurious
//!     }
//!     write EOI
//! ```
//!
//! # Masking
//! A local APIC can't mask a vector, so the endpoint must mask its interrupts. If the endpoint has
//! no mask either, [`MsiParent::mask`] holds the interrupt back at the trap entry: the CPU
//! acknowledges the interrupt, the domain records it in a pending bit ([`Arrival::Held`]), and
//! [`MsiParent::unmask`] sends it again. No interrupt is lost, but each message of a masked device
//! still costs its CPU a trap.
//!
//! # Moving
//! A message encodes both the CPU and the vector. A move therefore rewrites the endpoint's address
//! and, unless the same vector is free on the new CPU, its data. The result depends on the endpoint
//! ([`Rewrite`]):
//!
//! | endpoint | move |
//! |---|---|
//! | is masked during the move, or changes address and data in one store | to any free vector |
//! | changes its low address word alone | to the same vector, if it is free on the new CPU |
//! | cannot change its message | refused |
//!
//! For an endpoint that changes its low address word alone, the domain initially allocates a vector
//! that is free on as many CPUs as possible.
//!
//! The domain keeps an interrupt's former vector allocated until an interrupt has arrived at the
//! new vector, and the old CPU has then found no request pending for the former vector. The device
//! sends the interrupt to the new vector only after its last message to the former one.
//! [`Apic::request_cleanup`] asks the old CPU to check its pending requests. If the former vector
//! were reused earlier, a late message could reach another interrupt's handler. Freed vectors must
//! be cleaned up the same way.
//!
//! A *managed* interrupt moves only among the CPUs of a set. One vector is reserved for it on each
//! of them, so such a move can't fail for lack of a vector.
//!
//! # Locks
//! Outermost first:
//!
//! ```text
//! remapping layer's records (TaskLock)
//! └─ quotas (TaskLock)
//!    └─ core: matrix and hwirqs (IrqLock): allocates nothing; calls Apic alone
//! ```
//!
//! The state of each hwirq has a lock-free part for arrivals, and a part under the lock. A hwirq belongs
//! to an attachment, which has a quota.

mod allocation;
mod free_hwirqs;
mod msi_parent;
mod relocation;

use crate::matrix::{MatrixError, VectorMatrix};
use crate::message::{Apic, ApicId, ApicMessage, ApicVector, CpuVector, DestinationFormat};
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_fallible::lock::{IrqLock, TaskLock};
use doorbell_fallible::{SortedMap, try_collect};
use free_hwirqs::FreeHwirqs;
use msi_types::{Attachment, Cpu, Fit, HwIrq, MsiError, MsiMessage, RequesterId, Surroundings};
#[cfg(doc)]
use msi_types::{MsiParent, Rewrite};

pub(crate) use msi_parent::for_each;
pub use relocation::{Cleanup, Offline};

/// Lowest hwirq that a domain allocates.
pub const FIRST_HWIRQ: u32 = 256;

/// The root domain, which allocates and dispatches the vectors of all CPUs. See the [module](self).
///
/// The [crate's example](crate#example) allocates a vector and handles its first interrupt.
pub struct VectorDomain {
    apic: Arc<dyn Apic>,
    destinations: DestinationFormat,
    surroundings: Surroundings,
    window: (ApicVector, ApicVector),
    /// Table by CPU and vector. Each entry is the index of the hwirq plus 1, or 0 if the vector is
    /// unused.
    table: Vec<[AtomicU32; 256]>,
    irqs: Vec<IrqData>,
    quotas: TaskLock<QuotaTable>,
    core: IrqLock<Core>,
}

/// State under the lock. All of its memory is allocated at creation.
struct Core {
    matrix: VectorMatrix,
    /// APIC IDs by CPU, or `None` until the CPU is first online.
    apic_ids: Vec<Option<ApicId>>,
    irqs: Vec<IrqDataLocked>,
    free: FreeHwirqs,
}

/// Error from marking a CPU as online or offline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// The CPU is not in the domain.
    #[error("CPU {0} is not one of those that the vector domain was made for")]
    Unknown(Cpu),
    /// The caller gave two CPUs the same APIC ID.
    #[error("APIC ID {id} already belongs to CPU {of}")]
    DuplicateId {
        /// APIC ID.
        id: ApicId,
        /// CPU that already has this APIC ID.
        of: Cpu,
    },
}

/// Action that the trap entry must take on an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arrival {
    /// Dispatch the interrupt with this hwirq.
    Deliver(HwIrq),
    /// Ignore the interrupt, because it is masked. The domain will send it again.
    Held,
    /// Ignore the interrupt, because its hwirq was freed while the message was in flight.
    Released,
    /// Handle the interrupt elsewhere, because the domain does not use this vector on this CPU.
    Unknown,
}

impl VectorDomain {
    /// Creates a domain with all CPUs offline.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns an error if the kernel's heap is exhausted.
    pub fn new(config: VectorDomainConfig<'_>) -> Result<Self, TryReserveError> {
        let VectorDomainConfig { cpus, hwirqs, window, system, destinations, surroundings, apic } =
            config;
        let (count, count_cpus) = (hwirqs.get(), cpus.get());
        let core = Core {
            matrix: VectorMatrix::new(cpus, window.clone(), system)?,
            apic_ids: try_collect((0..count_cpus).map(|_| None))?,
            irqs: try_collect((0..count).map(|_| IrqDataLocked::default()))?,
            free: FreeHwirqs::try_new(count.into())?,
        };
        Ok(Self {
            apic,
            destinations,
            surroundings,
            window: window.into_inner(),
            table: try_collect(
                (0..count_cpus).map(|_| core::array::from_fn(|_| AtomicU32::new(0))),
            )?,
            irqs: try_collect((0..count).map(|_| IrqData::default()))?,
            quotas: TaskLock::new(QuotaTable::default()),
            core: IrqLock::new(core),
        })
    }

    /// Returns the hwirq of an interrupt that arrived at `cpu` as `vector`. Whatever the result,
    /// the caller must signal the end of the interrupt to the APIC. Does not take a lock or
    /// allocate. On the first arrival after a move, this function may call
    /// [`Apic::request_cleanup`], but no other function of the
    /// kernel.
    ///
    /// Context: hard IRQ.
    #[inline]
    pub fn arrive(&self, cpu: Cpu, vector: ApicVector) -> Arrival {
        let cpu_vector = CpuVector { cpu, vector };
        let Some((index, irq)) =
            self.entry_index(cpu_vector).and_then(|i| Some((i, self.irqs.get(i)?)))
        else {
            return Arrival::Unknown;
        };
        if irq.arrived(cpu_vector) {
            irq.former().for_each(|former| self.apic().request_cleanup(former.cpu));
        }
        let flags = irq.flags.load(Ordering::SeqCst);
        if flags & (HELD | RELEASED) == 0 {
            Arrival::Deliver(number(index))
        } else {
            hold(index, irq)
        }
    }

    /// Makes an interrupt pending, and sends it if it may be delivered now. Returns `false` if the
    /// hwirq was freed, or if the interrupt cannot be sent yet.
    fn send_again(&self, core: &Core, irq: &IrqData) -> bool {
        let set = |flags| (flags & RELEASED == 0).then_some(flags | PENDING);
        irq.flags.fetch_update(Ordering::SeqCst, Ordering::SeqCst, set).is_ok()
            && self.send_pending(core, irq)
    }

    /// Sends a recorded pending interrupt if it may be delivered now. Returns `true` if it was
    /// sent. The caller must hold the lock, so that the vector does not change concurrently.
    fn send_pending(&self, core: &Core, irq: &IrqData) -> bool {
        let online = irq.cpu_vector().filter(|target| core.matrix.is_online(target.cpu));
        let target = online.and_then(|at| Some((core.apic_id(at.cpu)?, at.vector)));
        let Some((id, vector)) = target else { return false };
        let take = |flags| (flags & (HELD | PENDING) == PENDING).then_some(flags & !PENDING);
        let sent = irq.flags.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
        if sent {
            self.apic().send(id, vector);
        }
        sent
    }

    /// Returns the effective affinity of a hwirq, or `None` if the hwirq is not allocated.
    ///
    /// Context: any.
    pub fn cpu_vector(&self, hwirq: HwIrq) -> Option<CpuVector> {
        self.irq(hwirq)?.cpu_vector()
    }

    /// Returns the message that makes a vector pending, in the compatibility format.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// Returns [`MsiError::UnknownVector`] if the hwirq is not allocated, or
    /// [`MsiError::NotReachable`] if the format cannot encode the CPU's APIC ID.
    pub fn message(&self, hwirq: HwIrq) -> Result<MsiMessage, MsiError> {
        let cpu_vector = self.cpu_vector(hwirq).ok_or(MsiError::UnknownVector(hwirq))?;
        self.with_core(|core| self.message_to(core, cpu_vector))
    }

    /// Returns the APIC ID of a CPU that is or was online.
    ///
    /// Context: any.
    pub fn apic_id(&self, cpu: Cpu) -> Option<ApicId> {
        self.with_core(|core| core.apic_id(cpu))
    }

    /// Returns the number of vectors that are free on a CPU.
    ///
    /// Context: any.
    pub fn available_on(&self, cpu: Cpu) -> u32 {
        self.with_core(|core| core.matrix.available_on(cpu))
    }

    /// Returns the number of hwirqs in use: allocated, or freed but not yet cleaned up.
    ///
    /// Context: any.
    pub fn hwirqs_in_use(&self) -> usize {
        self.irqs.len() - self.with_core(|core| core.free.len())
    }

    pub(crate) fn apic(&self) -> &dyn Apic {
        &*self.apic
    }

    fn with_core<R>(&self, f: impl FnOnce(&mut Core) -> R) -> R {
        self.core.with(self.apic(), f)
    }

    /// Returns the index of a hwirq.
    fn index(&self, hwirq: HwIrq) -> Option<usize> {
        let index = HwIrq::new(hwirq.get().checked_sub(FIRST_HWIRQ)?).index();
        (index < self.irqs.len()).then_some(index)
    }

    fn irq(&self, hwirq: HwIrq) -> Option<&IrqData> {
        self.irqs.get(self.index(hwirq)?)
    }

    fn entry(&self, cpu_vector: CpuVector) -> Option<&AtomicU32> {
        self.table.get(cpu_vector.cpu.index())?.get(cpu_vector.vector.index())
    }

    /// Assigns `cpu_vector` to the hwirq at `index`, or marks `cpu_vector` as unused.
    fn set_entry(&self, cpu_vector: CpuVector, index: Option<usize>) {
        let value = index.map_or(0, |index| u32::try_from(index).map_or(0, |index| index + 1));
        if let Some(entry) = self.entry(cpu_vector) {
            entry.store(value, Ordering::SeqCst);
        }
    }

    fn entry_index(&self, cpu_vector: CpuVector) -> Option<usize> {
        let index = self.entry(cpu_vector)?.load(Ordering::SeqCst).checked_sub(1)?;
        usize::try_from(index).ok()
    }

    fn message_to(&self, core: &Core, cpu_vector: CpuVector) -> Result<MsiMessage, MsiError> {
        let unreachable =
            MsiError::NotReachable(cpu_vector.cpu, "its APIC ID does not fit the message format");
        let id = core
            .apic_id(cpu_vector.cpu)
            .filter(|id| self.destinations.reaches(*id))
            .ok_or(unreachable)?;
        ApicMessage::fixed(id, cpu_vector.vector).encode(self.destinations).map_err(|_| unreachable)
    }
}

/// Records a masked interrupt as pending. Drops the interrupt if its hwirq was freed.
#[cold]
fn hold(index: usize, irq: &IrqData) -> Arrival {
    let remember = |flags| (flags & (HELD | RELEASED) == HELD).then_some(flags | PENDING);
    match irq.flags.fetch_update(Ordering::SeqCst, Ordering::SeqCst, remember) {
        Ok(_) => Arrival::Held,
        Err(flags) if flags & RELEASED != 0 => Arrival::Released,
        Err(_) => Arrival::Deliver(number(index)),
    }
}

/// Returns the number of the hwirq at `index`. There are at most 65535 hwirqs.
fn number(index: usize) -> HwIrq {
    HwIrq::new(u32::try_from(index).map_or(u32::MAX, |index| FIRST_HWIRQ + index))
}

impl Core {
    fn apic_id(&self, cpu: Cpu) -> Option<ApicId> {
        *self.apic_ids.get(cpu.index())?
    }

    /// Frees an unused vector. This cannot fail, because the matrix allocated the vector.
    fn release(&mut self, cpu_vector: CpuVector) {
        let freed = self.matrix.free(cpu_vector);
        debug_assert_eq!(freed, Ok::<(), MatrixError>(()));
    }
}

msi_types::debug_by!(
    VectorDomain as "VectorDomain",
    |it| {cpus: it.table.len(), irqs: it.irqs.len(), destinations: it.destinations}
);

/// Lowest vector that is not reserved for exceptions.
const FIRST_EXTERNAL: u8 = 0x20;
/// Highest vector by default; kernels usually use higher vectors for interprocessor interrupts, the
/// timer and errors.
const LAST_EXTERNAL: u8 = 0xeb;
/// System call vector of 32-bit kernels.
const SYSTEM_CALL: &[ApicVector] = &[ApicVector::new(0x80).unwrap()];
/// Default limit, which keeps memory use small; a caller may request more.
const MOST_BY_DEFAULT: u16 = 16384;

/// Configuration of a [`VectorDomain`].
#[non_exhaustive]
pub struct VectorDomainConfig<'a> {
    /// Number of CPUs that are online or can come online.
    pub(crate) cpus: NonZeroU16,
    pub(crate) hwirqs: NonZeroU16,
    pub(crate) window: RangeInclusive<ApicVector>,
    pub(crate) system: &'a [ApicVector],
    pub(crate) destinations: DestinationFormat,
    pub(crate) surroundings: Surroundings,
    /// The kernel's access to the local APICs.
    pub(crate) apic: Arc<dyn Apic>,
}

impl<'a> VectorDomainConfig<'a> {
    /// Creates a configuration with vectors 0x20 to 0xEB except for 0x80, with 8-bit destinations,
    /// and one hwirq per vector, up to 16384.
    pub fn new(cpus: NonZeroU16, apic: Arc<dyn Apic>) -> Self {
        let vector = |number| ApicVector::new(number).unwrap_or(ApicVector::MAX);
        let per_cpu = u16::from(LAST_EXTERNAL - FIRST_EXTERNAL);
        let hwirqs = cpus.get().saturating_mul(per_cpu).min(MOST_BY_DEFAULT);
        Self {
            cpus,
            hwirqs: NonZeroU16::new(hwirqs).unwrap_or(NonZeroU16::MIN),
            window: vector(FIRST_EXTERNAL)..=vector(LAST_EXTERNAL),
            system: SYSTEM_CALL,
            destinations: DestinationFormat::Xapic,
            surroundings: Surroundings::default(),
            apic,
        }
    }

    msi_types::setters! {
        /// Sets the maximum number of interrupts in use at a time, across all CPUs. Memory for all
        /// of them, about 64 bytes each, is allocated at creation. A large machine may have more
        /// vectors than this type can count: 512 CPUs have about 103,000.
        with_hwirqs: hwirqs: NonZeroU16,
        /// Sets the vectors that may be allocated.
        with_window: window: RangeInclusive<ApicVector>,
        /// Sets the vectors in the window that are reserved for the kernel, on all CPUs.
        with_system: system: &'a [ApicVector],
        /// Sets the format of destinations in messages.
        with_destinations: destinations: DestinationFormat,
    }

    /// States whether the kernel runs on bare metal or in a guest. `leaf_1_ecx` is the register ECX
    /// that CPUID returns for leaf 1. Its bit 31 is 0 on every physical processor and 1 under a
    /// hypervisor that does not hide (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.3.2),
    /// and overrules a stated bare metal. Without this statement, the domain behaves as in a guest
    /// whose hypervisor only traps.
    #[must_use]
    pub const fn with_surroundings(mut self, stated: Surroundings, leaf_1_ecx: u32) -> Self {
        let is_guest = leaf_1_ecx >> 31 == 1;
        self.surroundings = if is_guest { stated.beside_hypervisor() } else { stated };
        self
    }
}

msi_types::debug_by!(
    VectorDomainConfig<'_> as "VectorDomainConfig",
    |it| {cpus: it.cpus, hwirqs: it.hwirqs, window: it.window, system: it.system, destinations: it.destinations}
);

/// Maximum number of former vectors that are not yet freed. A move that would exceed this number is
/// refused.
const MOST_FORMER: usize = 4;
/// Capacity for former vectors: a freed hwirq adds its present vector, and the target of a move in
/// progress.
const FORMER_VECTORS: usize = MOST_FORMER + 2;

/// Flag that is set while arrivals are held back.
const HELD: u32 = 1;
/// Flag that is set after an interrupt was held back or could not be sent.
const PENDING: u32 = 2;
/// Flag that is set once the hwirq was freed.
const RELEASED: u32 = 4;

/// The part of a hwirq's state that arrivals use without a lock. [`pack`] encodes each vector; a
/// value of 0 stands for no vector.
#[derive(Debug, Default)]
struct IrqData {
    flags: AtomicU32,
    cpu_vector: AtomicU32,
    /// Vector at which an interrupt must arrive before the former vectors can be freed, or 0 once
    /// the interrupt has arrived.
    awaited: AtomicU32,
    /// Former vectors. They must only be written under the lock.
    former: [AtomicU32; FORMER_VECTORS],
}

impl IrqData {
    fn cpu_vector(&self) -> Option<CpuVector> {
        unpack(self.cpu_vector.load(Ordering::SeqCst))
    }

    /// Sets the present vector. The caller must hold the lock.
    fn set_cpu_vector(&self, cpu_vector: Option<CpuVector>) {
        self.cpu_vector.store(cpu_vector.map_or(0, pack), Ordering::SeqCst);
    }

    /// Sets the vector at which an arrival is awaited. The caller must hold the lock. Like the
    /// accesses in [`arrived`](Self::arrived), the store is sequentially consistent, so that either
    /// the arrival sees the former vectors, or the thread that adds them sees the arrival.
    fn await_arrival(&self, cpu_vector: Option<CpuVector>) {
        self.awaited.store(cpu_vector.map_or(0, pack), Ordering::SeqCst);
    }

    fn awaits_arrival(&self) -> bool {
        self.awaited.load(Ordering::SeqCst) != 0
    }

    /// Records an arrival. Returns `true` if this arrival was awaited. The caller must not hold the
    /// lock.
    ///
    /// Context: any.
    fn arrived(&self, cpu_vector: CpuVector) -> bool {
        let cpu_vector = pack(cpu_vector);
        self.awaited.load(Ordering::SeqCst) == cpu_vector
            && self
                .awaited
                .compare_exchange(cpu_vector, 0, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
    }

    fn former(&self) -> impl Iterator<Item = CpuVector> {
        self.former.iter().filter_map(|cpu_vector| unpack(cpu_vector.load(Ordering::SeqCst)))
    }

    fn has_room(&self) -> bool {
        self.former().count() < MOST_FORMER
    }

    /// Returns `true` if little room is left for former vectors, so that they must be freed without
    /// waiting for an arrival.
    fn is_crowded(&self) -> bool {
        self.former().count() >= MOST_FORMER / 2
    }

    /// Adds a former vector. The array always has room for this vector. The caller must hold the
    /// lock.
    fn add_former(&self, cpu_vector: CpuVector) {
        let free = self.former.iter().find(|cpu_vector| cpu_vector.load(Ordering::SeqCst) == 0);
        debug_assert!(free.is_some());
        if let Some(free) = free {
            free.store(pack(cpu_vector), Ordering::SeqCst);
        }
    }

    /// Removes a former vector. The caller must hold the lock.
    fn remove_former(&self, cpu_vector: CpuVector) {
        for former in &self.former {
            if former.load(Ordering::SeqCst) == pack(cpu_vector) {
                former.store(0, Ordering::SeqCst);
            }
        }
    }
}

/// The part of a hwirq's state that the lock protects.
#[derive(Debug, Default)]
struct IrqDataLocked {
    phase: Phase,
    /// Target of a move, between its two phases.
    moving: Option<CpuVector>,
    /// CPUs of a managed hwirq, each of which has a vector reserved for it.
    managed: Option<Vec<Cpu>>,
    /// `true` if former vectors are freed without waiting for an arrival at the present one.
    impatient: bool,
}

/// Life cycle of a hwirq.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
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
struct QuotaTable {
    next: u32,
    quotas: SortedMap<u32, VectorQuota>,
}

impl QuotaTable {
    fn attach(&mut self, device: RequesterId, limit: u32) -> Result<Attachment, MsiError> {
        let cookie = self.next;
        let next =
            cookie.checked_add(1).ok_or(MsiError::NoMemory("another attachment's number"))?;
        self.quotas.reserve().map_err(|_| MsiError::NoMemory("the list of attachments"))?;
        self.next = next;
        self.quotas.insert(cookie, VectorQuota { limit, used: 0 });
        Ok(Attachment::new(device, cookie))
    }

    fn detach(&mut self, attachment: &Attachment) {
        self.quotas.remove(attachment.cookie());
    }

    /// Counts vectors against the device's limit.
    fn charge(&mut self, attachment: &Attachment, wanted: u16) -> Result<AttachmentId, MsiError> {
        let unknown = MsiError::DeviceFull { wanted, limit: 0 };
        let quota = self.quotas.get_mut(attachment.cookie()).ok_or(unknown)?;
        let used = quota.used.checked_add(wanted.into()).filter(|used| *used <= quota.limit);
        quota.used = used.ok_or(MsiError::DeviceFull { wanted, limit: quota.limit })?;
        Ok(AttachmentId::of(attachment))
    }

    fn refund(&mut self, attachment: AttachmentId, count: u16) {
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
