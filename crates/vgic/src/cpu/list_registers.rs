//! A vCPU half for hypervisors at EL2. The hardware's virtual CPU interface acknowledges and ends
//! interrupts by itself, from list registers (IHI 0069 §6, §12.4). These are filled before the
//! guest is entered and folded back after it has exited.
//!
//! Outside of the guest this half is a software CPU interface like [`Vcpu`]. What the guest left in
//! the hardware is loaded at the exit. So trapped accesses and the question whether the vCPU may
//! sleep have one answer.
//!
//! | | how |
//! |---|---|
//! | order | the most urgent pending interrupt first, then what is active, then further pending ones by urgency |
//! | more is pending than fits | `NPIE`: an exit when nothing that was listed is pending any more. (`UIE` would not come while what is listed is active.) Another group's enable then exits as well |
//! | more is active than fits | `LRENPIE`: `EOIcount` ends the unlisted interrupts that the guest acknowledged last, because guests nest. Interrupts that a register write made active are ended after these |
//! | `ICC_DIR_EL1` | traps (`TDIR`), as it may name what is active at another vCPU; guests without `EOImode` do not use it. Where the CPU cannot trap it alone, `TC` does for guests that were entered with `EOImode`, and while more is active than fits |
//! | 1-of-N interrupts | a guest that enables or disables a group by itself exits: from then on it takes part, or others get what it did not take |
//! | levels | a maintenance interrupt at the end; the observer is told, and the level is sampled again |
//! | linked interrupts | `HW` and the physical INTID while the physical interrupt is active: its end deactivates both, without an exit ([`Vgic::link`]). A level is sampled before it is listed, and again at the exit if the guest has not acknowledged it |
//! | LPIs | no active state, never tied to a physical interrupt (`HW`) |
//! | changes meanwhile | kick the vCPU. What a register or command promises (`RWP`, `SYNCR`, SYNC, `WAKER`) is complete once it has exited |

mod fill;
mod fold;
mod rank;
mod sgi;

use crate::config::SecurityView;
use crate::cpu::listed::{ListRegisters, MAX_LIST_REGISTERS, VirtualInterface};
use crate::cpu::system_registers::Undefined;
use crate::cpu::vcpu::{Inputs, Sleep, Vcpu};
use crate::vgic::Vgic;
use crate::wired::index::WiredIndex;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use gic_arch::IntId;
use gic_arch::icc::{self, IntIdValue, SysRegEncoding};
use gic_arch::ich::Vtr;
use msi_types::Cpu;

/// A machine's guest cannot run on a CPU's virtual interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VirtualInterfaceMismatch {
    /// Priority bits differ.
    #[error("the machine has {machine} priority bits, this CPU's virtual interface {hardware}")]
    PriorityBits {
        /// [`VgicConfig::priority_bits`](crate::VgicConfig::priority_bits).
        machine: u8,
        /// `ICH_VTR_EL2.PRIbits`.
        hardware: u8,
    },
    /// Preemption bits differ.
    #[error("the machine has {machine} preemption bits, this CPU's virtual interface {hardware}")]
    PreemptionBits {
        /// All priority bits, at most 7.
        machine: u8,
        /// `ICH_VTR_EL2.PREbits`.
        hardware: u8,
    },
    /// The virtual interface has no Non-secure view.
    #[error("list registers present one security state, the machine has two")]
    SecurityView,
    /// INTIDs do not fit.
    #[error("the machine has {0} INTID bits, this CPU's virtual interface 16")]
    IdBits(u8),
    /// More list registers than there can be.
    #[error("{0} list registers: a CPU has 1 to {MAX_LIST_REGISTERS}")]
    Count(usize),
}

/// A vCPU whose guest runs with list registers. Owned by the vCPU's thread, outside of the guest.
///
/// **Registers that read active or pending state** are `ISACTIVER`, `ISPENDR`, and their
/// counterparts that clear. For interrupts in list registers, they return the state at the vCPU's
/// last guest entry. Linux's `synchronize_irq` asks for more. Before a monitor forwards a guest's
/// read of them, it lets the other vCPUs exit, and keeps them out until it has the answer.
pub struct ListRegisterVcpu(Box<[Vcpu; 1]>);

