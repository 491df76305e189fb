//! Random machines, with arbitrary devices and routes. A device that cannot be given vectors must
//! be told the reason. For all other devices, no message may be lost, spurious, or delivered to a
//! wrong CPU.

mod drawn;

use crate::{assert_refusals_are_counted, everything};
use doorbell_hardware::pci::{AddressWidth, StoreConfig};
use doorbell_hardware::platform_device::{DataWidth, PlatformDeviceConfig};
use doorbell_machine::{
    BuildOptions, DeviceConfig, DeviceInfo, DeviceReport, LpiNumbers, Machine, Migration, Report,
    RunError, RunOptions, build, run, simulate,
};
use drawn::{Drawn, Kinds, machines};
use gic_firmware::{ControllerKind, Description};
use msi_types::Trigger;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

/// The reason why an endpoint cannot be given vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Limit {
    Address,
    Data,
    Level,
}

impl Limit {
    /// Returns `true` if the driver's error message states this reason.
    fn said_in(self, reason: &str) -> bool {
        match self {
            Self::Address => reason.contains("address bits"),
            Self::Data => reason.contains("data bits"),
            Self::Level => reason.contains("no level-triggered messages"),
        }
    }
}

/// Returns the reasons why this endpoint cannot be given vectors, derived from firmware and the
/// device.
fn limits(
    drawn: &Drawn,
    board: &Description,
    device: &DeviceReport,
    endpoint: DeviceConfig,
) -> Vec<Limit> {
    let (address, data, trigger) = match endpoint {
        DeviceConfig::Function(StoreConfig::Msi { address, .. }) => {
            (address, DataWidth::Bits16, Trigger::Edge)
        }
        DeviceConfig::Function(_) => (AddressWidth::Bits64, DataWidth::Bits32, Trigger::Edge),
        DeviceConfig::Platform(PlatformDeviceConfig { address, data, trigger, .. }) => {
            (address, data, trigger)
        }
    };
    let controller =
        board.controllers.iter().find(|one| one.id.as_str() == device.controller).unwrap();
    let reachable = board.doorbells(controller).iter().any(|doorbell| *doorbell < 1 << 32);
    let long = matches!(drawn.kinds, Kinds::Direct { lpis: LpiNumbers::Long, .. });
    let is_direct = controller.kind == ControllerKind::DirectLpi;
    let all = [
        (address == AddressWidth::Bits32 && !reachable, Limit::Address),
        (data == DataWidth::Bits16 && is_direct && long, Limit::Data),
        (trigger == Trigger::Level && controller.kind != ControllerKind::Mbi, Limit::Level),
    ];
    all.into_iter().filter_map(|(applies, limit)| applies.then_some(limit)).collect()
}

/// Runs the machine and checks every device.
fn check(
    drawn: &Drawn,
    messages: u32,
    migration: Migration,
    go: impl FnOnce(Machine, &RunOptions) -> Result<Report, RunError>,
) -> TestCaseResult {
    let board = drawn.board();
    let machine = build(&board, &BuildOptions { migration, ..drawn.options() }).unwrap();
    prop_assert_eq!(machine.notes(), [] as [&str; 0]);
    let built = machine.devices();
    let report = match go(machine, &everything(drawn.seed, messages)) {
        Ok(report) => report,
        Err(RunError::NoVectors { devices, reason }) => {
            let limits = [Limit::Address, Limit::Data, Limit::Level];
            prop_assert!(limits.iter().any(|limit| limit.said_in(&reason)), "{}", reason);
            prop_assert_eq!(devices, built.len());
            return Ok(());
        }
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    };
    prop_assert!(report.totals.is_delivered(), "{:?}", report.totals);
    prop_assert_eq!(report.totals.migrated > 0, migration != Migration::Never);
    prop_assert_eq!(report.totals.sent, report.totals.vectors * u64::from(messages));
    prop_assert_eq!(report.devices.len(), built.len());
    assert_refusals_are_counted(&report);
    for DeviceInfo { id, config } in &built {
        let device = report.devices.iter().find(|device| device.id == *id).unwrap();
        let limits = limits(drawn, &board, device, *config);
        let right = match &device.refused {
            None => limits.is_empty() && !device.vectors.is_empty(),
            Some(reason) => limits.iter().any(|limit| limit.said_in(reason)),
        };
        prop_assert!(
            right,
            "{} {:?} has the limits {:?}: {:?}",
            id,
            config,
            limits,
            device.refused
        );
    }
    Ok(())
}

/// Runs the machine with threads.
fn on_threads(machine: Machine, options: &RunOptions) -> Result<Report, RunError> {
    run(machine, options, &mut |_| {})
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_machines_deliver_every_message_in_simulation(drawn in machines(8)) {
        check(&drawn, 12, Migration::Never, simulate)?;
    }
}

proptest! {
    // Each machine is saved and restored dozens of times, which makes a test case about thirty
    // times slower.
    #![proptest_config(ProptestConfig {
        cases: 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    #[ignore = "slow: `cargo xtask test --long` runs it"]
    fn random_machines_deliver_every_message_during_migration(drawn in machines(8)) {
        check(&drawn, 6, Migration::AtRandom { seed: drawn.seed }, simulate)?;
    }

    #[test]
    #[ignore = "slow: `cargo xtask test --long` runs it"]
    fn random_machines_deliver_every_message_on_threads(drawn in machines(4)) {
        check(&drawn, 400, Migration::Never, on_threads)?;
    }

    #[test]
    #[ignore = "slow: `cargo xtask test --long` runs it"]
    fn random_machines_deliver_every_message_on_threads_during_migration(drawn in machines(4)) {
        check(&drawn, 80, Migration::AtRandom { seed: drawn.seed }, on_threads)?;
    }
}
