//! vCPUs with list registers (IHI 0069 §6, §12.4), for hypervisors at EL2. The hardware's virtual
//! CPU interface acknowledges and ends interrupts without an exit. We fill the list registers
//! before entering the guest, and fold them back into the model after it exits.
//!
//! While its guest isn't running, the vCPU behaves like a software CPU interface ([`Vcpu`]),
//! because an exit loads the state that the guest left in the hardware. Trapped accesses and the
//! decision to sleep use this state.
//!
//! | aspect | implementation |
//! |---|---|
//! | order | the highest-priority pending interrupt first, then active interrupts, then the other pending ones by priority |
//! | too many pending interrupts | `NPIE`: the guest exits when no listed interrupt is pending any more. (`UIE` wouldn't trigger while listed interrupts are active.) Enabling another group exits as well |
//! | too many active interrupts | `LRENPIE`: each EOI in `EOIcount` ends the unlisted interrupt that the guest acknowledged last, because guests nest. Interrupts made active by a register write come last |
//! | `ICC_DIR_EL1` | traps (`TDIR`), because the interrupt may be active at another vCPU; guests without `EOImode` don't use it. On a CPU that cannot trap it separately, `TC` does so for guests entered with `EOImode`, and while active interrupts are unlisted |
//! | 1-of-N interrupts | enabling or disabling a group exits. From then on the vCPU participates, or other vCPUs receive the interrupts that it didn't take |
//! | levels | a maintenance interrupt at the EOI; the observer is notified, and the level is sampled again |
//! | pending while active | both states in the list register, if the interrupt is edge-triggered, holds no physical interrupt, and could still be signaled to this vCPU; otherwise only active: the pending state stays in the model, and unless it is the level of a linked input, a maintenance interrupt at the EOI signals it |
//! | linked interrupts | `HW` and the physical INTID while the physical interrupt is active: its deactivation deactivates both, without an exit, unless an edge, a message or a register write has made the interrupt pending again: the model then deactivates the physical interrupt ([`Vgic::link`]). A level is sampled before it is listed, and again at the exit if the guest has not acknowledged it |
//! | new interrupts while the guest runs | listed without an exit, if the list registers are empty ([`InGuest::list_arrivals`]), or if it is a message whose LPI only needs one list register ([`InGuest::list_message`]) |
//! | LPIs | no active state, never linked to a physical interrupt (`HW`) |
//! | changes while the guest runs | kick the vCPU. The effects that a register or command guarantees (`RWP`, `SYNCR`, SYNC, `WAKER`) are only complete once the vCPU has exited |

mod arrivals;
mod fill;
mod rank;
mod sgi;

use crate::config::{SecurityView, VgicConfig};
use crate::cpu::listed::{ListRegisters, Listed, MAX_LIST_REGISTERS, VirtualInterface};
use crate::cpu::paused::Paused;
use crate::cpu::system_registers::Undefined;
use crate::cpu::vcpu::{Inputs, Sleep, Vcpu};
use crate::vgic::Vgic;
use crate::wired::index::WiredIndex;
use alloc::sync::Arc;
use core::fmt;
use gic_arch::IntId;
use gic_arch::icc::{self, IntIdValue, SysRegEncoding};
use gic_arch::ich::{ListRegister, ListRegisterState, Vtr};
use msi_types::Cpu;
use msi_types::explain::Group;

/// Error for a guest that cannot run on a CPU's virtual interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VirtualInterfaceMismatch {
    /// The numbers of priority bits differ.
    #[error("the machine has {machine} priority bits, but this CPU's interface has {hardware}")]
    PriorityBits {
        /// [`VgicConfig::priority_bits`](crate::VgicConfig::priority_bits).
        machine: u8,
        /// `ICH_VTR_EL2.PRIbits`.
        hardware: u8,
    },
    /// The numbers of preemption bits differ.
    #[error("the machine has {machine} preemption bits, but this CPU's interface has {hardware}")]
    PreemptionBits {
        /// The number of priority bits, at most 7.
        machine: u8,
        /// `ICH_VTR_EL2.PREbits`.
        hardware: u8,
    },
    /// The machine presents a Non-secure view, which the virtual interface does not support.
    #[error("list registers support one security state, but the machine has two")]
    SecurityView,
    /// The machine has more INTID bits than the virtual interface.
    #[error("the machine has {0} INTID bits, but this CPU's interface has 16")]
    IdBits(u8),
    /// The CPU reports more list registers than the architecture allows.
    #[error("{0} list registers: a CPU has 1 to {MAX_LIST_REGISTERS}")]
    Count(usize),
}

