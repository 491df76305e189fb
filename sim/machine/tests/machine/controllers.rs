//! Tests for every kind of controller, which check that the right devices are assigned to it and
//! that it delivers their interrupts.

use crate::board_trees::{self, flashed, region};
use crate::{
    assert_delivered, assert_refusals_are_counted, deliver_with, embedded, everything, migration,
};
use doorbell_machine::{
    AttackReport, BuildOptions, ControllerChoice, DeviceConfig, IommuPages, LpiDisabling,
    Migration, Refusal, Report, RunOptions, attack, build, run, simulate,
};
use gic_firmware::{
    Controller, ControllerIndex, ControllerKind, Description, Fact, IntIdSpan, MsiRouting,
};
use msi_types::{DeviceId, Trigger};
use proptest::prelude::*;

fn options(controller: ControllerChoice) -> BuildOptions {
    BuildOptions { controller, ..BuildOptions::default() }
}

/// Returns the kinds of the controllers that receive messages from the report's devices, without
/// duplicates.
fn kinds_in_use(report: &Report) -> Vec<&str> {
    let kind_of = |id: &str, isolates: bool| {
        let mut controllers = report.controllers.iter().filter(|controller| controller.id == id);
        controllers.find(|controller| controller.isolates == isolates).map(|it| it.kind.as_str())
    };
    let devices = report.devices.iter();
    let mut kinds: Vec<_> = devices
        .filter_map(|device| kind_of(&device.controller, device.isolation.mechanism().is_ok()))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[test]
fn embedded_machines_use_all_controllers() {
    for (name, kinds) in [
        ("harbour", vec!["its"]),
        ("lagoon", vec!["direct-lpi"]),
        ("estuary", vec!["its", "mbi"]),
        ("cove", vec!["v2m"]),
        ("hyperv", vec!["hyperv-vpci"]),
    ] {
        let report = deliver_with(&embedded(name), &BuildOptions::default(), 15);
        assert_delivered(&report, 15);
        assert_eq!(kinds_in_use(&report), kinds, "{name}");
        assert!(report.controllers.iter().all(|controller| controller.driven), "{name}");
    }
}

#[test]
fn scarce_spis_are_shared_by_all_devices() {
    let mut board = embedded("estuary");
    let ample = deliver_with(&board, &options(ControllerChoice::Mbi), 5);
    let devices = u32::try_from(ample.devices.len()).unwrap();
    let mbi = board.controllers.iter_mut().find(|one| one.kind == ControllerKind::Mbi).unwrap();
    let first = mbi.ranges[0].first();
    mbi.ranges = vec![Fact::stated(IntIdSpan::new(first, devices).unwrap())];
    let scarce = deliver_with(&flashed(&board), &options(ControllerChoice::Mbi), 5);
    assert!(ample.totals.vectors > scarce.totals.vectors);
    for device in &scarce.devices {
        assert_eq!((device.vectors.len(), &device.refused), (1, &None), "{}", device.id);
    }
    assert_refusals_are_counted(&scarce);
    assert!(scarce.totals.short > 0 && !scarce.totals.is_clean(), "{:?}", scarce.totals);
}

#[test]
fn an_mbi_delivers_the_messages_of_a_level_triggered_device() {
    let board = embedded("estuary");
    let machine = build(&board, &options(ControllerChoice::Mbi)).unwrap();
    let is_level =
        |config| matches!(config, DeviceConfig::Platform(plan) if plan.trigger == Trigger::Level);
    let devices = machine.devices();
    let level = devices.iter().find(|device| is_level(device.config)).unwrap();
    let report = deliver_with(&board, &options(ControllerChoice::Mbi), 50);
    assert_delivered(&report, 50);
    let device = report.devices.iter().find(|device| device.id == level.id).unwrap();
    assert!(device.vectors.iter().all(|vector| vector.delivered > 0), "{device:?}");
}

#[test]
fn choosing_a_controller_leaves_out_devices_of_other_controllers() {
    let board = embedded("estuary");
    for (choice, kind) in [(ControllerChoice::Its, "its"), (ControllerChoice::Mbi, "mbi")] {
        let report = deliver_with(&board, &options(choice), 20);
        assert_delivered(&report, 20);
        assert_eq!(kinds_in_use(&report), [kind]);
    }
}

#[test]
fn choosing_a_missing_controller_is_refused_with_alternatives() {
    let refusal = build(&embedded("cove"), &options(ControllerChoice::Its)).unwrap_err();
    let Refusal::NoController { wanted: ControllerChoice::Its, others } = &refusal else {
        panic!("{refusal}")
    };
    assert_eq!(others.len(), 2);
    assert!(others.iter().all(|other| other.ends_with("(v2m)")), "{refusal}");
}

#[test]
fn direct_lpis_beside_an_its_or_mbi_are_refused() {
    let frame = region(0x0804_0000, 0x1_0000);
    for (controller, expected) in [
        (Controller::its("/its@8200000", region(0x0820_0000, 0x2_0000)), "DirectLpiBesideIts"),
        (Controller::new("/mbi@8040000", ControllerKind::Mbi, Some(frame)), "DirectLpiBesideMbi"),
    ] {
        let mut board = embedded("lagoon");
        board.controllers.push(controller);
        let refusal = build(&board, &BuildOptions::default()).unwrap_err();
        assert!(format!("{refusal:?}").starts_with(expected), "{expected}: {refusal:?}");
    }
}

/// Returns a board with two platform devices on one controller of this kind.
fn two_devices(kind: &ControllerKind) -> Description {
    let mut board = board_trees::bare(2, 0);
    board.controllers = vec![board_trees::controller(kind.clone(), 0, 0)];
    let routing = |device| match kind {
        ControllerKind::Its => MsiRouting::device(ControllerIndex::new(0), DeviceId::new(device)),
        _ => MsiRouting::parent(ControllerIndex::new(0)),
    };
    board.devices = [(0x0b00_0000, 1), (0x0b01_0000, 2)]
        .map(|(at, id)| board_trees::device(at, routing(id)))
        .into();
    flashed(&board)
}

fn attacked(kind: &ControllerKind, pages: IommuPages) -> AttackReport {
    attacked_with(&two_devices(kind), &BuildOptions::default(), pages)
}

/// Lets one device of the board attack the other, and returns the report. The report must not
/// change when the controller migrates.
#[track_caller]
fn attacked_with(board: &Description, options: &BuildOptions, pages: IommuPages) -> AttackReport {
    let attempt =
        |options: &BuildOptions| attack(build(board, options).unwrap(), pages).unwrap().unwrap();
    let found = attempt(options);
    for seed in 1..=8 {
        let mut moved =
            attempt(&BuildOptions { migration: Migration::AtRandom { seed }, ..options.clone() });
        assert!(std::mem::take(&mut moved.migrated) > 0);
        assert_eq!(moved, found);
    }
    found
}

#[test]
fn an_its_drops_the_message_of_another_device() {
    for pages in [IommuPages::NoIommu, IommuPages::Doorbell] {
        let attempt = attacked(&ControllerKind::Its, pages);
        assert!(!attempt.rang && !attempt.silenced && !attempt.seized, "{attempt:?}");
        assert!(attempt.isolation.mechanism().is_ok());
    }
}

#[test]
fn doorbells_without_device_ids_expose_the_registers_of_their_page() {
    use ControllerKind::{DirectLpi, Mbi, V2m};
    let (no_iommu, mapped, unmapped) =
        (IommuPages::NoIommu, IommuPages::Doorbell, IommuPages::None);
    // Success of three attacks: another device's message, controls of the page that silence the
    // victim, and replaced LPI tables.
    for (kind, pages, expected) in [
        (DirectLpi, no_iommu, [true; 3]),
        (DirectLpi, mapped, [true; 3]),
        (DirectLpi, unmapped, [false; 3]),
        (Mbi, no_iommu, [true, true, false]),
        (Mbi, mapped, [true, true, false]),
        (Mbi, unmapped, [false; 3]),
        (V2m, no_iommu, [true, false, false]),
        (V2m, mapped, [true, false, false]),
        (V2m, unmapped, [false; 3]),
    ] {
        let attempt = attacked(&kind, pages);
        let what = format!("{kind}, {pages:?}: {attempt:?}");
        assert_eq!([attempt.rang, attempt.silenced, attempt.seized], expected, "{what}");
        let blocked = if pages == unmapped { attempt.writes } else { 0 };
        assert!(attempt.writes >= 2 && attempt.faults == blocked, "{what}");
        // Passthrough must be refused, whatever the IOMMU does.
        let refused = attempt.isolation.mechanism().unwrap_err().to_string();
        for register in ["GICR_CTLR", "GICR_PROPBASER", "GICR_PENDBASER"] {
            assert!(kind != DirectLpi || refused.contains(register), "{what}: {refused}");
        }
    }
}

#[test]
fn fixed_lpi_tables_do_not_isolate_devices_from_each_other() {
    let options =
        BuildOptions { lpi_disabling: LpiDisabling::Impossible, ..BuildOptions::default() };
    let attempt =
        attacked_with(&two_devices(&ControllerKind::DirectLpi), &options, IommuPages::Doorbell);
    assert!(attempt.rang && !attempt.seized, "{attempt:?}");
    assert!(attempt.isolation.mechanism().is_err());
}

/// On an Amazon Graviton, the frames take the SPI from the address of the message; on this machine,
/// they take it from the data.
#[test]
fn the_oem_id_selects_the_v2m_message_format() {
    let mut board = two_devices(&ControllerKind::V2m);
    let spis = IntIdSpan::new(gic_arch::IntId::new(96), 64).unwrap();
    board.controllers[0].ranges.push(Fact::stated(spis));
    let lost = |board: &Description| {
        let options = RunOptions { messages: 1, ..RunOptions::default() };
        let machine = build(board, &BuildOptions::default()).unwrap();
        let totals = simulate(machine, &options).unwrap().totals;
        (totals.vectors > 0, totals.lost == totals.vectors)
    };
    assert_eq!(lost(&board), (true, false));
    board.oem_id = Some("AMAZON".into());
    assert_eq!(lost(&board), (true, true));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 6,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_interrupt_is_lost_spurious_or_delivered_to_a_wrong_cpu(
        name in prop::sample::select(vec!["harbour", "lagoon", "estuary", "cove", "hyperv"]),
        seed in any::<u64>(),
        cpus in 1..=8u16,
        threads in any::<bool>(),
        migrates in any::<bool>(),
        can_disable in any::<bool>(),
    ) {
        let lpi_disabling =
            if can_disable { LpiDisabling::Possible } else { LpiDisabling::Impossible };
        let (cpus, migration) = (cpus.try_into().ok(), migration(migrates, seed));
        let built = BuildOptions { cpus, lpi_disabling, migration, ..BuildOptions::default() };
        let machine = build(&embedded(name), &built).unwrap();
        let run_options = everything(seed, 40);
        let report = if threads {
            run(machine, &run_options, &mut |_| {}).unwrap()
        } else {
            simulate(machine, &run_options).unwrap()
        };
        prop_assert!(report.totals.is_clean(), "{:?}", report.totals);
        prop_assert_eq!(report.totals.sent, report.totals.vectors * 40);
    }
}
