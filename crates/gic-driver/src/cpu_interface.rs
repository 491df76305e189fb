//! The CPU interface, `ICC_*_EL1` (IHI 0069 §12.2): acknowledging and ending interrupts, masking
//! them by priority, and sending SGIs. Without a heap; each CPU uses its own.

mod acknowledge;
mod setup;
mod sgi;
mod sgi_reach;

pub use acknowledge::SynchronisedAcknowledge;
pub use setup::SavedCpuInterface;

use crate::{GicError, SystemRegisters};
use core::fmt;
use core::marker::PhantomData;
use gic_arch::icc::{self, Ctlr, Igrpen, IntIdValue};
use gic_arch::{IntId, IntIdClass, Priority, gicd};
use setup::shows_all_priorities;
use sgi_reach::SgiReach;

/// The way interrupts are ended (`ICC_CTLR_EL1.EOImode`), as a type.
pub trait EoiMode: private::Sealed + fmt::Debug {
    /// The work that remains after [`CpuInterface::end`].
    type Ended;
    /// The register's field.
    #[doc(hidden)]
    const SPLIT: bool;
    #[doc(hidden)]
    fn ended(active: Active) -> Self::Ended;
    #[doc(hidden)]
    fn active(ended: Self::Ended) -> Option<Active>;
}

mod private {
    /// Closes [`super::EoiMode`].
    pub trait Sealed {}
}

/// Ending an interrupt drops the running priority and deactivates it.
#[derive(Debug)]
pub enum CombinedEoi {}

/// Ending an interrupt drops the running priority alone. Others of the same priority come through
/// while it remains active: until [`CpuInterface::deactivate`], or until a guest that it was given
/// to deactivates it.
#[derive(Debug)]
pub enum SplitEoi {}

impl private::Sealed for CombinedEoi {}
impl private::Sealed for SplitEoi {}

impl EoiMode for CombinedEoi {
    type Ended = ();
    const SPLIT: bool = false;
    fn ended(_: Active) -> Self::Ended {}
    fn active((): Self::Ended) -> Option<Active> {
        None
    }
}

impl EoiMode for SplitEoi {
    type Ended = Active;
    const SPLIT: bool = true;
    fn ended(active: Active) -> Self::Ended {
        active
    }
    fn active(ended: Self::Ended) -> Option<Active> {
        Some(ended)
    }
}

/// An interrupt that this CPU acknowledged and has not ended. Ended in reverse order of
/// acknowledgement, on the same CPU.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "the running priority stays raised until the interrupt is ended"]
pub struct Acknowledged {
    intid: IntId,
    sender: u8,
}

impl Acknowledged {
    /// `None` if the CPU interface answered that there is no interrupt.
    pub(crate) fn new(intid: IntId, sender: u8) -> Option<Self> {
        (intid.class() != IntIdClass::Special).then_some(Self { intid, sender })
    }

    /// The interrupt.
    pub const fn intid(&self) -> IntId {
        self.intid
    }

    /// Of a GICv2's SGI: the number of the CPU interface that sent it. 0 otherwise.
    pub const fn sender(&self) -> u8 {
        self.sender
    }

    pub(crate) const fn ended(self) -> Active {
        Active { intid: self.intid, sender: self.sender }
    }
}

/// An interrupt that was ended and not deactivated.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "the interrupt is not delivered again until it is deactivated"]
pub struct Active {
    intid: IntId,
    sender: u8,
}

impl Active {
    /// The interrupt.
    pub const fn intid(&self) -> IntId {
        self.intid
    }

    pub(crate) const fn sender(&self) -> u8 {
        self.sender
    }

    /// Leaves the deactivation to other code: a guest, or code that only knows the number. An SGI
    /// of a GICv2 is deactivated here: its deactivation names the sender too.
    pub const fn hand_over(self) -> IntId {
        self.intid
    }

    /// The inverse of [`hand_over`](Self::hand_over).
    pub const fn taken_back(intid: IntId) -> Self {
        Self { intid, sender: 0 }
    }
}

