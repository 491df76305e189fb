//! Exits after which the guest goes on at once. The vCPU does not leave the guest, as the model
//! sees it: its list registers stay loaded, and its gate stays passed.
//!
//! Interrupts are masked at EL2 meanwhile. A kick that another CPU sends makes the guest exit again
//! as soon as it goes on. After one that comes of the exit itself, the vCPU leaves at once.

use crate::context::Context;
use crate::controller;
use crate::guest::Guest;
use crate::psci::{self, Answer};
use crate::syndrome::{DeviceAccess, RegisterAccess, Trap};
use crate::traps;
use image_rt::read_register;
use vgic::InGuest;

/// Handles a synchronous exception that is a query of PSCI, an SGI, or an access to a register that
/// shows nothing of any list register. `false`: it is another one.
pub(crate) fn handle(guest: &Guest, context: &mut Context, vcpu: &InGuest) -> bool {
    let (esr, far) = (read_register!("esr_el2"), read_register!("far_el2"));
    match Trap::decode(esr, far, read_register!("hpfar_el2")) {
        Trap::HypervisorCall => answer(guest, context).is_some(),
        Trap::SystemRegister(access) => send(context, vcpu, access).is_some(),
        Trap::Device(access) if controller::shows_no_state(guest.vgic(), access.address) => {
            if access.is_write {
                traps::device(guest, context, access);
                return true;
            }
            read(guest, context, access).is_some()
        }
        _ => false,
    }
}

fn answer(guest: &Guest, context: &mut Context) -> Option<()> {
    let [number, first, second, third, ..] = context.registers;
    if !psci::is_query(number as u32) {
        return None;
    }
    let Answer::Value(value) = psci::call(guest, [number, first, second, third]) else {
        return None;
    };
    context.registers[0] = value;
    Some(())
}

fn read(guest: &Guest, context: &mut Context, access: DeviceAccess) -> Option<()> {
    let DeviceAccess { address, width, register, .. } = access;
    let value = guest.vgic().read(address, width).ok()?;
    context.set_register(register, access.extension.apply(value, width));
    context.skip_instruction();
    Some(())
}

/// An SGI, perhaps to the vCPU itself.
fn send(context: &mut Context, vcpu: &InGuest, access: RegisterAccess) -> Option<()> {
    let RegisterAccess { encoding, register, is_read } = access;
    if is_read || vcpu.write_sgi(encoding, context.register(register)).is_err() {
        return None;
    }
    context.skip_instruction();
    Some(())
}
