//! The CPU interface, `ICC_*_EL1` (IHI 0069 §12.2): acknowledging and ending interrupts, masking
//! them by priority, and sending software-generated interrupts (SGIs), which kernels use as IPIs.
//! Needs no heap. Each CPU can only use its own interface.

mod explain;
mod setup;

pub(crate) use explain::InterfaceState;
pub use setup::SavedCpuInterface;

use crate::{ExceptionLevel, GicError, SystemRegisters, barrier};
use core::fmt;
use core::marker::PhantomData;
use gic_arch::icc::{self, Ctlr, Igrpen, IntIdValue, Sgi, SysRegEncoding};
use gic_arch::{Affinity, IntId, IntIdClass, Priority, SgiId, gicd};
use setup::shows_all_priorities;

/// The EOI mode (`ICC_CTLR_EL1.EOImode`), as a type.
pub trait EoiMode: private::Sealed + fmt::Debug {
    /// Result of [`CpuInterface::end`]: [`Active`] if the interrupt must still be deactivated.
    type Ended;
    /// Value of `ICC_CTLR_EL1.EOImode` in this mode.
    #[doc(hidden)]
    const SPLIT: bool;
    #[doc(hidden)]
    fn ended(active: Active) -> Self::Ended;
    #[doc(hidden)]
    fn active(ended: Self::Ended) -> Option<Active>;
}

mod private {
    /// Seals [`super::EoiMode`].
    pub trait Sealed {}
}

/// The mode in which EOI drops the running priority and deactivates the interrupt.
#[derive(Debug)]
pub enum CombinedEoi {}

/// The mode in which EOI only drops the running priority. Other interrupts of the same priority can
/// be signaled while the interrupt is still active, i.e. until
/// [`CpuInterface::deactivate`] or until the guest to which it was forwarded deactivates it.
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

/// An interrupt that this CPU has acknowledged but not ended. The interrupt must be ended on the
/// same CPU, in reverse order of acknowledgment.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "interrupts that are not more urgent stay blocked until this one is ended"]
pub struct Acknowledged {
    intid: IntId,
    sender: u8,
}

impl Acknowledged {
    /// Returns `None` if `intid` is a special INTID, which means that no interrupt was
    /// acknowledged.
    pub(crate) fn new(intid: IntId, sender: u8) -> Option<Self> {
        (intid.class() != IntIdClass::Special).then_some(Self { intid, sender })
    }

    /// Returns the interrupt.
    pub const fn intid(&self) -> IntId {
        self.intid
    }

    /// Returns the sending CPU interface's number for an SGI on a GICv2, and 0 otherwise.
    pub const fn sender(&self) -> u8 {
        self.sender
    }

    pub(crate) const fn ended(self) -> Active {
        Active { intid: self.intid, sender: self.sender }
    }
}

/// An interrupt that was ended but not yet deactivated.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "the interrupt is not delivered again until it is deactivated"]
pub struct Active {
    intid: IntId,
    sender: u8,
}

impl Active {
    /// Takes back an interrupt for deactivation. Reverses [`hand_over`](Self::hand_over).
    pub const fn taken_back(intid: IntId) -> Self {
        Self { intid, sender: 0 }
    }

    /// Returns the interrupt.
    pub const fn intid(&self) -> IntId {
        self.intid
    }

    pub(crate) const fn sender(&self) -> u8 {
        self.sender
    }

    /// Leaves the deactivation to a guest, or to other code that only knows the INTID. Must not be
    /// used for a GICv2 SGI, because the deactivation of an SGI also requires the sender's number.
    pub const fn hand_over(self) -> IntId {
        self.intid
    }
}

/// The calling CPU's interface, accessed through system registers ([`CpuInterface`]) or
/// memory-mapped registers ([`CpuInterfaceV2`](crate::gicv2::CpuInterfaceV2)).
pub trait GicCpuInterface {
    /// The EOI mode.
    type Mode: EoiMode;

