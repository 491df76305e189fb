//! Starts the machine, and then its guests.

use crate::guest::{self, Guest};
use crate::options::Options;
use crate::{direct, interrupts, irqchip, moving, recorder, scheduler, vcpu};
use alloc::vec::Vec;
use el2_cpu::Start;
use gic_firmware::Description;
use image_rt::power::{self, CpuStack};
use msi_types::Cpu;

/// Brings up the machine's interrupt controllers, and starts the records. Must be called once, on
/// the first CPU, before guests are created.
///
/// # Panics
/// Panics if the machine has no GICv3 that the drivers support.
pub fn bring_up(description: Description, options: &Options) {
    if options.stats {
        recorder::enable();
    }
    irqchip::bring_up(description, if options.direct { direct::MAX_VPES } else { 0 });
    if options.direct {
        direct::want();
    }
}

/// Runs the guests on all CPUs: the first vCPU of each one starts as stated. Turns the machine off
/// when the last guest has ended.
///
/// # Panics
/// Panics if firmware cannot turn on a CPU.
pub fn run(guests: Vec<(Guest, Start)>, options: &Options) -> ! {
    scheduler::install(guests.iter().map(|(guest, _)| guest.vgic().config().cpus.len()));
    let (guests, starts): (Vec<_>, Vec<_>) = guests.into_iter().unzip();
    guest::install(guests);
    interrupts::serve();
    let cpus = irqchip::get().cpus().count() as u32;
    (1..cpus).map(Cpu::new).for_each(turn_on);
    if options.direct {
        direct::start(cpus);
    }
    for (guest, start) in guest::guests().iter().zip(starts) {
        guest.start(Cpu::new(0), start);
    }
    options.moves.into_iter().for_each(moving::start);
    vcpu::serve()
}

/// Turns on a CPU of the machine, which then runs vCPUs.
fn turn_on(cpu: Cpu) {
    let mpidr = irqchip::get().affinity(cpu).expect("firmware describes this CPU").mpidr();
    let work = || {
        interrupts::bring_up_cpu();
        direct::note_cpu();
        vcpu::serve()
    };
    power::cpu_on(cpu.index(), mpidr, CpuStack::new(), work)
        .expect("firmware could not turn on a CPU");
}
