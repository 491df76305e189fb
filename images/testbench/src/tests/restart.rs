//! Restarts the bench the way kexec starts another kernel. Nothing is reset: the ITS and the
//! redistributors continue to use the previous run's tables, in memory that now belongs to the next
//! run. Each run ends with messages pending at all CPUs, and the last but one in an interrupt
//! handler, like a kernel that crashes. Redistributors with virtual LPIs still have a resident vPE.

use crate::controller::gicv3;
use crate::devices::DeviceKind;
use crate::machine::Machine;
use crate::report::{Outcome, Report, Verdict, check};
use crate::rig::Rig;
use crate::smp;
use crate::soft_device::SoftDevice;
use alloc::vec::Vec;
use gic_arch::gicr::vlpi::{self, Vpendbaser, Vpropbaser};
use gic_arch::gicr::{FRAME_SIZE, VLPI_BASE};
use gic_driver::{GicPlatform, MmioExt, PhysicalRegion, Platform, RawMmio, TableLayout};
use image_rt::platform::Kernel;
use image_rt::{Boot, cpu, restart};
use msi_types::Cpu;

/// Number of restarts.
pub(super) const RESTARTS: u64 = 2;
const PAGE_64K: u64 = 0x1_0000;
/// INTID bits of the virtual LPIs.
const VIRTUAL_ID_BITS: u8 = 14;

/// Checks that bring-up has removed the vPEs of the previous run.
pub(super) fn no_vpe(machine: &Machine) -> Outcome {
    for frame in vlpi_frames(machine)? {
        check!(!frame.read(vlpi::VPENDBASER).valid(), "a vPE of the previous run is resident");
    }
    Ok(())
}

/// Leaves messages pending, and restarts the bench. Returns only if that fails.
pub(super) fn restart(machine: &'static Machine, boot: Boot, report: &Report) -> Outcome {
    let notes = report.notes();
    let last = SoftDevice::new(machine, 1, move |_, _| again(boot, notes))?;
    machine.route(&last.handles[0], Cpu::new(0))?;
    let edus = machine.functions.iter().filter(|function| DeviceKind::is(function, "edu"));
    let kind = machine.device("edu")?.1;
    let rigs = edus.map(|edu| Rig::new(machine, "edu", edu, kind.drive(edu)));
    let rigs = rigs.collect::<Result<Vec<_>, Verdict>>()?;
    let cpus = machine.online_cpus();
    for (rig, cpu) in rigs.iter().zip(cpus.iter().cycle()) {
        machine.route(&rig.handles[0], *cpu)?;
    }
    for cpu in cpus.into_iter().skip(1) {
        smp::leave(machine, cpu)?;
    }
    for frame in vlpi_frames(machine)? {
        make_resident(&frame)?;
    }
    cpu::irq_save();
    for rig in &rigs {
        rig.device.fire(0)?;
    }
    if restart::count() + 1 < RESTARTS {
        again(boot, notes);
    }
    last.fire(0);
    cpu::irq_enable();
    cpu::wait_until(5000, || false);
    Err(Verdict::Failed("the message that restarts the bench was not taken".into()))
}

fn again(boot: Boot, notes: u64) -> ! {
    // SAFETY: the other CPUs are off. Devices write nothing but their messages.
    unsafe { restart::again(boot, notes) }
}

/// Returns the virtual LPI frames of redistributors that have them.
fn vlpi_frames(machine: &Machine) -> Result<Vec<RawMmio>, Verdict> {
    let gic = gicv3(machine.gic())?;
    let mut frames = Vec::new();
    for cpu in gic.cpus() {
        let redistributor = gic.redistributor_frames(cpu)?;
        if redistributor.typer().vlpis() {
            let base = redistributor.address() + u64::from(VLPI_BASE);
            let frame = Kernel.map(PhysicalRegion { base, bytes: FRAME_SIZE });
            frames.push(frame.ok_or(Verdict::Failed("VLPI_base is not mapped".into()))?);
        }
    }
    Ok(frames)
}

/// Makes a vPE without pending interrupts resident, as a hypervisor does.
fn make_resident(frame: &RawMmio) -> Outcome {
    let table = Kernel.allocate_table(TableLayout::new(PAGE_64K, PAGE_64K));
    let table = table.ok_or(Verdict::Failed("no memory for a table".into()))?;
    let configuration = Vpropbaser::new()
        .with_address_51_12(table.address >> 12)
        .with_id_bits_minus_one(VIRTUAL_ID_BITS - 1);
    frame.write(vlpi::VPROPBASER, configuration);
    let vpe = Vpendbaser::new().with_address(table.address).with_valid(true);
    frame.write(vlpi::VPENDBASER, vpe);
    let is_resident = || frame.read(vlpi::VPENDBASER).valid();
    check!(cpu::wait_until(5000, is_resident), "no vPE is resident");
    Ok(())
}