    /// Acknowledges the highest-priority pending interrupt and makes it active. Returns `None` if
    /// no interrupt can be acknowledged, e.g. because it is no longer pending.
    fn acknowledge(&self) -> Option<Acknowledged>;
    /// Ends an interrupt: drops the running priority and, with [`CombinedEoi`], deactivates it.
    fn end(&self, interrupt: Acknowledged) -> <Self::Mode as EoiMode>::Ended;
    /// Deactivates the interrupt with [`SplitEoi`], so that it can be delivered again. No-op with
    /// [`CombinedEoi`], because [`end`](Self::end) has already deactivated the interrupt.
    fn deactivate(&self, ended: <Self::Mode as EoiMode>::Ended);
    /// Sets the priority mask. Only interrupts with a higher priority than the mask are signaled.
    fn set_mask(&self, mask: Priority);
    /// Returns the priority mask.
    fn mask(&self) -> Priority;
    /// Returns the running priority (the highest one among active interrupts), or
    /// [`Priority::IDLE`] if none is active.
    fn running_priority(&self) -> Priority;
    /// Returns the highest-priority pending interrupt without acknowledging it.
    fn highest_pending(&self) -> Option<IntId>;

    /// Handles all pending interrupts in turn: acknowledges each one, calls `handle`, ends it and
    /// deactivates it. A kernel's IRQ exception handler can consist of this call alone, unless an
    /// [erratum](crate::errata) requires [`Gic::end`](crate::Gic::end).
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

/// Initial configuration of a CPU interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CpuInterfaceConfig {
    pub(crate) mask: Priority,
    pub(crate) binary_point: u8,
}

impl CpuInterfaceConfig {
    msi_types::setters! {
        /// Sets the priority mask. Only interrupts with a higher priority than the mask are
        /// signaled.
        with_mask: mask: Priority,
        /// Sets the binary point (`ICC_BPR1_EL1`, 0 to 7), which splits priorities into group
        /// priority and subpriority. An interrupt preempts others with a lower group priority; 0
        /// allows this at every priority. Values below the implementation's minimum act as the
        /// minimum.
        with_binary_point: binary_point: u8,
    }
}

impl Default for CpuInterfaceConfig {
    /// Signals every priority except the lowest, and allows preemption at every priority.
    fn default() -> Self {
        Self { mask: Priority::new(0xf0), binary_point: 0 }
    }
}

/// The previous priority mask, for [`CpuInterface::restore_mask`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the mask stays raised until it is restored"]
pub struct SavedMask(Priority);

/// Relation between priorities in this CPU's mask and priorities in the distributor, the
/// redistributors and LPI configurations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PriorityScale {
    /// The mask and the distributor use the same priorities.
    Same,
    /// The mask is not shifted although the distributor's view is Non-secure, because EL3 lets this
    /// software use Group 0 (`SCR_EL3.FIQ` = 0).
    Unshifted,
}

impl PriorityScale {
    /// Returns the mask value that corresponds to a priority at the distributor.
    pub const fn mask_for(self, priority: Priority) -> Priority {
        match self {
            Self::Same => priority,
            Self::Unshifted => Priority::from_non_secure_view(priority.get()),
        }
    }
}

/// Handle to the calling CPU's interface. Creating a handle is cheap and accesses no registers. The
/// handle is `Copy` if `S` is, and one handle can serve all CPUs if `S` always accesses the calling
/// CPU. Operations may be called in any context, but the caller must not migrate to another CPU
/// during a sequence of operations.
///
/// The interface handles Group 1, whose interrupts a kernel receives as IRQs.
///
/// ```
/// # use gic_arch::icc::{self, SysRegEncoding};
/// # struct Registers;
/// # impl gic_driver::SystemRegisters for Registers {
/// #     fn read_raw(&self, register: SysRegEncoding) -> u64 {
/// #         if register == icc::IAR1.encoding() { 1023 } else { 1 }
/// #     }
/// #     fn write_raw(&self, _: SysRegEncoding, _: u64) {}
/// # }
/// # let registers = &Registers;
/// use gic_arch::Priority;
/// use gic_driver::{CpuInterface, CpuInterfaceConfig, GicCpuInterface};
///
/// // Each CPU, once its redistributor is awake:
/// let config = CpuInterfaceConfig::default().with_mask(Priority::new(0xe0));
/// let interface = <CpuInterface<_>>::enable(registers, config)?;
///
/// // The CPU's IRQ handler:
/// interface.handle_pending(|intid| println!("INTID {intid}"));
/// # Ok::<(), gic_driver::GicError>(())
/// ```
#[derive(Debug)]
pub struct CpuInterface<S, E = CombinedEoi> {
    registers: S,
    limit: SgiReach,
    mode: PhantomData<E>,
}