/// The CPU interface of the CPU that uses it, for both architectures: by system registers
/// ([`CpuInterface`]) or mapped ([`CpuInterfaceV2`](crate::gicv2::CpuInterfaceV2)).
pub trait GicCpuInterface {
    /// The way interrupts are ended.
    type Mode: EoiMode;

    /// Takes the most urgent pending interrupt, which becomes active. `None` if nothing is to be
    /// signalled (any more).
    fn acknowledge(&self) -> Option<Acknowledged>;
    /// Ends an interrupt: drops the running priority, and as [`CombinedEoi`] deactivates it.
    fn end(&self, interrupt: Acknowledged) -> <Self::Mode as EoiMode>::Ended;
    /// Does what remains after [`end`](Self::end): as [`SplitEoi`] deactivates the interrupt, which
    /// can be delivered again; as [`CombinedEoi`] nothing.
    fn deactivate(&self, ended: <Self::Mode as EoiMode>::Ended);
    /// Sets the priority mask: only interrupts more urgent than it are signalled.
    fn set_mask(&self, mask: Priority);
    /// The priority mask.
    fn mask(&self) -> Priority;
    /// The running priority: that of the most urgent active interrupt, [`Priority::IDLE`] without
    /// one.
    fn running_priority(&self) -> Priority;
    /// The most urgent pending interrupt, without taking it.
    fn highest_pending(&self) -> Option<IntId>;

    /// Takes everything that is pending, one interrupt after the other: calls `handle`, ends and
    /// deactivates it. A kernel's whole IRQ exception where no [erratum](crate::errata) wants
    /// [`Gic::end`](crate::Gic::end).
    #[inline]
    fn handle_pending(&self, mut handle: impl FnMut(IntId))
    where
        Self: Sized,
    {
        while let Some(interrupt) = self.acknowledge() {
            handle(interrupt.intid());
            self.deactivate(self.end(interrupt));
        }
    }
}

impl<S: SystemRegisters, E: EoiMode> GicCpuInterface for CpuInterface<S, E> {
    type Mode = E;

    fn acknowledge(&self) -> Option<Acknowledged> {
        self.acknowledge()
    }

    fn end(&self, interrupt: Acknowledged) -> E::Ended {
        self.end(interrupt)
    }

    fn deactivate(&self, ended: E::Ended) {
        if let Some(active) = E::active(ended) {
            self.write_dir(active);
        }
    }

    fn set_mask(&self, mask: Priority) {
        self.set_mask(mask);
    }

    fn mask(&self) -> Priority {
        self.mask()
    }

    fn running_priority(&self) -> Priority {
        self.running_priority()
    }

    fn highest_pending(&self) -> Option<IntId> {
        self.highest_pending()
    }
}

/// Settings of a CPU interface when it is enabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CpuInterfaceConfig {
    /// Only interrupts more urgent than this are signalled.
    pub mask: Priority,
    /// The binary point, which splits priorities into group priority and subpriority
    /// (`ICC_BPR1_EL1`, 0 to 7). Interrupts preempt others of a less urgent group priority; 0
    /// preempts at every priority. Values below the implementation's smallest act as the smallest.
    pub binary_point: u8,
}

impl CpuInterfaceConfig {
    msi_types::setters! {
        with_mask: mask: Priority,
        with_binary_point: binary_point: u8,
    }
}

impl Default for CpuInterfaceConfig {
    /// Everything but the least urgent level is signalled; preemption at every priority.
    fn default() -> Self {
        Self { mask: Priority::new(0xf0), binary_point: 0 }
    }
}

/// A priority mask that was replaced. Put back by [`CpuInterface::restore_mask`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the mask stays raised until it is restored"]
pub struct SavedMask(Priority);

/// The relation of priorities at this CPU's mask to those of the distributor, the redistributors
/// and LPI configurations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PriorityScale {
    /// They are the same.
    Same,
    /// The mask is not shifted, though the distributor's view is Non-secure: EL3 lets this software
    /// use Group 0 (`SCR_EL3.FIQ` = 0).
    Unshifted,
}

