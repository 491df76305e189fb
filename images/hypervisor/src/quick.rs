//! Exits after which the guest goes on at once. The vCPU does not leave the guest, as the model
//! sees it: its list registers stay loaded, and its gate stays passed.
//!
//! Interrupts are masked at EL2 meanwhile. A kick that is sent makes the guest exit again as soon
//! as it goes on.

use crate::context::Context;
use crate::controller;
use crate::guest::Guest;
use crate::psci::{self, Answer};
use crate::syndrome::{DeviceAccess, Trap};
use image_rt::read_register;

/// Handles a synchronous exception that is a query of PSCI, or a read of a register that shows
/// nothing of any list register. `false`: it is another one.
pub(crate) fn handle(guest: &Guest, context: &mut Context) -> bool {
    let (esr, far) = (read_register!("esr_el2"), read_register!("far_el2"));
    match Trap::decode(esr, far, read_register!("hpfar_el2")) {
        Trap::HypervisorCall => answer(guest, context).is_some(),
        Trap::Device(access) if !access.is_write => read(guest, context, access).is_some(),
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
    if !controller::shows_no_state(&guest.vgic, address) {
        return None;
    }
    let value = guest.vgic.read(address, width).ok()?;
    context.set_register(register, access.extension.apply(value, width));
    context.skip_instruction();
    Some(())
}