// `Clone` and `Copy` are not derived, because `derive` would also require them of the marker type
// `E`.
impl<S: Clone, E> Clone for CpuInterface<S, E> {
    fn clone(&self) -> Self {
        Self { registers: self.registers.clone(), limit: self.limit, mode: PhantomData }
    }
}

impl<S: Copy, E> Copy for CpuInterface<S, E> {}

impl<S: SystemRegisters, E: EoiMode> CpuInterface<S, E> {
    /// Enables the CPU interface: sets up system register access, the priority mask, the binary
    /// point and the EOI mode, and enables Group 1. Clears the active priorities, so that
    /// interrupts that other software left active no longer block others. The CPU's redistributor
    /// must be awake.
    ///
    /// # Errors
    /// [`GicError::NoSystemRegisters`] if a higher exception level denies access to the registers.
    pub fn enable(registers: S, config: CpuInterfaceConfig) -> Result<Self, GicError> {
        let CpuInterfaceConfig { mask, binary_point } = config;
        SavedCpuInterface { mask, binary_point, eoi_mode: E::SPLIT }.restore(&registers)?;
        Ok(Self::new(registers))
    }

    /// Creates a handle to a CPU interface that was enabled with the same EOI mode. Accesses no
    /// registers.
    pub const fn new(registers: S) -> Self {
        Self { registers, limit: SgiReach::UNLIMITED, mode: PhantomData }
    }

    /// Makes the handle also refuse SGIs that this distributor cannot forward.
    pub fn limited_by(self, distributor: gicd::Typer) -> Self {
        Self { limit: self.limit.limited_by(SgiReach::of_distributor(distributor)), ..self }
    }

    /// Acknowledges the highest-priority pending interrupt and makes it active. Returns `None` if
    /// no interrupt can be acknowledged, e.g. because it is no longer pending.
    pub fn acknowledge(&self) -> Option<Acknowledged> {
        Acknowledged::new(self.registers.read(icc::IAR1).intid(), 0)
    }

    /// Ends an interrupt: drops the running priority and, with [`CombinedEoi`], deactivates it.
    pub fn end(&self, interrupt: Acknowledged) -> E::Ended {
        self.registers.write(icc::EOIR1, IntIdValue::of(interrupt.intid()));
        E::ended(interrupt.ended())
    }

    /// Reads the state that [`SavedCpuInterface::restore`] needs after the CPU has lost power.
    pub fn save(&self) -> SavedCpuInterface {
        SavedCpuInterface {
            mask: self.mask(),
            binary_point: self.binary_point(),
            eoi_mode: self.control().eoi_mode(),
        }
    }

    /// Disables the CPU interface, so it no longer signals interrupts. Must be called before the
    /// redistributor is put to sleep.
    pub fn disable(&self) {
        self.registers.write(icc::IGRPEN1, Igrpen::new().with_enable(false));
    }

    /// Sets the priority mask. Only interrupts with a higher priority than the mask are signaled.
    pub fn set_mask(&self, mask: Priority) {
        self.registers.write(icc::PMR, u64::from(mask.get()));
    }

