//! Devices that cannot store their controller's messages must be denied vectors and told the
//! reason, while all other devices must work.

use crate::board_trees::{self, flashed, region};
use crate::{assert_refusals_are_counted, everything, moving};
use doorbell_hardware::pci::{AddressWidth, StoreConfig};
use doorbell_hardware::platform_device::{DataWidth, PlatformDeviceConfig};
use doorbell_machine::{
    BuildOptions, ChosenDevices, ChosenFunction, DeviceReport, FunctionPlacement, LpiNumbers,
    Population, Report, VectorReport, build, simulate,
};
use gic_firmware::{ControllerIndex, ControllerKind, Description, Fact, MsiRouting};
use msi_types::{Cpu, Masking, Trigger};

const FOUR_GIB: u64 = 1 << 32;
/// The board's PCI functions. They are discovered before the platform devices, in this order.
const FUNCTIONS: [StoreConfig; 3] = [
    StoreConfig::Msi {
        log2_vectors: 2,
        address: AddressWidth::Bits32,
        masking: Masking::PerVector,
    },
    StoreConfig::Msi {
        log2_vectors: 2,
        address: AddressWidth::Bits64,
        masking: Masking::PerVector,
    },
    StoreConfig::Msix { vectors: 4, table_bar: 0, pba_bar: 2 },
];
const DEVICES: [PlatformDeviceConfig; 3] = [
    PlatformDeviceConfig { address: AddressWidth::Bits32, ..PlatformDeviceConfig::new(2) },
    PlatformDeviceConfig { data: DataWidth::Bits16, ..PlatformDeviceConfig::new(2) },
    PlatformDeviceConfig::new(2),
];

/// Returns a board with direct LPIs, whose redistributor regions have these base addresses and CPU
/// counts.
fn direct(redistributors: &[(u64, u8)]) -> Description {
    let cpus = redistributors.iter().map(|(_, cpus)| cpus).sum();
    let mut board = board_trees::bare(cpus, 0);
    board.controllers.push(board_trees::controller(ControllerKind::DirectLpi, 0, 0));
    let regions =
        redistributors.iter().map(|(base, cpus)| region(*base, u64::from(*cpus) * 0x2_0000));
    board.gic.as_mut().unwrap().redistributors = regions.map(Fact::stated).collect();
    inhabited(board)
}

/// Adds a host bridge and three platform devices, all connected to the only controller.
fn inhabited(mut board: Description) -> Description {
    let routing = || MsiRouting::parent(ControllerIndex::new(0));
    board.hosts = vec![board_trees::host(0, routing())];
    let places = [0x0b00_0000, 0x0b01_0000, 0x0b02_0000];
    board.devices = places.map(|at| board_trees::device(at, routing())).into();
    flashed(&board)
}

fn report(board: &Description, devices: [PlatformDeviceConfig; 3], lpis: LpiNumbers) -> Report {
    let functions =
        FUNCTIONS.map(|store| ChosenFunction { place: FunctionPlacement::Root, store }).into();
    let population = Population::Chosen(ChosenDevices { functions, devices: devices.into() });
    let built = BuildOptions { population, lpis, ..BuildOptions::default() };
    let [_, report] = [built.clone(), moving(&built)].map(|built| {
        let report = simulate(build(board, &built).unwrap(), &everything(1, 12)).unwrap();
        assert!(report.totals.is_delivered(), "{:?}", report.totals);
        assert_refusals_are_counted(&report);
        assert_eq!(report.totals.sent, report.totals.vectors * 12);
        report
    });
    assert!(report.totals.migrated > 0);
    report
}

/// Each of the six devices is refused, for this reason, or works.
#[test]
fn endpoints_that_cannot_hold_messages_are_refused() {
    let level = PlatformDeviceConfig { trigger: Trigger::Level, ..PlatformDeviceConfig::new(2) };
    let with_level = [DEVICES[0], level, DEVICES[2]];
    let (near, far) = (&[(0x0900_0000, 4)], &[(FOUR_GIB, 4)]);
    for (redistributors, devices, lpis, refused, why) in [
        (far, DEVICES, LpiNumbers::Short, "x..x..", "requires 64 address bits"),
        (near, DEVICES, LpiNumbers::Long, "xx..x.", "needs more than the 16 data bits"),
        (near, with_level, LpiNumbers::Short, "....x.", "no level-triggered messages"),
    ] {
        let report = report(&direct(redistributors), devices, lpis);
        let reasons: Vec<_> =
            report.devices.iter().map(|it| it.refused.as_deref().unwrap_or(".")).collect();
        let found = reasons.iter().map(|it| if it.contains(why) { "x" } else { it });
        assert_eq!(found.collect::<String>(), refused);
        let vectors = report.devices.iter().flat_map(|device| &device.vectors);
        let is_long = |vectors: &VectorReport| vectors.hwirq.get() > 0xffff;
        assert_eq!(vectors.into_iter().all(is_long), lpis == LpiNumbers::Long);
    }
}

#[test]
fn a_32_bit_endpoint_stays_on_reachable_cpus() {
    let report = report(&direct(&[(0x0900_0000, 2), (FOUR_GIB, 2)]), DEVICES, LpiNumbers::Short);
    assert!(report.devices.iter().all(|device| device.refused.is_none()));
    let runs = |device: &DeviceReport, cpu: Cpu| -> u64 {
        device.vectors.iter().map(|vector| vector.per_cpu[cpu.index()]).sum()
    };
    let beyond = |device: &DeviceReport| runs(device, Cpu::new(2)) + runs(device, Cpu::new(3));
    let ran_beyond: Vec<_> = report.devices.iter().map(|device| beyond(device) != 0).collect();
    assert_eq!(ran_beyond, [false, true, true, false, true, true]);
}
