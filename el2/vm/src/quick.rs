//! Fast path for exits after which the guest continues immediately. To the `vgic` model, the vCPU
//! stays in guest mode: its list registers stay loaded, and the entry gate (`standstill`) isn't
//! checked again.
//!
//! Interrupts are masked at EL2 during such an exit. A kick from another CPU makes the guest exit
//! again as soon as it continues. If the exit itself kicks the vCPU, the vCPU leaves guest mode
//! immediately.

use crate::gic;
use crate::guest::Guest;
use crate::power::Next;
use crate::psci;
use el2_cpu::Context;
use el2_cpu::syndrome::{DeviceAccess, RegisterAccess, Trap};
use vgic::{InGuest, Progress, Vgic};

/// Handles a synchronous exception that is a PSCI query, an SGI, or an access to a register that
/// does not show the state of list registers. Returns `false` for any other exception.
pub(crate) fn handle(guest: &Guest, context: &mut Context, vcpu: &InGuest<'_>) -> bool {
    match Trap::of_last_exit() {
        Trap::HypervisorCall => {
            psci::is_query(context.registers[0] as u32)
                && psci::call(guest, &mut context.registers) == Next::Resume
        }
        Trap::SystemRegister(access) => send(context, vcpu, access).is_some(),
        Trap::Device(access) if context.is_simple() => {
            let vgic = guest.vgic();
            // The distributor holds none of the model's locks for long.
            let is_its = !gic::is_head(vgic, access.address);
            let is_quick =
                !is_its || gic::is_queue(vgic, access.address) && guest.lock.try_take(vcpu.cpu());
            if !is_quick {
                return false;
            }
            let done = if access.is_write {
                write(vgic, context, access)
            } else {
                read(vgic, context, access)
            };
            if is_its {
                guest.lock.release();
            }
            done.is_some()
        }
        _ => false,
    }
}

fn read(vgic: &Vgic, context: &mut Context, access: DeviceAccess) -> Option<()> {
    let DeviceAccess { address, width, register, .. } = access;
    let value = vgic.read(address, width).ok()?;
    context.set_register(register, access.extension.apply(value, width));
    context.skip_word();
    Some(())
}

fn write(vgic: &Vgic, context: &mut Context, access: DeviceAccess) -> Option<()> {
    let DeviceAccess { address, width, register, .. } = access;
    let value = context.register(register);
    let is_message = gic::message_of_vcpu(vgic, address, width, value).is_some();
    // The guest must repeat an unfinished store.
    if is_message || vgic.write(address, width, value).ok()? == Progress::Done {
        context.skip_word();
    }
    Some(())
}

/// Sends an SGI, possibly to the vCPU itself.
fn send(context: &mut Context, vcpu: &InGuest<'_>, access: RegisterAccess) -> Option<()> {
    let RegisterAccess { encoding, register, is_read } = access;
    if is_read || vcpu.write_sgi(encoding, context.register(register)).is_err() {
        return None;
    }
    context.skip_instruction();
    Some(())
}
