//! A vCPU with a CPU interface in software, or with list registers and hardware's virtual CPU
//! interface.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use super::Interface;
use super::virtual_interface::{Hardware, vtr};
use gic_arch::icc::{self, Ctlr, SysRegEncoding};
use gic_arch::ich::Vtr;
use msi_types::{DeviceId, MsiMessage};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use vgic::{Inputs, ListRegisterVcpu, Paused, Sleep, Undefined, Vcpu};

/// A vCPU of either kind.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "few values exist")]
pub enum Half {
    /// A CPU interface in software.
    Software(Vcpu),
    /// List registers.
    Lists(Lists),
}

/// A vCPU with list registers. It exits only on kicks, maintenance interrupts and trapped accesses,
/// unless it [`exits`](Half::exiting) after each access.
#[derive(Debug)]
pub struct Lists {
    vcpu: ListRegisterVcpu,
    /// The virtual CPU interface while the vCPU is in its guest.
    inside: Option<Hardware>,
    vtr: Vtr,
    exits: bool,
    /// `true` if the vCPU was kicked since its last exit.
    kicked: Arc<AtomicBool>,
    /// Physical interrupts that the hardware deactivated when the guest deactivated the linked
    /// virtual interrupts.
    deactivated: Vec<u32>,
}

impl Half {
    /// Creates a vCPU on a CPU with this number of list registers.
    pub fn lists(vcpu: Vcpu, registers: u8, kicked: Arc<AtomicBool>) -> Self {
        let vtr = vtr(registers, vcpu.vgic().config().priority_bits);
        Self::with_interface(vcpu, vtr, kicked)
    }

    /// Creates a vCPU on a CPU with this virtual interface.
    pub fn with_interface(vcpu: Vcpu, vtr: Vtr, kicked: Arc<AtomicBool>) -> Self {
        let vcpu = vcpu.with_list_registers(vtr).unwrap();
        let (inside, deactivated) = (None, Vec::new());
        Self::Lists(Lists { vcpu, inside, vtr, exits: false, kicked, deactivated })
    }

    /// Requests an exit after each access by the guest.
    pub fn exiting(mut self) -> Self {
        if let Self::Lists(lists) = &mut self {
            lists.exits = true;
        }
        self
    }

    /// Returns the interrupt inputs of the vCPU.
    pub fn inputs(&mut self) -> Inputs {
        match self {
            Self::Software(vcpu) => vcpu.inputs(),
            Self::Lists(lists) => {
                let group = lists.in_guest(|hardware| hardware.signaled());
                Inputs { irq: group == Some(1), fiq: group == Some(0) }
            }
        }
    }

    /// Returns the physical interrupts that the hardware has deactivated since the last call.
    pub fn take_deactivated(&mut self) -> Vec<u32> {
        match self {
            Self::Software(_) => Vec::new(),
            Self::Lists(lists) => std::mem::take(&mut lists.deactivated),
        }
    }

    /// Enters the guest, then exits and reenters for as long as an exit is requested.
    pub fn attend(&mut self) {
        if let Self::Lists(lists) = self {
            lists.attend();
        }
    }

    /// Moves the LPI of a device's message into a list register. Returns `false` without any effect
    /// if this isn't possible without an exit.
    pub fn list_message(&mut self, from: DeviceId, message: MsiMessage) -> bool {
        match self {
            Self::Software(_) => false,
            Self::Lists(lists) => lists.list_message(from, message),
        }
    }

    /// Exits from the guest and moves the contents of all list registers back to the model.
    pub fn leave_guest(&mut self) {
        if let Self::Lists(lists) = self {
            lists.exit();
        }
    }

    /// Resets the vCPU.
    pub fn reset(&mut self) {
        match self {
            Self::Software(vcpu) => vcpu.reset(),
            Self::Lists(lists) => lists.exit().reset(),
        }
    }

    /// Exits from the guest and prepares to sleep.
    pub fn prepare_to_sleep(&mut self) -> Sleep {
        match self {
            Self::Software(vcpu) => vcpu.prepare_to_sleep(),
            Self::Lists(lists) => lists.exit().prepare_to_sleep(),
        }
    }

    /// Returns from sleep.
    pub fn returned(&mut self) {
        match self {
            Self::Software(vcpu) => vcpu.returned(),
            Self::Lists(lists) => lists.exit().returned(),
        }
    }
}

impl Interface for Half {
    fn read_sysreg(&mut self, register: SysRegEncoding) -> Result<u64, Undefined> {
        match self {
            Self::Software(vcpu) => vcpu.read_sysreg(register),
            Self::Lists(lists) => lists.read(register),
        }
    }

    fn write_sysreg(&mut self, register: SysRegEncoding, value: u64) -> Result<(), Undefined> {
        match self {
            Self::Software(vcpu) => vcpu.write_sysreg(register, value),
            Self::Lists(lists) => {
                lists.write(register, value);
                Ok(())
            }
        }
    }

    fn pause(&mut self) -> Paused<'_> {
        match self {
            Self::Software(vcpu) => vcpu.pause(),
            Self::Lists(lists) => lists.exit().pause(),
        }
    }
}

