//! Machines whose MSI controllers are inside their host bridges.

use crate::board_trees::{bare, flashed, host, region};
use crate::{assert_delivered, deliver_with};
use doorbell_hardware::pci::StoreConfig;
use doorbell_machine::{
    BuildOptions, ChosenDevices, ChosenFunction, ControllerChoice, Disturbance, FunctionPlacement,
    Population, RunOptions, build, run, simulate,
};
use gic_arch::IntId;
use gic_firmware::{
    ConfigAccess, Controller, ControllerIndex, ControllerKind, Description, Fact, MsiRouting,
    WiredInterrupt,
};
use msi_types::Trigger;
use msi_types::pci::MsiGate;

const IMX8MM: &str = "fsl,imx8mm-pcie";
const IMX8MP: &str = "fsl,imx8mp-pcie";
const MEDIATEK: &str = "mediatek,mt8192-pcie";
const RCAR: &str = "renesas,rcar-gen4-pcie";

/// Returns a board with one host bridge, whose controller raises these INTIDs.
fn board(name: &str, lines: &[u32]) -> Description {
    board_with(name, lines, Trigger::Level)
}

fn board_with(name: &str, lines: &[u32], trigger: Trigger) -> Description {
    let mut board = bare(4, 0);
    let mut bridge = host(0, MsiRouting::default());
    let registers = region(0x3000_0000, 0x1000);
    let (kind, config) = match name {
        MEDIATEK => (ControllerKind::MediatekGen3, registers),
        _ => (ControllerKind::ImsiRx, region(0x3f00_0000, 0x1000)),
    };
    let gate = match name {
        IMX8MM => Some(MsiGate::RootPort),
        RCAR => Some(MsiGate::Register { address: 0x3100_0510, bits: 1 << 26 }),
        _ => None,
    };
    bridge.compatible = vec![name.to_owned()];
    bridge.config = Some(Fact::stated(ConfigAccess::Registers(config)));
    bridge.own_controller = Some(ControllerIndex::new(0));
    let line = |intid: &u32| WiredInterrupt { intid: IntId::new(*intid), trigger };
    board.controllers = vec![Controller {
        lines: lines.iter().map(line).map(Fact::stated).collect(),
        has_shared_line: name == RCAR,
        gate: gate.map(Fact::stated),
        ..Controller::new(bridge.id.clone(), kind, Some(registers))
    }];
    board.hosts = vec![bridge];
    flashed(&board)
}

fn boards() -> [Description; 8] {
    [
        board(IMX8MP, &[172]),
        board(IMX8MM, &[40, 41, 42]),
        // An extended SPI, and one above those of a small machine.
        board(IMX8MP, &[900, 901, 902, 903, 904, 905, 906, 4100]),
        board(MEDIATEK, &[823]),
        board(RCAR, &[448]),
        // As firmware of the SDM845 describes a line that is a level.
        board_with(IMX8MP, &[339], Trigger::Edge),
        board_with(MEDIATEK, &[823], Trigger::Edge),
        board_with(RCAR, &[448], Trigger::Edge),
    ]
}

/// Without a shared line, a line carries only the 32 vectors of a status register.
#[test]
fn a_shared_line_carries_all_vectors_of_a_bridge() {
    let store = StoreConfig::Msix { vectors: 200, table_bar: 0, pba_bar: 2 };
    let functions = vec![ChosenFunction { place: FunctionPlacement::Root, store }];
    let population = Population::Chosen(ChosenDevices { functions, devices: Vec::new() });
    let options = BuildOptions { population, ..BuildOptions::default() };
    for (name, vectors) in [(RCAR, 200), (IMX8MP, 32)] {
        for trigger in [Trigger::Level, Trigger::Edge] {
            let report = deliver_with(&board_with(name, &[448], trigger), &options, 30);
            assert!(report.totals.is_delivered(), "{:?}", report.totals);
            assert_eq!((report.totals.vectors, report.totals.delivered > 0), (vectors, true));
        }
    }
}

#[test]
fn a_bridge_delivers_its_functions_messages() {
    for board in boards() {
        let report = deliver_with(&board, &BuildOptions::default(), 30);
        assert_delivered(&report, 30);
        assert!(report.controllers.iter().all(|one| one.driven && !one.isolates));
        assert!(report.devices.iter().all(|device| device.isolation.mechanism().is_err()));
    }
}

#[test]
fn bridge_msi_can_be_chosen_as_the_controller() {
    let [board, ..] = boards();
    let chosen =
        |controller| build(&board, &BuildOptions { controller, ..BuildOptions::default() });
    chosen(ControllerChoice::BridgeMsi).unwrap();
    chosen(ControllerChoice::Its).unwrap_err();
}

#[test]
fn a_machine_whose_only_bridge_has_no_interrupt_lines_is_refused() {
    let lineless = board(IMX8MP, &[]);
    let refusal = build(&lineless, &BuildOptions::default()).unwrap_err();
    assert!(refusal.to_string().contains("imsi-rx"), "{refusal}");
}

#[test]
fn bridge_lines_lose_no_message_across_moves_and_suspensions() {
    let disturbances = vec![Disturbance::Moves, Disturbance::CpuHotplug, Disturbance::Suspensions];
    let mut suspended = 0;
    let boards = boards();
    for (board, seed) in boards.iter().cycle().zip(0..16) {
        let options = RunOptions { messages: 200, seed, disturbances: disturbances.clone() };
        let machine = || build(board, &BuildOptions::default()).unwrap();
        let on_threads = run(machine(), &options, &mut |_| {}).unwrap();
        for report in [on_threads, simulate(machine(), &options).unwrap()] {
            let totals = report.totals;
            assert!(totals.is_clean(), "{totals:?}");
            assert_eq!(totals.sent, totals.vectors * 200);
            suspended += totals.suspended;
        }
    }
    assert!(suspended > 0, "the machines stay awake");
}
