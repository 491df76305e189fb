//! Handles trapped guest accesses and instructions.

use crate::direct;
use crate::faults::{Kind, Refused};
use crate::gic;
use crate::guest::Guest;
use crate::power::Next;
use crate::psci;
use el2_cpu::syndrome::{self, DeviceAccess, Trap, UndescribedAccess};
use el2_cpu::{Context, IndexedTransfer, inject};
use image_rt::read_register;
use vgic::{AccessWidth, GuestMemory as _, ListRegisterVcpu, Progress};

/// Call that returns the guest's number of exits so far, a vendor-specific hypervisor service (DEN
/// 0028). `el2/microbench` calls it.
const EXITS: u64 = 0x8600_0000;

/// Exception classes (`ESR_EL2.EC`) of aborts in the guest.
const ABORTS: [u64; 2] = [0x20, 0x24];

/// Returns `true` if the last exit is an access, which [`handle`] may only be called for while the
/// vCPU holds the guest's [lock](crate::fair_lock).
pub(crate) fn is_abort() -> bool {
    ABORTS.contains(&(read_register!("esr_el2") >> 26 & 0x3f))
}

/// Handles a synchronous exception of the guest. Guest actions never cause errors here: actions
/// that no machine would support cause an exception in the guest.
// Don't inline this: it would add instructions to the exits that the fast path handles.
#[inline(never)]
pub(crate) fn handle(guest: &Guest, context: &mut Context, vcpu: &mut ListRegisterVcpu) -> Next {
    let (mut esr, far) = (read_register!("esr_el2"), read_register!("far_el2"));
    let mut hpfar = read_register!("hpfar_el2");
    if syndrome::is_store_to_rom(esr) {
        // If another vCPU changes the tables meanwhile, the guest repeats the store.
        let Some(address) = context.translate(far) else { return Next::Resume };
        (esr, hpfar) = syndrome::unmapped_store(esr, address);
    }
    match Trap::decode(esr, far, hpfar) {
        Trap::WaitForInterrupt => {
            context.skip_instruction();
            return Next::Wait;
        }
        Trap::HypervisorCall => return call(guest, context),
        Trap::SecureMonitorCall => {
            context.skip_instruction();
            return call(guest, context);
        }
        Trap::SystemRegister(access) => {
            if context.emulate_register(access, vcpu).is_none() {
                let register = access.encoding.packed().into();
                guest.refuse(context, refused(Kind::Register, 0, register));
                inject::undefined(context);
            }
        }
        // Memory of devices is mapped when the guest first accesses it. Its tables may be in flash.
        Trap::Device(_) | Trap::Undescribed(_) | Trap::Fetch { .. } | Trap::Abort { .. }
            if syndrome::unmapped_page(esr, hpfar)
                .and_then(|page| guest.map_device_page(page, syndrome::is_store(esr)))
                .is_some() => {}
        Trap::Device(access) => _ = device(guest, context, access),
        Trap::Undescribed(access) => undescribed(guest, context, access),
        Trap::CacheMaintenance => context.skip_instruction(),
        Trap::Abort { address } => {
            guest.refuse(context, refused(Kind::Abort, address, 0));
            inject::data_abort(context, address);
        }
        Trap::Fetch { address, physical } => {
            guest.refuse(context, refused(Kind::Fetch, physical, 0));
            inject::fetch_abort(context, address);
        }
        Trap::Undefined => {
            guest.refuse(context, refused(Kind::Instruction, 0, 0));
            inject::undefined(context);
        }
    }
    Next::Resume
}

fn call(guest: &Guest, context: &mut Context) -> Next {
    if context.registers[0] == EXITS {
        context.registers[0] = guest.exits.total();
        return Next::Resume;
    }
    psci::call(guest, &mut context.registers)
}

const fn refused(kind: Kind, address: u64, detail: u64) -> Refused {
    Refused { kind, address, detail }
}

/// Handles a load or store outside of the memory that stage 2 maps: to registers of the GIC or of
/// PCI, or to an unmapped address. Returns `true` if the access is complete.
fn device(guest: &Guest, context: &mut Context, access: DeviceAccess) -> bool {
    let done = context.emulate_access(
        access,
        |address, width| read(guest, address, width),
        |address, width, value| write(guest, address, width, value),
    );
    if done.is_none() {
        let DeviceAccess { address, virtual_address, width, .. } = access;
        guest.refuse(context, refused(Kind::Access, address, width.bytes().into()));
        inject::data_abort(context, virtual_address);
    }
    done == Some(Progress::Done)
}

/// Handles a load or store that the syndrome does not describe, by decoding the instruction.
#[cold]
#[inline(never)]
fn undescribed(guest: &Guest, context: &mut Context, access: UndescribedAccess) {
    let instruction = instruction(guest, context);
    let transfer = instruction.and_then(IndexedTransfer::decode);
    let found = transfer.and_then(|it| Some((it.base, it.of(access, context.base(it.base))?)));
    let Some((base, (access, updated))) = found else {
        guest.refuse(
            context,
            refused(Kind::Undescribed, access.address, instruction.unwrap_or(0).into()),
        );
        return inject::data_abort(context, access.virtual_address);
    };
    if device(guest, context, access) {
        context.set_base(base, updated);
    }
}

/// Reads the A64 instruction that trapped from the guest's RAM.
fn instruction(guest: &Guest, context: &Context) -> Option<u32> {
    let address = context.is_a64().then(|| context.translate(context.pc)).flatten()?;
    let mut bytes = [0; 4];
    guest.ram().read(address, &mut bytes).ok()?;
    Some(u32::from_le_bytes(bytes))
}

fn write(guest: &Guest, address: u64, width: AccessWidth, value: u64) -> Option<Progress> {
    guest.answers(address, false).then_some(())?;
    let vgic = guest.vgic();
    if gic::message_of_vcpu(vgic, address, width, value).is_some() {
        return Some(Progress::Done);
    }
    let written = if direct::is_on() && direct::is_disabling(vgic, address) {
        direct::around(guest, || vgic.write(address, width, value))
    } else {
        vgic.write(address, width, value)
    };
    if let Ok(progress) = written {
        return Some(progress);
    }
    guest.devices.write(guest, address, width, value).map(|()| Progress::Done)
}

fn read(guest: &Guest, address: u64, width: AccessWidth) -> Option<u64> {
    guest.answers(address, true).then_some(())?;
    let read = || guest.vgic().read(address, width);
    let value = if guest.vgic().shows_listed_state(address) {
        guest.gate.while_empty(|cpu| guest.kick(cpu), read)
    } else {
        read()
    };
    value.ok().or_else(|| guest.devices.read(guest, address, width))
}
