//! A Hyper-V guest: both ends of a virtual PCI bus, which uses the GIC's SPIs.

use super::{assert_delivered, embedded, migration};
use doorbell_hardware::pci::StoreConfig;
use doorbell_machine::{
    BuildOptions, ChosenDevices, ChosenFunction, ControllerChoice, Disturbance, FunctionPlacement,
    Machine, Migration, Population, Report, RunOptions, build, run, simulate,
};

fn machine(options: &BuildOptions) -> Machine {
    build(&embedded("hyperv"), options).unwrap()
}

/// Builds a machine with this many functions, and this many vectors in each function.
fn with_functions(functions: usize, vectors: u16) -> Machine {
    let store = StoreConfig::Msix { vectors, table_bar: 0, pba_bar: 2 };
    let function = ChosenFunction { place: FunctionPlacement::Root, store };
    let chosen = ChosenDevices { functions: vec![function; functions], devices: Vec::new() };
    let population = Population::Chosen(chosen);
    machine(&BuildOptions { population, ..BuildOptions::default() })
}

fn migrating() -> BuildOptions {
    BuildOptions { migration: migration(true, 1), ..BuildOptions::default() }
}

/// Returns options that enable no disturbance except removing and adding devices.
fn options(messages: u32) -> RunOptions {
    let disturbances = vec![Disturbance::DeviceHotplug];
    RunOptions { messages, disturbances, ..RunOptions::default() }
}

fn hwirqs(report: &Report) -> Vec<u32> {
    let vectors = report.devices.iter().flat_map(|device| &device.vectors);
    let mut all: Vec<u32> = vectors.map(|vector| vector.hwirq.get()).collect();
    all.sort_unstable();
    all
}

#[test]
fn spis_from_64_upwards_are_delivered() {
    let run_options = RunOptions { messages: 50, ..RunOptions::default() };
    let report = run(machine(&BuildOptions::default()), &run_options, &mut |_| {}).unwrap();
    assert_delivered(&report, 50);
    let all = hwirqs(&report);
    assert_eq!(all[0], 64);
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
}

#[test]
fn vectors_are_assigned_to_cpus_round_robin() {
    let machine = with_functions(3, 9);
    let options = RunOptions { disturbances: Vec::new(), ..options(1) };
    let report = run(machine, &options, &mut |_| {}).unwrap();
    let mut targets = report.devices.iter().flat_map(|device| &device.vectors).map(|one| one.cpu);
    let cpus = u32::try_from(report.cpus).unwrap();
    let first = targets.next().unwrap().get();
    for (target, next) in targets.zip(1..27) {
        assert_eq!(target.get(), (first + next) % cpus, "vector {next}");
    }
}

#[test]
fn spis_above_255_are_delivered() {
    let machine = with_functions(5, 64);
    let run_options = RunOptions { messages: 10, ..RunOptions::default() };
    let report = run(machine, &run_options, &mut |_| {}).unwrap();
    assert_delivered(&report, 10);
    assert_eq!(hwirqs(&report).last(), Some(&(64 + 5 * 64 - 1)));
}

#[test]
fn removing_functions_under_load_loses_no_message() {
    let report = simulate(machine(&BuildOptions::default()), &options(200)).unwrap();
    assert_delivered(&report, 200);
    assert!(report.totals.readded > 10, "{:?}", report.totals);
    let report = run(machine(&BuildOptions::default()), &options(1000), &mut |_| {}).unwrap();
    assert_delivered(&report, 1000);
    // How often depends on the host's scheduler.
    assert!(report.totals.readded > 0, "{:?}", report.totals);
}

#[test]
fn migration_with_requests_in_flight_loses_no_message() {
    let report = simulate(machine(&migrating()), &options(50)).unwrap();
    assert_delivered(&report, 50);
    assert!(report.totals.migrated_in_flight > 10, "{:?}", report.totals);
    let report = run(machine(&migrating()), &options(500), &mut |_| {}).unwrap();
    assert_delivered(&report, 500);
    assert!(report.totals.migrated_in_flight > 0, "{:?}", report.totals);
    let stays = BuildOptions { migration: Migration::Never, ..BuildOptions::default() };
    let report = run(machine(&stays), &options(10), &mut |_| {}).unwrap();
    assert_eq!(report.totals.migrated_in_flight, 0);
}

#[test]
fn choosing_an_its_is_refused_on_a_machine_with_only_a_virtual_bus() {
    let options = BuildOptions { controller: ControllerChoice::Its, ..BuildOptions::default() };
    let refusal = build(&embedded("hyperv"), &options).unwrap_err().to_string();
    assert!(refusal.ends_with("no enabled ITS; it has vpci (hyperv-vpci)"), "{refusal}");
}