    /// Masks interrupts by priority: only interrupts with a higher priority than `threshold` are
    /// still signaled, or fewer if the mask was already stricter. A kernel can use this in place of
    /// the CPU's own interrupt mask to get pseudo-NMIs: high-priority interrupts are then signaled
    /// even while ordinary interrupts are masked. Calls may be nested, and each must be undone by
    /// [`restore_mask`](Self::restore_mask).
    ///
    /// The CPU's own interrupt mask must be clear while the priority mask is used in its place.
    /// `threshold` must lie between the priority of ordinary interrupts and that of pseudo-NMIs, in
    /// [the mask's scale](Self::priority_scale). An ordinary interrupt with a higher priority than
    /// `threshold` would not be masked.
    ///
    /// If [`LocalCpu::irq_save`](crate::LocalCpu::irq_save) uses this mask, a pseudo-NMI may arrive
    /// while its own CPU holds any lock in this crate or in the interrupt core. Its handler must
    /// not take these locks, or the CPU deadlocks. The handler may acknowledge and end interrupts
    /// through this handle, but must not mask, unmask or move an interrupt, or change its pending
    /// state. Nor may it dispatch ordinary interrupts: dispatching one that arrived while disabled
    /// may send ITS commands. Defer such work to an ordinary interrupt, e.g. an SGI that the
    /// handler sends.
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

    /// Returns the priority mask.
    pub fn mask(&self) -> Priority {
        priority(self.registers.read(icc::PMR))
    }

    /// Returns the running priority (the highest one among active interrupts), or
    /// [`Priority::IDLE`] if none is active.
    pub fn running_priority(&self) -> Priority {
        priority(self.registers.read(icc::RPR))
    }

    /// Returns the highest-priority pending interrupt without acknowledging it.
    pub fn highest_pending(&self) -> Option<IntId> {
        let intid = self.registers.read(icc::HPPIR1).intid();
        (intid.class() != IntIdClass::Special).then_some(intid)
    }

    /// Returns the binary point (`ICC_BPR1_EL1`).
    pub fn binary_point(&self) -> u8 {
        self.registers.read(icc::BPR1).to_le_bytes()[0] & 7
    }

    /// Returns the number of implemented priority bits, 4 to 8. A Non-secure view shows one fewer.
    pub fn priority_bits(&self) -> u32 {
        u32::from(self.registers.read(icc::CTLR).pri_bits_minus_one()) + 1
    }

    /// Reads the control register (`ICC_CTLR_EL1`), which also reports implemented features.
    pub fn control(&self) -> Ctlr {
        self.registers.read(icc::CTLR)
    }

    /// Detects how the mask's priorities relate to a Non-secure distributor's. Writes the mask's
    /// lowest implemented bit, which a Non-secure view drops, and then restores the mask. If the
    /// distributor's view is not Non-secure, both scales are the same. This CPU's interrupts must
    /// be masked.
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
    /// Deactivates an interrupt, so that it can be delivered again. No-op for LPIs, because LPIs
    /// have no active state.
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

/// Registers for a CPU with unsynchronized acknowledgments
/// ([`AcknowledgeNotSynchronized`](crate::errata::Erratum::AcknowledgeNotSynchronized)). The type
/// separates reads of `ICC_IAR1_EL1` from other accesses by NOPs, and reports an interrupt that did
/// not become active as spurious.
///
/// The number of NOPs is the same as in Linux (`gic_read_iar_cavium_thunderx`).
#[derive(Clone, Copy, Debug)]
pub struct SynchronizedAcknowledge<S>(S);

impl<S: SystemRegisters> SynchronizedAcknowledge<S> {
    /// Wraps the registers of a CPU with this erratum.
    pub const fn new(registers: S) -> Self {
        Self(registers)
    }

    /// Acknowledges an interrupt, or returns a spurious INTID if none became active. Checking a
    /// single active-priority register is enough, because these implementations have at most 32
    /// group priorities.
    fn acknowledge(&self) -> u64 {
        let before = self.0.read(icc::AP1R0);
        barrier::eight_nops();
        let intid = self.0.read_raw(icc::IAR1.encoding());
        barrier::eight_nops();
        barrier::complete();
        if self.0.read(icc::AP1R0) == before { SPURIOUS } else { intid }
    }
}

/// Special INTID: no pending interrupt (IHI 0069 §2.2.1).
const SPURIOUS: u64 = 1023;

impl<S: SystemRegisters> SystemRegisters for SynchronizedAcknowledge<S> {
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        if register == icc::IAR1.encoding() {
            self.acknowledge()
        } else {
            self.0.read_raw(register)
        }
    }

    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        self.0.write_raw(register, value);
    }

    fn exception_level(&self) -> ExceptionLevel {
        self.0.exception_level()
    }
}