/// Error for a vCPU that cannot run on a CPU's virtual interface. It returns the vCPU, which can
/// still run with the software interface or on another CPU.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("{mismatch}")]
pub struct RefusedVcpu {
    /// The unchanged vCPU.
    pub vcpu: Vcpu,
    /// Reason why the CPU's virtual interface is not suitable.
    pub mismatch: VirtualInterfaceMismatch,
}

/// vCPU whose guest runs with list registers. The vCPU's thread owns this value while the guest is
/// not running.
///
/// **Registers that read active or pending state** are `ISACTIVER`, `ISPENDR` and the corresponding
/// clear registers. For interrupts in list registers, these registers return the state at the
/// vCPU's last guest entry, which is not sufficient for Linux's `synchronize_irq`. Before
/// forwarding a guest's read of these registers, the VMM should make the other vCPUs exit, and keep
/// them out of the guest until it has the value.
///
/// [`one-vcpu`] is a hypervisor that runs its guest in this way:
///
/// ```
/// use vgic::{ListRegisterVcpu, VirtualInterface};
///
/// /// `run` loads the interface into `ICH_*_EL2`, runs the guest until it exits, and stores them.
/// fn run_once(vcpu: &mut ListRegisterVcpu, run: impl Fn(&mut VirtualInterface)) {
///     let inside = vcpu.enter();
///     let mut interface = *inside.interface();
///     run(&mut interface);
///     inside.exit(&interface);
/// }
/// ```
///
/// [`one-vcpu`]: https://github.com/doorbell-rs/doorbell/blob/main/el2/one-vcpu/src/main.rs
pub struct ListRegisterVcpu(Vcpu);

/// [`ListRegisterVcpu`] whose guest is running. The hypervisor loads the
/// [interface](Self::interface) into the hardware, runs the guest, and [exits](Self::exit).
///
/// This value borrows the vCPU, which can therefore not be used outside the guest before the exit.
/// If it is dropped without an exit, the vCPU stays in guest mode, and
/// [`ListRegisterVcpu::in_guest`] returns it again.
#[must_use = "interrupts in list registers return to the model only at the exit"]
pub struct InGuest<'a>(&'a mut ListRegisterVcpu);

impl ListRegisterVcpu {
    #[expect(clippy::result_large_err, reason = "the error contains the vCPU, as `Ok` does")]
    pub(super) fn new(mut vcpu: Vcpu, vtr: Vtr) -> Result<Self, RefusedVcpu> {
        match list_registers_on(vcpu.gic.config(), vtr) {
            Ok(list_registers) => vcpu.list_registers = list_registers,
            Err(mismatch) => return Err(RefusedVcpu { vcpu, mismatch }),
        }
        vcpu.list_registers.note_active(vcpu.gic.wired(), vcpu.cpu);
        Ok(Self(vcpu))
    }

