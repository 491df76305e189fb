//! Tests that inject faults into an otherwise idle machine with direct LPIs, and check that the
//! report shows each of them. With all disturbances active, the report must show no fault.

use super::verdict::verdict;
use super::{RunOptions, run};
use crate::disturbance::{Disturbance, DisturbanceCounts};
use crate::embedded;
use crate::machine::{BuildOptions, LpiDisabling, LpiNumbers, Machine, build};
use crate::migration::Migration;
use crate::report::Totals;
use crate::sequential::GicCpus;
use crate::simulate::simulate;
use crate::system::{AffinityChange, Device, Driver, PoweredMachine, System, boot};
use doorbell_hardware::bus::AccessWidth;
use doorbell_hardware::platform::MachinePlatform;
use gic_arch::gicr;
use gic_bringup::MsiController;
use irq_domain::IrqHandle;
use msi_types::{Cpu, HwIrq};
use std::time::Duration;

const TARGET: u32 = 0;
const OLD: u32 = 1;

const STAYS: Migration = Migration::Never;
const MOVES: Migration = Migration::AtRandom { seed: 1 };

fn machine(lpi_disabling: LpiDisabling, migration: Migration) -> Machine {
    let description = embedded::machine("lagoon").unwrap().firmware.describe().unwrap();
    // Keep the number of LPIs small, because a migration copies each CPU's state of every LPI.
    let lpis = LpiNumbers::Few;
    let options = BuildOptions { lpis, lpi_disabling, migration, ..BuildOptions::default() };
    build(&description, &options).unwrap()
}

/// A machine with a single vector, whose CPUs take interrupts immediately.
struct SingleVector {
    system: System,
    cpus: GicCpus,
    device: usize,
    /// A CPU that the vector never targeted.
    stranger: u32,
}

impl SingleVector {
    /// Builds a machine whose vector has moved from one CPU to another. LPIs cannot be disabled, so
    /// the driver cannot know which interrupts are pending at a CPU that goes offline.
    fn new(migration: Migration) -> Self {
        let mut machine = machine(LpiDisabling::Impossible, migration);
        let powered = PoweredMachine::on(&mut machine);
        let cpus = powered.sequential();
        let system = boot(machine, &powered, &cpus).unwrap();
        let working = |device: &Device| !device.is_pci() && !device.vectors().is_empty();
        let device = system.devices.iter().position(working).unwrap();
        let mut quiet = Self { system, cpus, device, stranger: 2 };
        quiet.stranger +=
            u32::from(quiet.with_handle(IrqHandle::effective_affinity) == Cpu::new(2));
        quiet.move_to(OLD);
        quiet.send();
        quiet.move_to(TARGET);
        quiet.settle();
        assert_eq!(quiet.faults(), (0, 0));
        quiet
    }

    fn device(&self) -> &Device {
        &self.system.devices[self.device]
    }

    fn with_handle<T>(&self, look: impl FnOnce(&IrqHandle) -> T) -> T {
        self.device().with_driver(|driver| match driver {
            Driver::Active(_, handles) => look(&handles[0]),
            Driver::Refused(_) | Driver::Attached(..) | Driver::Gone => panic!("it works"),
        })
    }

    fn vector(&self) -> HwIrq {
        self.with_handle(IrqHandle::hwirq)
    }

    fn send(&self) {
        assert!(self.device().send(&self.device().vectors()[0]));
    }

    fn move_to(&self, cpu: u32) {
        assert_eq!(self.device().move_vector(0, Cpu::new(cpu)), Ok(AffinityChange::Done));
    }

    fn direct_lpi(&self) -> &gic_driver::DirectLpi<MachinePlatform> {
        let mut drivers = self.system.irqchip.controllers();
        let found = drivers.find_map(|(_, driver)| match driver {
            MsiController::DirectLpi(direct_lpi) => Some(direct_lpi),
            _ => None,
        });
        found.unwrap()
    }

    /// Makes the vector pending at a CPU that may not have read the vector's configuration before.
    fn ring(&self, cpu: u32) {
        let doorbell = self.direct_lpi().doorbell(Cpu::new(cpu)).unwrap();
        let (bus, lpi) = (self.system.platform.cpu_bus(), self.vector().get().into());
        let invalidate =
            doorbell - u64::from(gicr::SETLPIR.offset()) + u64::from(gicr::INVLPIR.offset());
        bus.write(invalidate, AccessWidth::Double, lpi);
        bus.write(doorbell, AccessWidth::Double, lpi);
    }

