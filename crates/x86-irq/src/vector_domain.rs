//! The vectors of all CPUs as the root of the interrupt hierarchy.
//!
//! # Numbers
//! The CPUs acknowledge (CPU, vector); an interrupt core wants one number per interrupt, which
//! stays the same when the interrupt moves. So the [`HwIrq`]s handed out here are *slots* of the
//! domain, counted from [`FIRST_SLOT`] (numbers below are left for the interrupts that each CPU has
//! for itself, by their own vectors), and the domain keeps what the trap entry needs: for each CPU
//! a table from vector to slot. [`VectorDomain::arrive`] reads it without a lock:
//!
//! ```text
//! trap(cpu, vector):
//!     match ApicVector::new(vector).map(|vector| domain.arrive(cpu, vector)) {
//!         Some(Arrival::Deliver(slot))                 => interrupts.dispatch(cpu, slot)
//!         Some(Arrival::Held | Arrival::Released)      => nothing
//!         Some(Arrival::Unknown) | None                => the kernel's own vector, or spurious
//!     }
//!     write EOI
//! ```
//!
//! # Masking
//! A vector cannot be masked at a local APIC: endpoints mask. For those that cannot,
//! [`MsiParent::mask`] holds the interrupt back at the trap entry: it is taken, remembered in one
//! pending bit ([`Arrival::Held`]), and sent again by [`MsiParent::unmask`]. Nothing is lost; a
//! device that storms while it is masked costs its CPU a trap per message.
//!
//! # Moving
//! A message names CPU and vector, so that a move writes the endpoint's address and, unless the
//! same vector is free on the new CPU, its data. What the endpoint can do decides ([`Rewrite`]):
//!
//! | endpoint | move |
//! |---|---|
//! | is masked meanwhile, or changes all in one store | to any free vector |
//! | changes its low address word alone | to the same vector, if it is free on the new CPU |
//! | cannot change | refused |
//!
//! For the second kind a vector is chosen at first that is free on most CPUs.
//!
//! The place that an interrupt leaves is kept for it until an interrupt has arrived at the new one,
//! which the device cannot have sent before it sent its last one to the old; and until the old CPU,
//! asked by [`Apic::request_cleanup`], finds no request of that vector waiting. Only then is it
//! handed out again: no message reaches another's handler. Freed vectors wait for the same.
//!
//! A *managed* interrupt moves among certain CPUs alone. A vector is set aside for it on each, so
//! that such a move never fails for want of one.

mod arrival;
mod claims;
mod cleanup;
mod config;
mod msi_parent;
mod placement;
mod relocation;
mod slot;

use crate::apic::{Apic, ApicId, ApicVector, CpuVector};
use crate::lock::{IrqLock, TaskLock};
use crate::matrix::{MatrixError, VectorMatrix};
use crate::message::{ApicMessage, DestinationFormat};
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use claims::Claims;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_fallible::try_collect;
use msi_types::{Cpu, HwIrq, MsiError, MsiMessage};
use slot::{Phase, Slot, SlotState};

#[cfg(doc)]
use msi_types::{MsiParent, Rewrite};

pub use arrival::Arrival;
pub(crate) use claims::ClaimId;
pub use cleanup::{Cleanup, Offline};
pub use config::VectorDomainConfig;
pub(crate) use msi_parent::for_each;
pub(crate) use relocation::KeptPlace;
pub(crate) use slot::{MessageKeeper, Reuse};

/// The number of the first slot.
pub const FIRST_SLOT: u32 = 256;

/// The vectors of all CPUs. See the [module](self).
pub struct VectorDomain {
    apic: Arc<dyn Apic>,
    destinations: DestinationFormat,
    window: (ApicVector, ApicVector),
    /// By CPU and vector: the slot's index plus 1, or 0.
    table: Vec<[AtomicU32; 256]>,
    slots: Vec<Slot>,
    claims: TaskLock<Claims>,
    core: IrqLock<Core>,
}

