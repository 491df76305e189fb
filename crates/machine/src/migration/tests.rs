//! What a migration loses, the judge finds; and nobody keeps what was left behind.

use super::{Destination, Migrator, intact};
use crate::bus::AccessWidth;
use crate::embedded;
use crate::machine::{BuildOptions, Machine, Wire, build};
use crate::run::{CpuLife, DeviceLife, Disturbances, Moves, RunOptions};
use crate::simulate::simulate_with;
use crate::system::{Powered, boot};
use crate::trespass::InTurn;
use gic_firmware::devicetree;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use vgic::saved_state::SavedState;

fn machine(name: &str, cpus: Option<NonZeroU16>) -> Machine {
    let description = devicetree::parse(embedded::machine(name).unwrap().dtb).unwrap();
    build(&description, &BuildOptions { cpus, ..BuildOptions::default() }).unwrap()
}

/// Forgets one interrupt that is pending by itself. Was there any?
fn forget_one(saved: &mut SavedState) -> bool {
    let events = saved.its.iter_mut().flat_map(|its| &mut its.devices).flat_map(|device| &mut device.events);
    if let Some(event) = { events }.find(|event| event.pending) {
        event.pending = false;
        return true;
    }
    let direct = saved.cpus.iter_mut().find_map(|cpu| cpu.redistributor.lpis.pop());
    let spi = saved.distributor.interrupts.iter_mut().find(|spi| spi.latch);
    let found = direct.is_some() || spi.is_some();
    if let (None, Some(spi)) = (direct, spi) {
        spi.latch = false;
    }
    found
}

/// Loses one pending interrupt, once, and says how many it lost.
fn lossy() -> (Wire, Arc<AtomicUsize>) {
    let lost = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&lost);
    let wire = move |mut saved: SavedState| {
        if count.load(Ordering::SeqCst) == 0 && forget_one(&mut saved) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        saved
    };
    (Box::new(wire), lost)
}

/// Each vector has one message: nothing hides a loss.
const ONE_EACH: RunOptions = RunOptions {
    messages: 1,
    seed: 1,
    disturbances: Disturbances { moves: Moves::None, cpus: CpuLife::AlwaysOn, devices: DeviceLife::Stay },
};

#[test]
fn one_interrupt_that_a_migration_loses_is_found_by_the_judge() {
    for name in ["harbour", "lagoon", "estuary", "cove"] {
        for seed in 1..=4 {
            let (wire, lost) = lossy();
            let options = RunOptions { seed, ..ONE_EACH };
            let totals = simulate_with(machine(name, None), &options, Some(wire)).unwrap().report.totals;
            let lost = u64::try_from(lost.load(Ordering::SeqCst)).unwrap();
            assert_eq!((totals.lost, lost), (1, 1), "{name}, seed {seed}: {totals:?}");
        }
    }
}

#[test]
fn nothing_is_lost_where_the_wire_loses_nothing() {
    for name in ["harbour", "lagoon", "estuary", "cove"] {
        let report = simulate_with(machine(name, None), &ONE_EACH, Some(intact())).unwrap().report;
        assert!(report.totals.is_clean() && report.totals.migrated > 0, "{name}: {:?}", report.totals);
    }
}

/// What it does with a machine whose drivers are up and of which only these CPUs take part.
fn with_system(cpus: u16, act: impl FnOnce(&crate::system::System, &Migrator)) {
    let mut machine = machine("harbour", NonZeroU16::new(cpus));
    let powered = Powered::on(&mut machine);
    let system = boot(machine, &powered, &InTurn(powered.cores.clone())).unwrap();
    act(&system, &Migrator::new(&powered.cores, intact()));
}

#[test]
fn a_model_is_gone_once_a_fresh_one_has_its_place_whoever_takes_part() {
    for cpus in [1, 3, 8] {
        with_system(cpus, |system, migrator| {
            let old = system.model.watch();
            migrator.migrate(&system.model, Destination::Same).unwrap();
            assert!(old.upgrade().is_some());
            migrator.migrate(&system.model, Destination::Fresh).unwrap();
            assert!(old.upgrade().is_none());
        });
    }
}

#[test]
fn somebody_who_keeps_the_old_model_is_noticed() {
    with_system(8, |system, migrator| {
        let kept = system.model.watch().upgrade().unwrap();
        assert!(migrator.migrate(&system.model, Destination::Fresh).unwrap_err().contains("left behind"));
        drop(kept);
        let its = system.model.with(|vgic| vgic.its(0)).unwrap();
        assert!(migrator.migrate(&system.model, Destination::Fresh).is_err());
        drop(its);
        migrator.migrate(&system.model, Destination::Fresh).unwrap();
    });
}

#[test]
fn faults_of_the_guest_are_counted_across_models() {
    with_system(8, |system, migrator| {
        let distributor = system.model.config().distributor;
        system.model.with(|vgic| vgic.write(distributor + 0xc, AccessWidth::Byte, 0)).unwrap();
        for to in [Destination::Fresh, Destination::Same, Destination::Fresh] {
            migrator.migrate(&system.model, to).unwrap();
            assert_eq!(system.model.guest_faults(), 1);
        }
    });
}