    /// Prepares to run guest code. The caller must then load [`InGuest::interface`] into the
    /// hardware. From now on, the first new interrupt or register change kicks the vCPU (once), and
    /// the vCPU must exit.
    ///
    /// A vCPU whose list registers were empty may also be kicked once after it has exited: see
    /// [`returned`](Self::returned).
    #[inline]
    pub fn enter(&mut self) -> InGuest<'_> {
        if !self.is_left_alone() {
            self.leave();
        }
        self.0.list_registers.is_entered = true;
        InGuest(self)
    }

    /// Returns the guest mode that an earlier [`enter`](Self::enter) began, or `None` if the vCPU
    /// has exited since. Intended for hypervisors whose exit handlers do not return to the function
    /// that entered the guest.
    ///
    /// Any other method ends guest mode without an exit. Interrupts in list registers then revert
    /// to their state at the entry: none is lost, but an interrupt that the guest has acknowledged
    /// since becomes pending again. Dropping the vCPU has the same effect, and resets its CPU
    /// interface, so that it no longer receives interrupts. Other vCPUs don't wait for it.
    pub fn in_guest(&mut self) -> Option<InGuest<'_>> {
        self.0.list_registers.is_entered.then_some(InGuest(self))
    }

    /// Reads a system register on behalf of the guest, after a trapped access.
    ///
    /// # Errors
    /// Same as for [`Vcpu::read_sysreg`].
    pub fn read_sysreg(&mut self, register: SysRegEncoding) -> Result<u64, Undefined> {
        let value = self.own().read_sysreg(register)?;
        if register == icc::IAR0.encoding() || register == icc::IAR1.encoding() {
            self.note_acknowledged(IntIdValue::from(value).intid());
        }
        Ok(value)
    }

    /// Writes a system register on behalf of the guest, after a trapped access. Writes to
    /// `ICC_SGI<n>R_EL1` always trap.
    ///
    /// # Errors
    /// Same as for [`Vcpu::write_sysreg`].
    pub fn write_sysreg(&mut self, register: SysRegEncoding, value: u64) -> Result<(), Undefined> {
        self.own().write_sysreg(register, value)
    }

    /// Returns the state of the PE's interrupt inputs, as [`Vcpu::inputs`] does.
    pub fn inputs(&mut self) -> Inputs {
        self.outside().inputs()
    }

    /// Prepares to sleep while the guest waits (WFI), as [`Vcpu::prepare_to_sleep`] does.
    pub fn prepare_to_sleep(&mut self) -> Sleep {
        let vcpu = self.outside();
        // An idle vCPU's last entry checked every source; without an entry, only signaled
        // interrupts matter.
        vcpu.own.wakeup.end_idle();
        let sleep = vcpu.prepare_to_sleep();
        if sleep == Sleep::Ready
            && let Some(lpis) = &mut vcpu.lpis
        {
            lpis.prune();
        }
        sleep
    }

    /// Prepares to power down, as [`Vcpu::prepare_to_power_down`] does.
    pub fn prepare_to_power_down(&mut self) -> Sleep {
        self.own().prepare_to_power_down()
    }

    /// Reports that the vCPU has returned from sleep, or will stay out of the guest for a while.
    /// The vCPU won't be kicked again until it sleeps or enters the guest. The hypervisor should
    /// call this method before an operation that takes long or that may interrupt this vCPU, e.g.
    /// before it emulates a device or handles a physical interrupt. The call is optional: without
    /// it, the vCPU may just receive a superfluous kick.
    pub fn returned(&mut self) {
        self.outside().returned();
    }

    /// Resets the CPU interface, as [`Vcpu::reset`] does.
    pub fn reset(&mut self) {
        self.own().reset();
    }

    /// Pauses the vCPU, as [`Vcpu::pause`] does.
    pub fn pause(&mut self) -> Paused<'_> {
        self.own().pause()
    }

    /// Returns this vCPU's number.
    pub fn cpu(&self) -> Cpu {
        self.0.cpu()
    }

    /// Returns the shared half of the virtual GIC.
    pub fn vgic(&self) -> &Arc<Vgic> {
        self.0.vgic()
    }
}

impl InGuest<'_> {
    /// Folds the state that the guest left in the hardware back into the model, after an exit with
    /// or without a kick. Call this before handling the exit reason, because other vCPUs may be
    /// waiting for it. [`returned`](Self::returned) states the exception.
    #[inline]
    pub fn exit(self, left: &VirtualInterface) {
        let Self(vcpu) = self;
        vcpu.0.list_registers.is_entered = false;
        if !vcpu.stays_left(left) {
            vcpu.come_back(left);
        }
    }

    /// Returns the state that the caller must load into the hardware before the guest runs.
    #[inline]
    pub fn interface(&self) -> &VirtualInterface {
        &self.0.0.list_registers.interface
    }

    /// Returns this vCPU's number.
    pub fn cpu(&self) -> Cpu {
        self.0.cpu()
    }
}

impl Drop for ListRegisterVcpu {
    fn drop(&mut self) {
        if self.0.list_registers.is_entered {
            self.reset();
        }
    }
}