impl PriorityScale {
    /// The mask value that stands for a priority of the distributor.
    pub const fn mask_for(self, priority: Priority) -> Priority {
        match self {
            Self::Same => priority,
            Self::Unshifted => Priority::from_non_secure_view(priority.get()),
        }
    }
}

/// The CPU interface of the CPU that uses it. A cheap handle: making one accesses nothing. The
/// handle can be copied where `S` can: one for all CPUs if `S` means the CPU that executes. May be
/// used in any context on its CPU, and does not migrate.
///
/// Works with Group 1, whose interrupts a kernel gets as IRQs.
#[derive(Debug)]
pub struct CpuInterface<S, E = CombinedEoi> {
    registers: S,
    limit: SgiReach,
    mode: PhantomData<E>,
}

// Derived, they would ask the same of `E`, which has no values.
impl<S: Clone, E> Clone for CpuInterface<S, E> {
    fn clone(&self) -> Self {
        Self { registers: self.registers.clone(), limit: self.limit, mode: PhantomData }
    }
}

impl<S: Copy, E> Copy for CpuInterface<S, E> {}

impl<S: SystemRegisters, E: EoiMode> CpuInterface<S, E> {
    /// Turns the CPU interface on: its system registers, the priority mask, the binary point, the
    /// way interrupts are ended, and Group 1. Interrupts that other software left active do not
    /// count as running any more. Its redistributor is awake.
    ///
    /// # Errors
    /// [`GicError::NoSystemRegisters`].
    pub fn enable(registers: S, config: CpuInterfaceConfig) -> Result<Self, GicError> {
        let CpuInterfaceConfig { mask, binary_point } = config;
        SavedCpuInterface { mask, binary_point, eoi_mode: E::SPLIT }.restore(&registers)?;
        Ok(Self::new(registers))
    }

    /// A handle to a CPU interface that was enabled with the same way of ending interrupts.
    /// Accesses nothing.
    pub const fn new(registers: S) -> Self {
        Self { registers, limit: SgiReach::UNLIMITED, mode: PhantomData }
    }

    /// Limits SGIs to what this distributor forwards, too.
    pub fn limited_by(self, distributor: gicd::Typer) -> Self {
        Self { limit: self.limit.limited_by(SgiReach::of_distributor(distributor)), ..self }
    }

    /// Takes the most urgent pending interrupt, which becomes active. `None` if nothing is to be
    /// signalled (any more).
    pub fn acknowledge(&self) -> Option<Acknowledged> {
        Acknowledged::new(self.registers.read(icc::IAR1).intid(), 0)
    }

    /// Ends an interrupt: drops the running priority, and as [`CombinedEoi`] deactivates it.
    pub fn end(&self, interrupt: Acknowledged) -> E::Ended {
        self.registers.write(icc::EOIR1, IntIdValue::of(interrupt.intid()));
        E::ended(interrupt.ended())
    }

    /// Reads what [`SavedCpuInterface::restore`] needs after the CPU lost power.
    pub fn save(&self) -> SavedCpuInterface {
        SavedCpuInterface {
            mask: self.mask(),
            binary_point: self.binary_point(),
            eoi_mode: self.control().eoi_mode(),
        }
    }

    /// Turns the CPU interface off: no interrupts are signalled. Before the redistributor is put to
    /// sleep.
    pub fn disable(&self) {
        self.registers.write(icc::IGRPEN1, Igrpen::new().with_enable(false));
    }

    /// Sets the priority mask: only interrupts more urgent than it are signalled.
    pub fn set_mask(&self, mask: Priority) {
        self.registers.write(icc::PMR, u64::from(mask.get()));
    }