/// A [`ListRegisterVcpu`] while its guest runs: a vCPU that entered loads its
/// [interface](Self::interface), and [exits](Self::exit).
///
/// If it is dropped instead, the vCPU runs no more, and its CPU interface takes no part. What was
/// in its list registers is as it was at the entry. Nothing is lost, but what the guest has
/// acknowledged since is pending again. Nobody waits for the vCPU.
#[must_use = "what is in list registers is only known again after the exit"]
pub struct InGuest {
    /// Until the exit.
    vcpu: Option<ListRegisterVcpu>,
}

impl Vcpu {
    /// Runs this vCPU's guest on CPUs whose virtual interface is as `vtr` (`ICH_VTR_EL2`) says.
    ///
    /// # Errors
    /// [`VirtualInterfaceMismatch`]: the guest would see another CPU interface than the machine
    /// has.
    pub fn with_list_registers(
        mut self,
        vtr: Vtr,
    ) -> Result<ListRegisterVcpu, VirtualInterfaceMismatch> {
        let config = self.gic.config();
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
        self.list_registers =
            ListRegisters { count, traps_dir: vtr.tds(), ..ListRegisters::none() };
        let active = &mut self.list_registers.active;
        self.gic.wired().active_indices(self.cpu).for_each(|index| active.insert(index));
        Ok(ListRegisterVcpu(self.boxed()))
    }
}

impl ListRegisterVcpu {
    /// The vCPU is about to run guest code: [`InGuest::interface`] is to be loaded into the
    /// hardware. Whatever arrives or changes from now on kicks the vCPU, once; it then exits.
    ///
    /// A vCPU that had nothing in list registers can be kicked once when it has exited, too: see
    /// [`returned`](Self::returned).
    #[inline]
    pub fn enter(self) -> InGuest {
        let vcpu = if self.is_left_alone() { self } else { self.leave() };
        InGuest { vcpu: Some(vcpu) }
    }

    /// Reads a system register on behalf of the guest, whose access trapped.
    ///
    /// # Errors
    /// As [`Vcpu::read_sysreg`].
    pub fn read_sysreg(&mut self, register: SysRegEncoding) -> Result<u64, Undefined> {
        let value = self.own().read_sysreg(register)?;
        if register == icc::IAR0.encoding() || register == icc::IAR1.encoding() {
            self.note_acknowledged(IntIdValue::from(value).intid());
        }
        Ok(value)
    }

    /// Writes a system register on behalf of the guest, whose access trapped: `ICC_SGI<n>R_EL1`
    /// always do.
    ///
    /// # Errors
    /// As [`Vcpu::write_sysreg`].
    pub fn write_sysreg(&mut self, register: SysRegEncoding, value: u64) -> Result<(), Undefined> {
        self.own().write_sysreg(register, value)
    }

    /// As [`Vcpu::inputs`].
    pub fn inputs(&mut self) -> Inputs {
        self.0[0].inputs()
    }

    /// As [`Vcpu::prepare_to_sleep`], for a guest that waits (WFI).
    pub fn prepare_to_sleep(&mut self) -> Sleep {
        let [vcpu] = &mut *self.0;
        // An idle vCPU's entry has looked at everything; here, only what is signalled counts.
        vcpu.own.wakeup.end_idle();
        let sleep = vcpu.prepare_to_sleep();
        if sleep == Sleep::Ready
            && let Some(lpis) = &mut vcpu.lpis
        {
            lpis.prune();
        }
        sleep
    }

    /// As [`Vcpu::prepare_to_power_down`].
    pub fn prepare_to_power_down(&mut self) -> Sleep {
        self.own().prepare_to_power_down()
    }

    /// The vCPU is back from sleep, or from the guest for longer: it is not kicked until it sleeps
    /// or enters again. To be called before the hypervisor does something that may interrupt this
    /// vCPU itself, as emulating a device or taking a physical interrupt, or that takes long.
    /// Without the call nothing is lost, but a kick may be sent that changes nothing.
    pub fn returned(&mut self) {
        self.0[0].returned();
    }