impl Lists {
    fn exit(&mut self) -> &mut ListRegisterVcpu {
        if let Some(mut hardware) = self.inside.take() {
            self.deactivated.append(&mut hardware.deactivated);
            self.vcpu.in_guest().unwrap().exit(&hardware.registers);
        }
        self.kicked.store(false, SeqCst);
        &mut self.vcpu
    }

    fn enter(&mut self) {
        let inside = self.vcpu.enter();
        self.inside = Some(Hardware::new(*inside.interface(), self.vtr));
    }

    fn hardware(&mut self) -> &mut Hardware {
        self.inside.as_mut().unwrap()
    }

    /// Enters the guest, unless the vCPU is already in guest mode and no exit is requested.
    fn attend(&mut self) {
        let mut unasked = 0;
        loop {
            let kicked = self.kicked.load(SeqCst);
            let asks = |hardware: &Hardware| hardware.asks_for_maintenance() || kicked;
            let asked = self.inside.as_ref().is_none_or(asks);
            if !asked {
                break;
            }
            // A kick during the call requests an exit, e.g. because the model has more work to do.
            if kicked && self.lists_arrivals() && !self.kicked.load(SeqCst) {
                continue;
            }
            self.exit();
            self.enter();
            unasked += u32::from(!kicked);
            assert!(unasked < 4, "a maintenance interrupt stays asserted: {:?}", self.hardware());
        }
    }

    /// Lists what has arrived without an exit. Returns `false` if the vCPU must exit.
    fn lists_arrivals(&mut self) -> bool {
        let Some(hardware) = self.inside.as_mut().filter(|it| !it.asks_for_maintenance()) else {
            return false;
        };
        self.kicked.store(false, SeqCst);
        let mut inside = self.vcpu.in_guest().unwrap();
        inside.returned();
        let is_listed = inside.list_arrivals(hardware.registers.vmcr, hardware.empty());
        if is_listed {
            hardware.registers.list = inside.interface().list;
        }
        is_listed
    }

    fn list_message(&mut self, from: DeviceId, message: MsiMessage) -> bool {
        let Some(hardware) = self.inside.as_mut().filter(|it| !it.asks_for_maintenance()) else {
            return false;
        };
        let mut inside = self.vcpu.in_guest().unwrap();
        let (vmcr, empty) = (hardware.registers.vmcr, hardware.empty());
        let Some(index) = inside.list_message(from, message, vmcr, empty) else { return false };
        hardware.registers.list[index] = inside.interface().list[index];
        assert!(index <= usize::from(self.vtr.list_regs_minus_one()));
        true
    }

    fn in_guest<T>(&mut self, act: impl FnOnce(&mut Hardware) -> T) -> T {
        self.attend();
        let answer = act(self.hardware());
        let mut deactivated = std::mem::take(&mut self.hardware().deactivated);
        self.deactivated.append(&mut deactivated);
        if self.exits {
            self.exit();
        }
        self.attend();
        answer
    }

    /// Reads a register. Those that aren't in the table are read outside the guest.
    fn read(&mut self, register: SysRegEncoding) -> Result<u64, Undefined> {
        let read: fn(&mut Hardware) -> u64 = match register {
            _ if register == icc::IAR0.encoding() => |hardware| hardware.acknowledge(0).into(),
            _ if register == icc::IAR1.encoding() => |hardware| hardware.acknowledge(1).into(),
            _ if register == icc::HPPIR0.encoding() => |hardware| hardware.highest(0).into(),
            _ if register == icc::HPPIR1.encoding() => |hardware| hardware.highest(1).into(),
            _ if register == icc::RPR.encoding() => |hardware| hardware.running().into(),
            _ => return self.exit().read_sysreg(register),
        };
        Ok(self.in_guest(read))
    }

    fn write(&mut self, register: SysRegEncoding, value: u64) {
        self.attend();
        let [low, ..] = value.to_le_bytes();
        let intid = u32::try_from(value & 0xff_ffff).unwrap();
        let is_dir = register == icc::DIR.encoding();
        let sgis = [icc::SGI0R.encoding(), icc::SGI1R.encoding(), icc::ASGI1R.encoding()];
        if sgis.contains(&register) || (is_dir && self.hardware().registers.hcr.tdir()) {
            self.exit().write_sysreg(register, value).unwrap();
            self.attend();
            return;
        }
        self.in_guest(|hardware| match register {
            _ if register == icc::EOIR0.encoding() => hardware.end(0, intid),
            _ if register == icc::EOIR1.encoding() => hardware.end(1, intid),
            _ if is_dir => hardware.deactivate(intid),
            _ if register == icc::PMR.encoding() => hardware.set_mask(low),
            _ if register == icc::BPR0.encoding() => hardware.set_binary_point(0, low),
            _ if register == icc::BPR1.encoding() => hardware.set_binary_point(1, low),
            _ if register == icc::IGRPEN0.encoding() => {
                hardware.registers.vmcr.set_veng0(low & 1 == 1);
            }
            _ if register == icc::IGRPEN1.encoding() => {
                hardware.registers.vmcr.set_veng1(low & 1 == 1);
            }
            _ if register == icc::CTLR.encoding() => {
                hardware.registers.vmcr.set_vcbpr(Ctlr::from(value).cbpr());
                hardware.registers.vmcr.set_veoim(Ctlr::from(value).eoi_mode());
            }
            _ => panic!("the hardware has no such register: {register:?}"),
        });
    }
}