    /// Masks interrupts by priority: afterwards only those more urgent than `threshold` are
    /// signalled, or fewer if the mask was stricter. Replaces the CPU's own interrupt mask
    /// (pseudo-NMI): interrupts of a more urgent priority are signalled everywhere. Calls nest;
    /// [`restore_mask`](Self::restore_mask) undoes one.
    ///
    /// The CPU's own mask must be off in the meantime. `threshold` lies between the priority of
    /// ordinary interrupts and that of the urgent ones, in [the mask's
    /// scale](Self::priority_scale). It masks the ordinary ones: their priority is not more urgent
    /// than it.
    ///
    /// An urgent interrupt may arrive while its own CPU holds any lock of this crate or of the
    /// interrupt core: this mask, used for [`LocalCpu::irq_save`](crate::LocalCpu::irq_save), does
    /// not block it. Its handler must not acquire these locks, or the CPU deadlocks. It may
    /// acknowledge and end interrupts by this handle. It must not mask, unmask, move or set pending
    /// any interrupt, nor dispatch ordinary interrupts: after an interrupt that arrived while it
    /// was disabled, a dispatch may send commands to an ITS. Such work must be deferred to an
    /// ordinary interrupt, for example an SGI that the handler sends.
    pub fn mask_below(&self, threshold: Priority) -> SavedMask {
        let old = self.mask();
        if threshold.is_more_urgent_than(old) {
            self.set_mask(threshold);
        }
        SavedMask(old)
    }

    /// Undoes a [`mask_below`](Self::mask_below).
    pub fn restore_mask(&self, saved: SavedMask) {
        self.set_mask(saved.0);
    }

    /// The priority mask.
    pub fn mask(&self) -> Priority {
        priority(self.registers.read(icc::PMR))
    }

    /// The running priority: that of the most urgent active interrupt, [`Priority::IDLE`] without
    /// one.
    pub fn running_priority(&self) -> Priority {
        priority(self.registers.read(icc::RPR))
    }

    /// The most urgent pending interrupt, without taking it.
    pub fn highest_pending(&self) -> Option<IntId> {
        let intid = self.registers.read(icc::HPPIR1).intid();
        (intid.class() != IntIdClass::Special).then_some(intid)
    }

    /// The binary point (`ICC_BPR1_EL1`).
    pub fn binary_point(&self) -> u8 {
        self.registers.read(icc::BPR1).to_le_bytes()[0] & 7
    }

    /// Priority bits of the implementation: 4 to 8. A Non-secure view shows one less.
    pub fn priority_bits(&self) -> u32 {
        u32::from(self.registers.read(icc::CTLR).pri_bits_minus_one()) + 1
    }

    /// The control register, which tells what is implemented.
    pub fn control(&self) -> Ctlr {
        self.registers.read(icc::CTLR)
    }

    /// Finds how the mask's priorities relate to a Non-secure distributor's. Writes the lowest
    /// implemented bit into the mask, which a Non-secure view loses, and restores the mask. With
    /// any other view they are the same. This CPU's interrupts are masked.
    pub fn priority_scale(&self, distributor: crate::SecurityView) -> PriorityScale {
        if distributor != crate::SecurityView::NonSecure {
            return PriorityScale::Same;
        }
        let old = self.mask();
        let shows_all = shows_all_priorities(&self.registers);
        self.set_mask(old);
        if shows_all { PriorityScale::Unshifted } else { PriorityScale::Same }
    }
}

impl<S: SystemRegisters> CpuInterface<S, SplitEoi> {
    /// Deactivates an interrupt: it can be delivered again. LPIs have no active state: nothing is
    /// done.
    pub fn deactivate(&self, interrupt: Active) {
        self.write_dir(interrupt);
    }
}

impl<S: SystemRegisters, E> CpuInterface<S, E> {
    fn write_dir(&self, interrupt: Active) {
        let intid = interrupt.hand_over();
        if !intid.is_lpi() {
            self.registers.write(icc::DIR, IntIdValue::of(intid));
        }
    }
}

fn priority(register: u64) -> Priority {
    Priority::new(register.to_le_bytes()[0])
}
