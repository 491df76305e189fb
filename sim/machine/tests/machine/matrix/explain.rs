//! Changes of one register of a board on which an endpoint's messages arrive. The explanation must
//! name what was changed. `docs/no-interrupt.md` states the score.

use super::board::TrialBoard;
use super::cell::{BoardConfig, Endpoint, Layer, Parent, World};
use super::device::ECAM;
use super::gic::{BRIDGE, BRIDGE_SPI};
use super::trial::Trial;
use crate::board_trees::{DISTRIBUTOR, REDISTRIBUTORS};
use doorbell_hardware::bridge_msi::BridgeMsiKind;
use doorbell_hardware::bus::AccessWidth;
use doorbell_machine::Migration;
use doorbell_test_support::{Score, other_values};
use gic_arch::icc::{self, SysRegEncoding};
use gic_arch::{IntId, gicd, gicr};
use msi_types::HwIrq;
use msi_types::pci::{msi, msix};
use std::mem::ManuallyDrop;

/// Words that name a part in an explanation. The first is the part's own name.
type Words = &'static [&'static str];

/// A register of the board.
#[derive(Clone, Copy)]
enum Place {
    Bus(u64, AccessWidth),
    System(SysRegEncoding),
}

impl Place {
    fn bits(self) -> u32 {
        match self {
            Self::Bus(_, width) => 8 * width.bytes(),
            Self::System(_) => 32,
        }
    }

    fn read(self, board: &TrialBoard) -> u64 {
        match self {
            Self::Bus(address, width) => board.bus().read(address, width),
            Self::System(register) => board.system(register, None),
        }
    }

    fn write(self, board: &TrialBoard, value: u64) {
        match self {
            Self::Bus(address, width) => board.bus().write(address, width, value),
            Self::System(register) => _ = board.system(register, Some(value)),
        }
    }
}

fn at(base: u64, offset: u32, width: AccessWidth) -> Place {
    Place::Bus(base + u64::from(offset), width)
}

/// Returns the registers of the CPU and of the GIC that a message passes as this interrupt.
fn places_of_gic(parent: Parent, hwirq: HwIrq) -> Vec<(Place, Words)> {
    use AccessWidth::{Double, Word};
    let mut places: Vec<(Place, Words)> = vec![
        (at(DISTRIBUTOR, gicd::CTLR.offset(), Word), &["GICD_CTLR"]),
        (at(REDISTRIBUTORS, gicr::WAKER.offset(), Word), &["GICR_WAKER"]),
        (Place::System(icc::PMR.encoding()), &["ICC_PMR_EL1"]),
        (Place::System(icc::IGRPEN1.encoding()), &["ICC_IGRPEN1_EL1"]),
    ];
    let intid = match parent {
        Parent::Bridge(kind) => {
            places.extend(places_of_bridge(kind));
            IntId::new(BRIDGE_SPI)
        }
        _ => IntId::new(hwirq.get()),
    };
    if matches!(parent, Parent::Its | Parent::DirectLpi) {
        places.extend([
            (at(REDISTRIBUTORS, gicr::CTLR.offset(), Word), ["GICR_CTLR"].as_slice()),
            (at(REDISTRIBUTORS, gicr::PROPBASER.offset(), Double), &["GICR_PROPBASER"]),
            (at(REDISTRIBUTORS, gicr::PENDBASER.offset(), Double), &["GICR_PENDBASER"]),
        ]);
        return places;
    }
    for (register, words) in [
        (gicd::IGROUPR.locate(intid), ["GICD_IGROUPR"].as_slice()),
        (gicd::ICENABLER.locate(intid), &["GICD_ISENABLER"]),
        (gicd::IPRIORITYR.locate(intid), &["GICD_IPRIORITYR", "priority 0x"]),
        (gicd::ICFGR.locate(intid), &["GICD_ICFGR"]),
    ] {
        places.push((at(DISTRIBUTOR, register.unwrap().register().offset(), Word), words));
    }
    let route = gicd::irouter(intid).unwrap().offset();
    places.push((at(DISTRIBUTOR, route, Double), &["routed to", "target: CPU", "GICD_IROUTER"]));
    places
}

/// Returns the registers of the first block of a controller inside a host bridge.
fn places_of_bridge(kind: BridgeMsiKind) -> Vec<(Place, Words)> {
    let all: &[(u32, Words)] = match kind {
        BridgeMsiKind::ImsiRx => &[
            (0x820, &["MSI_CTRL_ADDR"]),
            (0x824, &["MSI_CTRL_UPPER_ADDR"]),
            (0x828, &["MSI_CTRL_INT_<n>_EN"]),
            (0x82c, &["MSI_CTRL_INT_<n>_MASK"]),
        ],
        BridgeMsiKind::MediatekGen3 => &[
            (0xc00, &["PCIE_MSI_SET<n>_BASE"]),
            (0xc80, &["PCIE_MSI_SET<n>_ADDR_HI"]),
            (0xc08, &["PCIE_MSI_SET<n>_ENABLE"]),
            (0x180, &["PCIE_INT_ENABLE"]),
            (0x190, &["PCIE_MSI_SET_ENABLE"]),
        ],
    };
    all.iter().map(|(offset, words)| (at(BRIDGE, *offset, AccessWidth::Word), *words)).collect()
}