    /// As [`Vcpu::reset`].
    pub fn reset(&mut self) {
        self.own().reset();
    }

    /// Back to a vCPU whose CPU interface is software alone.
    pub fn into_software(mut self) -> Vcpu {
        self.own();
        Vcpu::unboxed(self.0)
    }

    /// Number of this vCPU.
    pub fn cpu(&self) -> Cpu {
        self.0[0].cpu()
    }

    /// The shared half.
    pub fn vgic(&self) -> &Arc<Vgic> {
        self.0[0].vgic()
    }
}

impl InGuest {
    /// The guest has exited, kicked or not, and left this in the hardware. To be called before the
    /// reason of the exit is looked at: other vCPUs may wait for it.
    #[must_use]
    #[inline]
    #[expect(clippy::missing_panics_doc, clippy::expect_used, reason = "it does not panic")]
    pub fn exit(mut self, left: &VirtualInterface) -> ListRegisterVcpu {
        let vcpu = self.vcpu.take().expect("only `exit` takes it, and consumes `self`");
        if vcpu.stays_left(left) { vcpu } else { vcpu.come_back(left) }
    }

    /// The state to load into the hardware before the guest runs.
    #[expect(clippy::missing_panics_doc, clippy::expect_used, reason = "it does not panic")]
    #[inline]
    pub fn interface(&self) -> &VirtualInterface {
        let vcpu = self.vcpu.as_ref().expect("only `exit` takes it, and consumes `self`");
        &vcpu.0[0].list_registers.interface
    }

    /// Number of this vCPU.
    #[expect(clippy::missing_panics_doc, clippy::expect_used, reason = "it does not panic")]
    pub fn cpu(&self) -> Cpu {
        self.vcpu.as_ref().expect("only `exit` takes it, and consumes `self`").cpu()
    }
}

impl Drop for InGuest {
    #[inline]
    fn drop(&mut self) {
        if let Some(vcpu) = &mut self.vcpu {
            vcpu.exit(ListRegisterVcpu::fold_as_filled);
            vcpu.reset();
        }
    }
}

impl ListRegisterVcpu {
    /// Marks an interrupt active that was acknowledged outside of the guest: it gets a list
    /// register.
    fn note_acknowledged(&mut self, intid: IntId) {
        if let Some(index) = WiredIndex::of(intid) {
            self.0[0].list_registers.active.insert(index);
        }
    }

    /// The vCPU, which does not stay left: its CPU interface may change outside of the guest, and
    /// it may interrupt itself.
    fn own(&mut self) -> &mut Vcpu {
        let [vcpu] = &mut *self.0;
        vcpu.own.wakeup.end_idle();
        vcpu.list_registers.made_for = None;
        vcpu
    }

    /// Out of the guest, which left something in the hardware.
    #[inline(never)]
    fn come_back(mut self, left: &VirtualInterface) -> Self {
        if self.has_nothing_to_fold(left) {
            self.folded();
            self.load(left);
        } else {
            self.exit(|vcpu| vcpu.fold(left));
        }
        self
    }

    /// Out of the guest, with what `fold` makes of the list registers. The vCPU looks by itself
    /// before that: what is folded needs no kick.
    fn exit(&mut self, fold: impl FnOnce(&mut Self)) {
        self.returned();
        fold(self);
        self.folded();
    }

    /// Out of the guest, with nothing in list registers any more.
    fn folded(&self) {
        let [vcpu] = &*self.0;
        if vcpu.wakeup.folded(&vcpu.own.wakeup) {
            vcpu.gic.poll_all_its();
        }
    }
}

impl fmt::Debug for ListRegisterVcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListRegisterVcpu").field("vcpu", &self.0[0]).finish_non_exhaustive()
    }
}

impl fmt::Debug for InGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = self.vcpu.as_ref().map(|vcpu| &vcpu.0[0].list_registers);
        let listed = lists.map(|lists| &lists.listed[..lists.used]);
        f.debug_struct("InGuest").field("listed", &listed).finish_non_exhaustive()
    }
}