impl ListRegisterVcpu {
    /// Records an interrupt acknowledged outside the guest as active. The interrupt needs a list
    /// register at the next guest entry.
    fn note_acknowledged(&mut self, intid: IntId) {
        if let Some(index) = WiredIndex::of(intid) {
            self.0.list_registers.active.insert(index);
        }
    }

    /// Returns the vCPU, and ends its idle state, because its CPU interface may change outside the
    /// guest, and it may send itself an interrupt.
    fn own(&mut self) -> &mut Vcpu {
        let vcpu = self.outside();
        vcpu.own.wakeup.end_idle();
        vcpu.list_registers.made_for = None;
        vcpu
    }

    /// Returns the vCPU, which leaves guest mode if it has not exited.
    fn outside(&mut self) -> &mut Vcpu {
        if self.0.list_registers.is_entered {
            self.abandon_entry();
        }
        &mut self.0
    }

    /// Leaves guest mode without an exit, as if the guest had not changed its list registers.
    #[cold]
    #[inline(never)]
    fn abandon_entry(&mut self) {
        self.0.list_registers.is_entered = false;
        self.come_back_by(Self::fold_as_filled);
    }

    /// Handles an exit after which the hardware state has changed.
    #[inline(never)]
    fn come_back(&mut self, left: &VirtualInterface) {
        if self.has_nothing_to_fold(left) {
            self.folded();
            self.load(left);
        } else {
            self.come_back_by(|vcpu| vcpu.fold(left));
        }
    }

    /// Leaves the guest, and calls `fold` to empty the list registers. The vCPU counts as returned
    /// before `fold` runs, because folded interrupts don't need a kick.
    fn come_back_by(&mut self, fold: impl FnOnce(&mut Self)) {
        self.0.returned();
        fold(self);
        self.folded();
    }

    /// Completes an exit. The list registers must be empty.
    fn folded(&self) {
        let Self(vcpu) = self;
        vcpu.wakeup.folded(&vcpu.own.wakeup);
    }

    /// Returns `true` if the vCPU was idle, and the guest didn't change the loaded state.
    #[inline]
    fn stays_left(&self, left: &VirtualInterface) -> bool {
        self.0.own.wakeup.is_idle() && left.hcr.eoi_count() == 0 && self.is_as_loaded(left)
    }

    /// Returns `true` if the guest didn't change its CPU interface.
    #[inline]
    fn is_as_loaded(&self, left: &VirtualInterface) -> bool {
        let loaded = &self.0.list_registers.interface;
        left.vmcr == loaded.vmcr
            && (left.active_priorities == loaded.active_priorities
                || self.has_priorities_as_loaded(left))
    }

    /// Compares the active priorities. Registers that the CPU doesn't implement are ignored.
    #[inline(never)]
    fn has_priorities_as_loaded(&self, left: &VirtualInterface) -> bool {
        let Vcpu { interface, list_registers: lists, .. } = &self.0;
        let implemented = interface.features().active_priority_registers();
        let pairs = left.active_priorities.iter().zip(&lists.interface.active_priorities);
        pairs.into_iter().all(|(left, loaded)| {
            left.iter().zip(loaded).take(implemented).all(|(left, loaded)| left == loaded)
        })
    }

    /// Returns `true` if no interrupt was in a list register, and the guest didn't end an interrupt
    /// that wasn't.
    fn has_nothing_to_fold(&self, left: &VirtualInterface) -> bool {
        self.0.list_registers.used == 0 && left.hcr.eoi_count() == 0
    }

    /// Folds the hardware state back into the model. With `EOImode` set, an EOI doesn't deactivate
    /// the interrupt. The mode at the guest entry determines this, because the guest may have
    /// changed `EOImode` since.
    fn fold(&mut self, left: &VirtualInterface) {
        let ended = if self.0.interface.splits_eoi() { 0 } else { left.hcr.eoi_count() };
        self.load(left);
        (0..ended).for_each(|_| self.end_unlisted());
        self.fold_each(|at, _| left.list[at]);
    }