/// State under the lock. All memory is taken when the domain is made.
struct Core {
    matrix: VectorMatrix,
    /// By CPU; `None` until it first came on line.
    apic_ids: Vec<Option<ApicId>>,
    slots: Vec<SlotState>,
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
    /// A domain with all CPUs off line. Task.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub fn new(config: VectorDomainConfig<'_>) -> Result<Self, TryReserveError> {
        let VectorDomainConfig { cpus, slots, window, system, destinations, apic } = config;
        let (count, count_cpus) = (slots.get(), cpus.get());
        let core = Core {
            matrix: VectorMatrix::new(cpus, window.clone(), system)?,
            apic_ids: try_collect((0..count_cpus).map(|_| None))?,
            slots: try_collect((0..count).map(|_| SlotState::default()))?,
        };
        Ok(Self {
            apic,
            destinations,
            window: window.into_inner(),
            table: try_collect(
                (0..count_cpus).map(|_| core::array::from_fn(|_| AtomicU32::new(0))),
            )?,
            slots: try_collect((0..count).map(|_| Slot::default()))?,
            claims: TaskLock::new(Claims::default()),
            core: IrqLock::new(core),
        })
    }

    /// The effective affinity of a vector. `None` if it is not handed out.
    /// Any.
    pub fn place(&self, hwirq: HwIrq) -> Option<CpuVector> {
        self.slot(hwirq)?.place()
    }

    /// The message that makes a vector pending, in the compatibility format. Any.
    ///
    /// # Errors
    /// [`MsiError::UnknownVector`]; [`MsiError::NotReachable`] if the format cannot name the CPU's
    /// APIC.
    pub fn message(&self, hwirq: HwIrq) -> Result<MsiMessage, MsiError> {
        let place = self.place(hwirq).ok_or(MsiError::UnknownVector(hwirq))?;
        self.with_core(|core| self.message_to(core, place))
    }

    /// The APIC of a CPU that is or was on line. Any.
    pub fn apic_id(&self, cpu: Cpu) -> Option<ApicId> {
        self.with_core(|core| core.apic_id(cpu))
    }

    /// Number of vectors that are free on a CPU. Any.
    pub fn available_on(&self, cpu: Cpu) -> u32 {
        self.with_core(|core| core.matrix.available_on(cpu))
    }

    /// Number of slots in use: handed out, or freed and not cleaned up yet. Any.
    pub fn slots_in_use(&self) -> usize {
        self.with_core(|core| core.slots.iter().filter(|slot| slot.phase != Phase::Free).count())
    }

    pub(crate) fn apic(&self) -> &dyn Apic {
        &*self.apic
    }

    fn with_core<R>(&self, f: impl FnOnce(&mut Core) -> R) -> R {
        self.core.with(self.apic(), f)
    }

    /// The index of a slot.
    fn index(&self, hwirq: HwIrq) -> Option<usize> {
        let index = HwIrq::new(hwirq.get().checked_sub(FIRST_SLOT)?).index();
        (index < self.slots.len()).then_some(index)
    }

    fn slot(&self, hwirq: HwIrq) -> Option<&Slot> {
        self.slots.get(self.index(hwirq)?)
    }

    fn entry(&self, place: CpuVector) -> Option<&AtomicU32> {
        self.table.get(place.cpu.index())?.get(place.vector.index())
    }

    /// Assigns interrupts at `place` to a slot.
    fn set_entry(&self, place: CpuVector, index: Option<usize>) {
        let value = index.map_or(0, |index| u32::try_from(index).map_or(0, |index| index + 1));
        if let Some(entry) = self.entry(place) {
            entry.store(value, Ordering::Release);
        }
    }

    fn entry_index(&self, place: CpuVector) -> Option<usize> {
        let index = self.entry(place)?.load(Ordering::Acquire).checked_sub(1)?;
        usize::try_from(index).ok()
    }

    fn message_to(&self, core: &Core, place: CpuVector) -> Result<MsiMessage, MsiError> {
        let unreachable =
            MsiError::NotReachable(place.cpu, "its APIC ID does not fit the message format");
        let id = core
            .apic_id(place.cpu)
            .filter(|id| self.destinations.reaches(*id))
            .ok_or(unreachable)?;
        ApicMessage::fixed(id, place.vector).encode(self.destinations).map_err(|_| unreachable)
    }
}

/// The number of a slot, of which there are at most 65535.
fn number(index: usize) -> HwIrq {
    HwIrq::new(u32::try_from(index).map_or(u32::MAX, |index| FIRST_SLOT + index))
}

impl Core {
    fn apic_id(&self, cpu: Cpu) -> Option<ApicId> {
        *self.apic_ids.get(cpu.index())?
    }

    /// A place that nobody uses any more. It was handed out by the matrix, so it can be given back.
    fn release(&mut self, place: CpuVector) {
        let freed = self.matrix.free(place);
        debug_assert_eq!(freed, Ok::<(), MatrixError>(()));
    }
}

impl fmt::Debug for VectorDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VectorDomain")
            .field("cpus", &self.table.len())
            .field("slots", &self.slots.len())
            .field("destinations", &self.destinations)
            .finish_non_exhaustive()
    }
}
