//! The tests, in the order in which they run.

mod controller;
mod cost;
mod devices;
mod discovery;
mod hotplug;
mod load;
mod lpis;
mod priorities;
mod sgis;

use crate::machine::Machine;
use crate::report::Report;
use msi_types::Cpu;

/// Everything.
pub(crate) fn run(machine: &'static Machine, expected: &str, report: &mut Report) {
    discovery::run(machine, expected, report);
    sgis::run(machine, report);
    devices::run(machine, report);
    controller::run(machine, report);
    priorities::run(machine, report);
    lpis::run(machine, report);
    load::run(machine, report);
    hotplug::run(machine, report);
    cost::run(machine, report);
}

/// The CPUs that are on line.
fn online(machine: &Machine) -> alloc::vec::Vec<Cpu> {
    machine.interrupts.online_cpus()
}
