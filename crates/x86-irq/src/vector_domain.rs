//! The vectors of all CPUs as the root of the interrupt hierarchy.
//!
//! # Numbers
//! The CPUs acknowledge (CPU, vector); an interrupt core wants one number per interrupt, which
//! stays the same when the interrupt moves. So the domain hands out [`HwIrq`]s, counted from
//! [`FIRST_HWIRQ`]. Numbers below are left for the interrupts that each CPU has for itself, by
//! their own vectors. For the trap entry, it keeps a table from vector to hwirq for each CPU.
//! [`VectorDomain::arrive`] reads it without a lock:
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
//! A vector cannot be masked at a local APIC: endpoints mask. For those that cannot,
//! [`MsiParent::mask`] holds the interrupt back at the trap entry. It is taken, remembered in one
//! pending bit ([`Arrival::Held`]), and sent again by [`MsiParent::unmask`]. Nothing is lost; a
//! device that storms while it is masked costs its CPU a trap per message.
//!
//! # Moving
//! A message names CPU and vector. So a move writes the endpoint's address and, unless the same
//! vector is free on the new CPU, its data. What the endpoint can do decides ([`Rewrite`]):
//!
//! | endpoint | move |
//! |---|---|
//! | is masked meanwhile, or changes all in one store | to any free vector |
//! | changes its low address word alone | to the same vector, if it is free on the new CPU |
//! | cannot change | refused |
//!
//! For the second kind a vector is chosen at first that is free on most CPUs.
//!
//! The vector that an interrupt leaves is kept for it until an interrupt has arrived at the new
//! one. The device cannot have sent that before its last one to the old. It is kept, too, until the
//! old CPU, asked by [`Apic::request_cleanup`], finds no request of that vector waiting. Only then
//! is it handed out again: no message reaches another's handler. Freed vectors wait for the same.
//!
//! A *managed* interrupt moves among certain CPUs alone. A vector is set aside for it on each, so
//! that such a move never fails for want of one.
//!
//! # Locks
//! Outermost first:
//!
//! ```text
//! remapping layer's records (TaskLock)
//! └─ quotas (TaskLock)
//!    └─ core: matrix and hwirqs (IrqLock): allocates nothing; calls Apic alone
//! ```

mod allocation;
mod arrival;
mod cleanup;
mod config;
mod free_hwirqs;
mod irq_data;
mod msi_parent;
mod quotas;
mod relocation;

use crate::apic::{Apic, ApicId, ApicVector, CpuVector};
use crate::matrix::{MatrixError, VectorMatrix};
use crate::message::{ApicMessage, DestinationFormat};
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_fallible::try_collect;
use doorbell_lock::{IrqLock, TaskLock};
use free_hwirqs::FreeHwirqs;
use irq_data::{IrqData, IrqDataLocked};
use msi_types::{Cpu, HwIrq, MsiError, MsiMessage};
use quotas::QuotaTable;

#[cfg(doc)]
use msi_types::{MsiParent, Rewrite};

pub use arrival::Arrival;
pub use cleanup::{Cleanup, Offline};
pub use config::VectorDomainConfig;
pub(crate) use irq_data::{FreedVectors, MessageKeeper};
pub(crate) use msi_parent::for_each;
pub(crate) use quotas::AttachmentId;

/// The number of the first hwirq.
pub const FIRST_HWIRQ: u32 = 256;

/// The vectors of all CPUs. See the [module](self).
pub struct VectorDomain {
    apic: Arc<dyn Apic>,
    destinations: DestinationFormat,
    window: (ApicVector, ApicVector),
    /// By CPU and vector: the hwirq's index plus 1, or 0.
    table: Vec<[AtomicU32; 256]>,
    irqs: Vec<IrqData>,
    quotas: TaskLock<QuotaTable>,
    core: IrqLock<Core>,
}

/// State under the lock. All memory is taken when the domain is made.
struct Core {
    matrix: VectorMatrix,
    /// By CPU; `None` until it first came on line.
    apic_ids: Vec<Option<ApicId>>,
    irqs: Vec<IrqDataLocked>,
    free: FreeHwirqs,
}

/// A CPU cannot come or go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// The caller names a CPU that the domain was not made for.
    #[error("CPU {0} is not one of those that the vector domain was made for")]
    Unknown(Cpu),
    /// The caller gives two CPUs one APIC.
    #[error("APIC ID {id} is CPU {of}'s")]
    DuplicateId {
        /// The ID.
        id: ApicId,
        /// The CPU that has it.
        of: Cpu,
    },
}

impl VectorDomain {
    /// Creates a domain with all CPUs offline.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub fn new(config: VectorDomainConfig<'_>) -> Result<Self, TryReserveError> {
        let VectorDomainConfig { cpus, hwirqs, window, system, destinations, apic } = config;
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
            window: window.into_inner(),
            table: try_collect(
                (0..count_cpus).map(|_| core::array::from_fn(|_| AtomicU32::new(0))),
            )?,
            irqs: try_collect((0..count).map(|_| IrqData::default()))?,
            quotas: TaskLock::new(QuotaTable::default()),
            core: IrqLock::new(core),
        })
    }

    /// Returns the effective affinity of a vector; `None` if it is not allocated.
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
    /// [`MsiError::UnknownVector`]; [`MsiError::NotReachable`] if the format cannot name the CPU's
    /// APIC.
    pub fn message(&self, hwirq: HwIrq) -> Result<MsiMessage, MsiError> {
        let cpu_vector = self.cpu_vector(hwirq).ok_or(MsiError::UnknownVector(hwirq))?;
        self.with_core(|core| self.message_to(core, cpu_vector))
    }

    /// Returns the APIC of a CPU that is or was online.
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

    /// Returns the number of hwirqs in use: allocated, or freed and not cleaned up yet.
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

    /// The index of a hwirq.
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

    /// Assigns interrupts at `cpu_vector` to a hwirq.
    fn set_entry(&self, cpu_vector: CpuVector, index: Option<usize>) {
        let value = index.map_or(0, |index| u32::try_from(index).map_or(0, |index| index + 1));
        if let Some(entry) = self.entry(cpu_vector) {
            entry.store(value, Ordering::Release);
        }
    }

    fn entry_index(&self, cpu_vector: CpuVector) -> Option<usize> {
        let index = self.entry(cpu_vector)?.load(Ordering::Acquire).checked_sub(1)?;
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

/// The number of a hwirq, of which there are at most 65535.
fn number(index: usize) -> HwIrq {
    HwIrq::new(u32::try_from(index).map_or(u32::MAX, |index| FIRST_HWIRQ + index))
}

impl Core {
    fn apic_id(&self, cpu: Cpu) -> Option<ApicId> {
        *self.apic_ids.get(cpu.index())?
    }

    /// A vector that nobody uses any more. It was handed out by the matrix, so it can be given
    /// back.
    fn release(&mut self, cpu_vector: CpuVector) {
        let freed = self.matrix.free(cpu_vector);
        debug_assert_eq!(freed, Ok::<(), MatrixError>(()));
    }
}

impl fmt::Debug for VectorDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VectorDomain")
            .field("cpus", &self.table.len())
            .field("irqs", &self.irqs.len())
            .field("destinations", &self.destinations)
            .finish_non_exhaustive()
    }
}
