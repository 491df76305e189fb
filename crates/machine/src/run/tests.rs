//! Faults put into a whole machine with direct LPIs, while nothing else happens: the report tells each.

use super::{Counts, verdict};
use crate::bus::AccessWidth;
use crate::cpu::CpuCore;
use crate::embedded;
use crate::machine::{BuildOptions, LpiDisabling, build};
use crate::report::Totals;
use crate::system::{Driver, Moved, Powered, System, Unit, boot};
use crate::trespass::InTurn;
use gic_firmware::devicetree;
use irq_domain::IrqHandle;
use msi_types::{Cpu, Vector};
use std::sync::Arc;
use std::time::Duration;

const TARGET: u32 = 0;
const OLD: u32 = 1;

/// One vector of a machine of which everything is taken at once.
struct Quiet {
    system: System,
    cores: Vec<Arc<CpuCore>>,
    unit: usize,
    /// A CPU that the vector was never at.
    stranger: u32,
}

impl Quiet {
    /// The vector is at one CPU and was at another. Nothing is known of what was pending at a CPU that leaves.
    fn new() -> Self {
        let description = devicetree::parse(embedded::machine("lagoon").unwrap().dtb).unwrap();
        let options = BuildOptions { lpi_disabling: LpiDisabling::Impossible, ..BuildOptions::default() };
        let mut machine = build(&description, &options).unwrap();
        let powered = Powered::on(&mut machine);
        let system = boot(machine, &powered, &InTurn(powered.cores.clone())).unwrap();
        let working = |unit: &Unit| !unit.is_pci() && !unit.vectors().is_empty();
        let unit = system.units.iter().position(working).unwrap();
        let mut quiet = Self { system, cores: powered.cores, unit, stranger: 2 };
        quiet.stranger += u32::from(quiet.with_handle(IrqHandle::effective_affinity) == Cpu::new(2));
        quiet.move_to(OLD);
        quiet.send();
        quiet.move_to(TARGET);
        quiet.settle();
        assert_eq!(quiet.faults(), (0, 0));
        quiet
    }

    fn unit(&self) -> &Unit {
        &self.system.units[self.unit]
    }

    fn with_handle<T>(&self, look: impl FnOnce(&IrqHandle) -> T) -> T {
        self.unit().with_driver(|driver| match driver {
            Driver::Active(_, handles) => look(&handles[0]),
            Driver::Refused(_) | Driver::Attached(..) | Driver::Gone => panic!("it works"),
        })
    }

    fn vector(&self) -> Vector {
        self.with_handle(IrqHandle::vector)
    }

    fn send(&self) {
        assert!(self.unit().send(&self.unit().vectors()[0]));
    }

    fn move_to(&self, cpu: u32) {
        assert_eq!(self.unit().move_vector(0, Cpu::new(cpu)), Ok(Moved::Done));
    }

    /// Somebody makes it pending at a CPU.
    fn ring(&self, cpu: u32) {
        let doorbell = self.system.controllers.direct_lpi().unwrap().doorbell(Cpu::new(cpu)).unwrap();
        let lpi = self.vector().get().into();
        self.system.platform.cpu_bus().write(doorbell, AccessWidth::Double, lpi);
    }

    fn settle(&self) {
        for core in &self.cores {
            while core.take_one() {}
        }
    }

    /// The CPU goes, with what it did not take.
    fn unplug(&self, cpu: u32) {
        let gone = self.system.unplug_cpu(&InTurn(self.cores.clone()), Cpu::new(cpu));
        assert_eq!(gone, Ok(Moved::Done));
    }

    fn totals(&self) -> Totals {
        verdict(&self.system, Counts::default(), Duration::ZERO).totals
    }

    /// Wrong CPUs, spurious runs.
    fn faults(&self) -> (u64, u64) {
        let totals = self.totals();
        (totals.wrong_cpu, totals.spurious)
    }
}

#[test]
fn a_run_at_the_old_cpu_after_everything_was_drained_is_told() {
    let machine = Quiet::new();
    // Messages that found it pending are no budget for it.
    (0..5).for_each(|_| machine.send());
    machine.settle();
    machine.ring(OLD);
    machine.settle();
    assert_eq!(machine.faults(), (1, 0));
}

#[test]
fn a_second_run_for_one_message_is_told() {
    let machine = Quiet::new();
    (0..5).for_each(|_| machine.send());
    machine.settle();
    machine.ring(TARGET);
    machine.settle();
    assert_eq!(machine.faults(), (0, 1));
}

#[test]
fn a_run_at_a_cpu_that_was_never_the_target_is_told() {
    let machine = Quiet::new();
    machine.send();
    machine.settle();
    machine.ring(machine.stranger);
    machine.settle();
    assert_eq!(machine.faults(), (1, 1), "and there are more runs than messages");
}

#[test]
fn what_the_driver_sends_again_and_tells_is_excused_and_shown() {
    let machine = Quiet::new();
    let before = machine.totals().redelivered;
    machine.unplug(OLD);
    machine.settle();
    assert_eq!(machine.faults(), (0, 0));
    assert!(machine.totals().redelivered > before, "it was moved away from that CPU");
}

#[test]
fn what_the_driver_sends_again_and_does_not_tell_is_told() {
    let machine = Quiet::new();
    machine.system.books.routes.forget(machine.vector());
    machine.unplug(OLD);
    machine.settle();
    assert_eq!(machine.faults(), (0, 1));
}