/// Range of affinities to which an SGI can be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SgiReach {
    range_selector: bool,
    aff3: bool,
}

impl SgiReach {
    const UNLIMITED: Self = Self { range_selector: true, aff3: true };
    /// Affinities that every implementation supports.
    const NONE: Self = Self { range_selector: false, aff3: false };

    fn of_interface(control: Ctlr) -> Self {
        Self { range_selector: control.rss(), aff3: control.a3v() }
    }

    fn of_distributor(typer: gicd::Typer) -> Self {
        Self { range_selector: typer.rss(), aff3: typer.a3v() }
    }

    fn limited_by(self, other: Self) -> Self {
        Self {
            range_selector: self.range_selector && other.range_selector,
            aff3: self.aff3 && other.aff3,
        }
    }

    fn check(self, target: Affinity) -> Result<(), GicError> {
        let [aff3, _, _, aff0] = target.levels();
        if aff0 >= 16 && !self.range_selector {
            return Err(GicError::SgiOutOfReach(
                target,
                "Aff0 above 15 needs the range selector (RSS)",
            ));
        }
        if aff3 != 0 && !self.aff3 {
            return Err(GicError::SgiOutOfReach(target, "Aff3 is not supported here (A3V)"));
        }
        Ok(())
    }
}

/// SGIs are sent as Group 1 interrupts in the sender's security state. Stores made before sending
/// are visible to the receiver.
impl<S: SystemRegisters, E: EoiMode> CpuInterface<S, E> {
    /// Sends an SGI to one PE, which may be this one.
    ///
    /// # Errors
    /// [`GicError::SgiOutOfReach`] if this distributor or CPU interface cannot address the PE.
    pub fn send(&self, sgi: SgiId, target: Affinity) -> Result<(), GicError> {
        self.check_reach([target])?;
        self.registers.write(icc::SGI1R, Sgi::to(sgi.get(), target));
        Ok(())
    }

    /// Sends an SGI to several PEs. Consecutive `targets` share a register write if they agree in
    /// Aff3, Aff2 and Aff1 and their Aff0 is in the same range of sixteen, so ascending order needs
    /// the fewest writes.
    ///
    /// # Errors
    /// [`GicError::SgiOutOfReach`] if a PE cannot be addressed; in this case no SGI is sent.
    pub fn send_to(
        &self,
        sgi: SgiId,
        targets: impl IntoIterator<Item = Affinity, IntoIter: Clone>,
    ) -> Result<(), GicError> {
        let targets = targets.into_iter();
        self.check_reach(targets.clone())?;
        let mut collected: Option<Sgi> = None;
        for target in targets {
            let one = Sgi::to(sgi.get(), target);
            collected = Some(match collected {
                Some(many) if many.with_target_list(0) == one.with_target_list(0) => {
                    many.with_target_list(many.target_list() | one.target_list())
                }
                Some(many) => {
                    self.registers.write(icc::SGI1R, many);
                    one
                }
                None => one,
            });
        }
        if let Some(many) = collected {
            self.registers.write(icc::SGI1R, many);
        }
        Ok(())
    }

    /// Sends an SGI to all PEs except this one.
    pub fn send_to_others(&self, sgi: SgiId) {
        self.registers.write(icc::SGI1R, Sgi::new().with_intid(sgi.get()).with_all_but_self(true));
    }

    /// Checks that both the distributor and this CPU interface can address all targets. Reads
    /// `ICC_CTLR_EL1`, which may trap, only if a target needs an optional feature.
    fn check_reach(&self, targets: impl IntoIterator<Item = Affinity>) -> Result<(), GicError> {
        let mut reach = None;
        for target in targets.into_iter().filter(|target| SgiReach::NONE.check(*target).is_err()) {
            let reach = reach.get_or_insert_with(|| {
                self.limit.limited_by(SgiReach::of_interface(self.registers.read(icc::CTLR)))
            });
            reach.check(target)?;
        }
        Ok(())
    }
}
