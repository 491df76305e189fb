//! Handles trapped guest accesses and instructions.

use crate::context::Context;
use crate::controller;
use crate::guest::Guest;
use crate::id_registers;
use crate::inject;
use crate::layout::UART;
use crate::power::End;
use crate::psci::{self, Answer};
use crate::syndrome::{DeviceAccess, RegisterAccess, Trap};
use crate::virtio;
use image_rt::read_register;
use vgic::{AccessWidth, ListRegisterVcpu, Progress};

/// Next step of a vCPU after an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// The guest continues.
    Resume,
    /// The vCPU waits for an interrupt first.
    Wait,
    /// The vCPU is turned off.
    Off,
    /// The machine ends.
    End(End),
}

/// Handles a synchronous exception of the guest. Guest actions never cause errors here: actions
/// that no machine would support cause an exception in the guest.
pub(crate) fn handle(guest: &Guest, context: &mut Context, vcpu: &mut ListRegisterVcpu) -> Next {
    let (esr, far) = (read_register!("esr_el2"), read_register!("far_el2"));
    match Trap::decode(esr, far, read_register!("hpfar_el2")) {
        Trap::WaitForInterrupt => {
            context.skip_instruction();
            return Next::Wait;
        }
        Trap::HypervisorCall => return call(guest, context),
        Trap::SecureMonitorCall => {
            context.skip_instruction();
            return call(guest, context);
        }
        Trap::SystemRegister(access) => system_register(context, vcpu, access),
        Trap::Device(access) => device(guest, context, access),
        Trap::UndescribedAccess { address } => inject::data_abort(context, address),
        Trap::Fetch { address } => inject::fetch_abort(context, address),
        Trap::Undefined => inject::undefined(context),
    }
    Next::Resume
}

fn call(guest: &Guest, context: &mut Context) -> Next {
    let [number, first, second, third, ..] = context.registers;
    match psci::call(guest, [number, first, second, third]) {
        Answer::Value(value) => {
            context.registers[0] = value;
            Next::Resume
        }
        Answer::Suspend => {
            context.registers[0] = 0;
            Next::Wait
        }
        Answer::Off => Next::Off,
        Answer::End(end) => Next::End(end),
    }
}

/// Handles trapped accesses to CPU interface and ID registers. Debug and performance monitor
/// registers read as zero and ignore writes. Other registers are undefined.
fn system_register(context: &mut Context, vcpu: &mut ListRegisterVcpu, access: RegisterAccess) {
    if access.is_debugging() {
        if access.is_read {
            context.set_register(access.register, 0);
        }
        return context.skip_instruction();
    }
    if let Some(value) = id_registers::read(access.encoding).filter(|_| access.is_read) {
        context.set_register(access.register, value);
        return context.skip_instruction();
    }
    let done = if access.is_read {
        vcpu.read_sysreg(access.encoding).map(|value| context.set_register(access.register, value))
    } else {
        vcpu.write_sysreg(access.encoding, context.register(access.register))
    };
    match done {
        Ok(()) => context.skip_instruction(),
        Err(_) => inject::undefined(context),
    }
}

/// Handles a load or store outside of the memory that stage 2 maps: to registers of the GIC or of
/// PCI, or to an unmapped address.
pub(crate) fn device(guest: &Guest, context: &mut Context, access: DeviceAccess) {
    let DeviceAccess { address, width, register, .. } = access;
    let done = if access.is_write {
        write(guest, address, width, context.register(register))
    } else {
        read(guest, address, width).map(|value| {
            context.set_register(register, access.extension.apply(value, width));
            Progress::Done
        })
    };
    match done {
        Some(Progress::Done) => context.skip_instruction(),
        // The guest must repeat the store.
        Some(Progress::Unfinished) => {}
        None => inject::data_abort(context, access.virtual_address),
    }
}

fn write(guest: &Guest, address: u64, width: AccessWidth, value: u64) -> Option<Progress> {
    if controller::message_of_vcpu(guest.vgic(), address, width, value).is_some() {
        return Some(Progress::Done);
    }
    if let Ok(progress) = guest.vgic().write(address, width, value) {
        return Some(progress);
    }
    match &guest.uart {
        Some(uart) if UART.contains(&address) => {
            uart.write(guest.vgic(), address - UART.start, value);
            Some(Progress::Done)
        }
        _ => {
            let pci = || guest.pci.as_ref()?.write(address, width, value);
            virtio::write(address).or_else(pci).map(|()| Progress::Done)
        }
    }
}

fn read(guest: &Guest, address: u64, width: AccessWidth) -> Option<u64> {
    let read = || guest.vgic().read(address, width);
    let value = if guest.vgic().shows_listed_state(address) {
        guest.gate.while_empty(|cpu| guest.kick(cpu), read)
    } else {
        read()
    };
    match (value, &guest.uart) {
        (Ok(value), _) => Some(value),
        (Err(_), Some(uart)) if UART.contains(&address) => {
            Some(uart.read(guest.vgic(), address - UART.start))
        }
        _ => virtio::read(address).or_else(|| guest.pci.as_ref()?.read(address, width)),
    }
}