    fn settle(&self) {
        self.cpus.settle();
    }

    /// Takes the CPU offline, with its interrupts still pending.
    fn unplug(&self, cpu: u32) {
        let gone = self.system.unplug_cpu(&self.cpus, Cpu::new(cpu));
        assert_eq!(gone, Ok(AffinityChange::Done));
    }

    fn totals(&self) -> Totals {
        self.cpus.migrated().unwrap();
        verdict(&self.system, DisturbanceCounts::default(), Duration::ZERO).totals
    }

    /// Returns the numbers of runs on wrong CPUs and of spurious runs.
    fn faults(&self) -> (u64, u64) {
        let totals = self.totals();
        (totals.wrong_cpu, totals.spurious)
    }
}

#[test]
fn unjustified_handler_runs_are_reported() {
    for (messages, cpu, faults, what) in [
        // Messages that arrived while the interrupt was already pending must not excuse the run.
        (5, Some(OLD), (1, 0), "at the old CPU, after its drain"),
        (5, Some(TARGET), (0, 1), "a second time for one message"),
        (1, None, (1, 1), "where the vector never was, and more often than messages"),
    ] {
        for machine in [STAYS, MOVES].map(SingleVector::new) {
            (0..messages).for_each(|_| machine.send());
            machine.settle();
            machine.ring(cpu.unwrap_or(machine.stranger));
            machine.settle();
            assert_eq!(machine.faults(), faults, "{what}");
        }
    }
}

#[test]
fn reported_resends_are_excused_and_counted() {
    for machine in [STAYS, MOVES].map(SingleVector::new) {
        let before = machine.totals().redelivered;
        machine.unplug(OLD);
        machine.settle();
        assert_eq!(machine.faults(), (0, 0));
        assert!(machine.totals().redelivered > before, "it was moved away from that CPU");
    }
}

#[test]
fn unreported_resends_are_spurious() {
    for machine in [STAYS, MOVES].map(SingleVector::new) {
        machine.system.records.routes.ignore_resends(machine.vector());
        machine.unplug(OLD);
        machine.settle();
        assert_eq!(machine.faults(), (0, 1));
    }
}

#[test]
fn a_guest_fault_makes_the_verdict_unclean() {
    for machine in [STAYS, MOVES].map(SingleVector::new) {
        assert!(machine.totals().is_clean(), "{:?}", machine.totals());
        let distributor = machine.system.model.config().distributor;
        let read_only = distributor + 0xc;
        machine.system.platform.cpu_bus().write(read_only, AccessWidth::Byte, 0);
        let totals = machine.totals();
        assert!(totals.guest_faults == 1 && !totals.is_clean(), "{totals:?}");
    }
}

/// Returns options that enable all disturbances except suspensions.
fn everything(seed: u64, messages: u32) -> RunOptions {
    RunOptions { messages, seed, disturbances: Disturbance::AWAKE.into() }
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn needless_resends_are_reported_under_disturbance() {
    for migration in [STAYS, MOVES] {
        let machine = machine(LpiDisabling::Impossible, migration);
        let totals = simulate(machine, &everything(1, 40)).unwrap().totals;
        assert!(totals.is_clean() && totals.replugged > 0 && totals.redelivered > 0, "{totals:?}");
    }
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn runs_on_threads_are_clean_under_disturbances() {
    for seed in 0..4 {
        let lpi_disabling =
            if seed % 2 == 0 { LpiDisabling::Possible } else { LpiDisabling::Impossible };
        let migration = if seed < 2 { STAYS } else { Migration::AtRandom { seed } };
        // Leave the devices in place: if a device is removed while its vectors are moving away from
        // a CPU, that CPU cannot go offline.
        let mut options = everything(seed, 40);
        options.disturbances.retain(|kind| *kind != Disturbance::DeviceHotplug);
        let totals = run(machine(lpi_disabling, migration), &options, &mut |_| {}).unwrap().totals;
        assert!(totals.is_clean(), "{totals:?}");
    }
}