/// Returns the registers of an endpoint's first vector.
fn places_of(endpoint: Endpoint, board: &TrialBoard) -> Vec<(Place, Words)> {
    use AccessWidth::{Byte, Half, Word};
    const STORED: Words = &["its driver stored", "data"];
    if !endpoint.is_pci() {
        return Vec::new();
    }
    let config = ECAM + (u64::from(endpoint.requester().get()) << 12);
    let mut places: Vec<(Place, Words)> =
        vec![(at(config, 4, Half), &["Command register", "does not respond"])];
    let read = |offset: u64, width| board.bus().read(config + offset, width);
    let mut capability = read(0x34, Byte);
    while ![msi::CAPABILITY_ID, msix::CAPABILITY_ID]
        .map(u64::from)
        .contains(&read(capability, Byte))
    {
        capability = read(capability + 1, Byte);
    }
    let table = read(0x10, Word) & !0xf;
    let capability = config + capability;
    places.push((at(capability, 2, Half), &["Message Control", "is masked", "MSI is disabled"]));
    if endpoint == Endpoint::PciMsix {
        for register in [msix::ENTRY_ADDRESS_LOW, msix::ENTRY_ADDRESS_HIGH, msix::ENTRY_DATA] {
            places.push((Place::Bus(table + register, Word), STORED));
        }
        places.push((Place::Bus(table + msix::ENTRY_CONTROL, Word), &["is masked"]));
        return places;
    }
    places.extend(
        [(4, Word), (8, Word), (12, Half)]
            .map(|(offset, width)| (at(capability, offset, width), STORED)),
    );
    if endpoint == Endpoint::PciMultiMsi {
        places.push((at(capability, 16, Word), &["is masked"]));
    }
    places
}

/// Signals a vector twice. Returns the explanation of the second signal, and `true` if the handler
/// runs once for it.
fn signal(board: &TrialBoard, trial: &Trial<'_>) -> (String, bool) {
    let handle = trial.handle(0);
    let (mut text, mut arrives) = (String::new(), false);
    for _ in 0..2 {
        let before = handle.count();
        trial.signal(0);
        text = board.explain(handle.irq()).to_string();
        arrives = board.take_some() && handle.count() == before + 1;
    }
    (text, arrives)
}

/// A place, the words that name it, and another value for it.
type Change = (Place, Words, u64);

/// Lists the changes of the GIC for one endpoint, and of each endpoint for one controller.
fn changes(
    parent: Parent,
    endpoint: Endpoint,
    board: &TrialBoard,
    trial: &Trial<'_>,
) -> Vec<Change> {
    let mut places = Vec::new();
    if endpoint == Endpoint::PciMsix {
        places.extend(places_of_gic(parent, trial.handle(0).hwirq()));
    }
    if parent == Parent::DirectLpi {
        places.extend(places_of(endpoint, board));
    }
    let others = |(place, words): (Place, Words)| {
        let values = other_values(place.read(board), place.bits());
        values.into_iter().map(move |value| (place, words, value))
    };
    places.into_iter().flat_map(others).collect()
}

/// Makes all changes of a scene. A board serves as long as its interrupt arrives.
fn judge(parent: Parent, endpoint: Endpoint, score: &mut Score) {
    let config = BoardConfig::new(parent, Layer::None, World::BareMetal, Migration::Never);
    let mut left: Option<std::vec::IntoIter<Change>> = None;
    loop {
        let board = ManuallyDrop::new(TrialBoard::new(config).unwrap());
        let trial = Trial::begin(&board, endpoint).unwrap();
        let (working, arrives) = signal(&board, &trial);
        assert!(arrives && working.contains("no obstacle was found"), "{config:?}: {working}");
        let left =
            left.get_or_insert_with(|| changes(parent, endpoint, &board, &trial).into_iter());
        loop {
            let Some((place, words, value)) = left.next() else { return };
            let before = place.read(&board);
            place.write(&board, value);
            let (text, arrives) = signal(&board, &trial);
            if !arrives {
                score.add_fault(words, [&working, &text]);
                // The drivers would wait for a broken controller.
                std::mem::forget(trial);
                break;
            }
            score.add_harmless();
            place.write(&board, before);
            if place.read(&board) != before || !signal(&board, &trial).1 {
                break;
            }
        }
    }
}

#[test]
fn explanations_name_each_changed_register_of_a_board() {
    let mut score = Score::new("each controller and endpoint");
    let bridges = [BridgeMsiKind::ImsiRx, BridgeMsiKind::MediatekGen3].map(Parent::Bridge);
    let parents = [Parent::Its, Parent::DirectLpi, Parent::Mbi, Parent::V2m];
    for parent in parents.into_iter().chain(bridges) {
        for endpoint in [Endpoint::PciMsi, Endpoint::PciMultiMsi, Endpoint::PciMsix] {
            judge(parent, endpoint, &mut score);
        }
    }
    score.check();
}