    /// Loads the guest's changes to its CPU interface, and publishes the enabled groups.
    fn load(&mut self, left: &VirtualInterface) {
        if self.is_as_loaded(left) {
            return;
        }
        let Self(vcpu) = self;
        let Vcpu { interface, list_registers: lists, .. } = vcpu;
        lists.made_for = None;
        interface.load(left.vmcr, left.active_priorities);
        vcpu.publish_interface();
        for group in [Group::Zero, Group::One] {
            vcpu.publish(group);
        }
    }

    /// Folds all list registers as if the guest had left them unchanged.
    fn fold_as_filled(&mut self) {
        self.fold_each(|_, listed| {
            let filled = match listed {
                Listed::Wired(_, filled) => filled.state,
                Listed::Nothing | Listed::Lpi(_) => ListRegisterState::Pending,
            };
            ListRegister::new().with_state(filled)
        });
    }

    /// Empties the list registers, and folds their contents into the model. `left` returns the
    /// value that the guest left in each list register.
    fn fold_each(&mut self, left: impl Fn(usize, Listed) -> ListRegister) {
        for at in 0..self.0.list_registers.empty() {
            let listed = self.0.list_registers.listed[at];
            self.fold_one(listed, left(at, listed));
        }
        self.0.publish_activity();
    }

    fn fold_one(&mut self, listed: Listed, left: ListRegister) {
        let Self(vcpu) = self;
        match listed {
            Listed::Nothing => {}
            Listed::Lpi(lpi) => {
                if let Some(lpis) = &mut vcpu.lpis {
                    lpis.fold(lpi, left.state() == ListRegisterState::Pending);
                }
            }
            Listed::Wired(index, filled) => {
                let folded = vcpu.gic.wired().fold(vcpu.cpu, index, filled, left);
                if folded.is_some_and(|state| state.active()) {
                    vcpu.list_registers.active.insert(index);
                }
            }
        }
    }

    /// Deactivates an interrupt that the guest ended while it wasn't in a list register. The
    /// hardware doesn't report which interrupt ended. Because handlers nest, it must be the one
    /// that the guest acknowledged last.
    fn end_unlisted(&mut self) {
        let Self(vcpu) = self;
        let (cpu, wired) = (vcpu.cpu, vcpu.gic.wired());
        let mut found: Option<((bool, u8), IntId)> = None;
        vcpu.list_registers.active.retain(|index: WiredIndex| {
            let state = wired.state(cpu, index);
            if state.active_at(cpu) {
                let rank = (state.end_rank(), index.intid());
                found = Some(found.map_or(rank, |best| best.min(rank)));
            }
            state.active()
        });
        if let Some((_, intid)) = found {
            wired.deactivate(cpu, intid);
        }
    }
}

msi_types::debug_by!(ListRegisterVcpu as "ListRegisterVcpu", |it| {vcpu: it.0});

impl fmt::Debug for InGuest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = &self.0.0.list_registers;
        f.debug_struct("InGuest")
            .field("listed", &&lists.listed[..lists.used])
            .finish_non_exhaustive()
    }
}

/// Returns the empty list registers of a CPU with this virtual interface.
fn list_registers_on(
    config: &VgicConfig,
    vtr: Vtr,
) -> Result<ListRegisters, VirtualInterfaceMismatch> {
    let (priorities, preemption) = (config.priority_bits, config.priority_bits.min(7));
    let hardware = (vtr.pri_bits_minus_one() + 1, vtr.pre_bits_minus_one() + 1);
    if config.security == SecurityView::NonSecure {
        return Err(VirtualInterfaceMismatch::SecurityView);
    }
    if hardware.0 != priorities {
        return Err(VirtualInterfaceMismatch::PriorityBits {
            machine: priorities,
            hardware: hardware.0,
        });
    }
    if hardware.1 != preemption {
        return Err(VirtualInterfaceMismatch::PreemptionBits {
            machine: preemption,
            hardware: hardware.1,
        });
    }
    if config.id_bits() > 16 && vtr.id_bits_code() == 0 {
        return Err(VirtualInterfaceMismatch::IdBits(config.id_bits()));
    }
    let count = usize::from(vtr.list_regs_minus_one()) + 1;
    if count > MAX_LIST_REGISTERS {
        return Err(VirtualInterfaceMismatch::Count(count));
    }
    Ok(ListRegisters { count, traps_dir: vtr.tds(), ..ListRegisters::none() })
}
