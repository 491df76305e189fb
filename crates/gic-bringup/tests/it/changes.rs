//! Changes of one register of a machine whose drivers run, or of the state of a driver. The
//! explanation must name what was changed. `docs/no-interrupt.md` states the score.

use crate::machine::{CPU0, CPU1, ITS};
use crate::setup::{SPI, Setup};
use doorbell_hardware::bus::AccessWidth;
use doorbell_test_support::{Score, other_values};
use gic_arch::icc::{self, SysRegEncoding};
use gic_arch::{IntId, Lpi, SgiId, gicd, gicr, gits};
use gic_bringup::MsiController;
use gic_driver::SystemRegisters;
use msi_types::pci::msix;
use msi_types::{HwIrq, Level, Line, Trigger};

const DISTRIBUTOR: u64 = 0x0800_0000;
/// Configuration space of the function.
const CONFIG: u64 = 0x3f00_0000 + (3 << 15);
const SGI: u8 = 1;

/// Words that name a part in an explanation. The first is the part's own name.
type Words = &'static [&'static str];

/// The interrupt whose handler counts.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Vector,
    Spi,
    Sgi,
}

/// A register of the machine.
#[derive(Clone, Copy)]
enum Place {
    Bus(u64, AccessWidth),
    System(SysRegEncoding),
}

impl Place {
    fn bits(self) -> u32 {
        match self {
            Self::Bus(_, AccessWidth::Half) => 16,
            Self::Bus(_, AccessWidth::Double) => 64,
            Self::Bus(..) | Self::System(_) => 32,
        }
    }

    fn read(self, setup: &Setup) -> u64 {
        match self {
            Self::Bus(address, width) => setup.machine.bus().read(address, width),
            Self::System(register) => setup.on(CPU0, |own| own.read_raw(register)),
        }
    }

    fn write(self, setup: &Setup, value: u64) {
        match self {
            Self::Bus(address, width) => setup.machine.bus().write(address, width, value),
            Self::System(register) => setup.on(CPU0, |own| own.write_raw(register, value)),
        }
    }
}

/// Returns the registers through which an interrupt passes.
fn places(kind: Kind, setup: &Setup) -> Vec<(Place, Words)> {
    use AccessWidth::{Double, Half, Word};
    let description = setup.machine.description();
    let frame = description.gic.as_ref().unwrap().redistributors[0].value.base();
    let bus = |base: u64, offset: u32, width| Place::Bus(base + u64::from(offset), width);
    let mut places: Vec<(Place, Words)> = vec![
        (bus(DISTRIBUTOR, gicd::CTLR.offset(), Word), &["GICD_CTLR"]),
        (bus(frame, gicr::WAKER.offset(), Word), &["GICR_WAKER"]),
        (Place::System(icc::PMR.encoding()), &["ICC_PMR_EL1"]),
        (Place::System(icc::BPR1.encoding()), &["ICC_BPR<n>_EL1"]),
        (Place::System(icc::CTLR.encoding()), &["ICC_CTLR_EL1"]),
        (Place::System(icc::IGRPEN1.encoding()), &["ICC_IGRPEN1_EL1"]),
    ];
    if kind == Kind::Vector {
        places.extend([
            (bus(frame, gicr::CTLR.offset(), Word), ["GICR_CTLR"].as_slice()),
            (bus(frame, gicr::PROPBASER.offset(), Double), &["GICR_PROPBASER"]),
            (bus(frame, gicr::PENDBASER.offset(), Double), &["GICR_PENDBASER"]),
            (bus(ITS, gits::CTLR.offset(), Word), &["GITS_CTLR"]),
            (bus(ITS, gits::CBASER.offset(), Double), &["GITS_CBASER"]),
            (bus(ITS, gits::CWRITER.offset(), Double), &["GITS_CWRITER"]),
            (bus(ITS, gits::BASER.get(0).unwrap().offset(), Double), &["GITS_BASER0"]),
            (bus(ITS, gits::BASER.get(1).unwrap().offset(), Double), &["GITS_BASER1"]),
            (bus(CONFIG, 4, Half), &["Command register", "does not respond"]),
            (bus(CONFIG, setup.msix_control().into(), Half), &["Message Control", "is masked"]),
        ]);
        for register in [msix::ENTRY_ADDRESS_LOW, msix::ENTRY_ADDRESS_HIGH, msix::ENTRY_DATA] {
            places.push((Place::Bus(setup.entry(register), Word), &["its driver stored"]));
        }
        places.push((Place::Bus(setup.entry(msix::ENTRY_CONTROL), Word), &["is masked"]));
        return places;
    }
    let (index, base, intid) =
        if kind == Kind::Spi { (0, DISTRIBUTOR, SPI) } else { (1, frame, SGI.into()) };
    let intid = IntId::new(intid);
    for (fields, words) in [
        ([gicd::IGROUPR, gicr::IGROUPR], ["GICD_IGROUPR"].as_slice()),
        ([gicd::ICENABLER, gicr::ICENABLER], &["GICD_ISENABLER"]),
        ([gicd::IPRIORITYR, gicr::IPRIORITYR], &["GICD_IPRIORITYR", "priority 0x"]),
        ([gicd::ICFGR, gicr::ICFGR], &["GICD_ICFGR"]),
    ] {
        let register = fields[index].locate(intid).unwrap().register();
        places.push((bus(base, register.offset(), Word), words));
    }
    if kind == Kind::Spi {
        let route = gicd::irouter(intid).unwrap().offset();
        places.push((bus(base, route, Double), &["routed to", "target: CPU"]));
    }
    places
}

type Act = (fn(&Setup), Words);

/// Changes of the state of drivers and of the device.
const ACTS: [Act; 5] = [
    (|setup| setup.handle.disable(), &["the driver has disabled the interrupt"]),
    (|setup| setup.function().unplug(), &["does not respond"]),
    (|setup| setup.function().reset(), &["which a reset clears"]),
    (mask_lpi, &["is disabled"]),
    (turn_off, &["CPU 0 is offline"]),
];

fn mask_lpi(setup: &Setup) {
    let lpi = Lpi::try_from(setup.handle.hwirq().get()).unwrap();
    let (_, controller) = setup.chip.controllers().next().unwrap();
    let MsiController::Its(its) = controller else { panic!("{controller:?}") };
    its.mask(lpi).unwrap();
}

fn turn_off(setup: &Setup) {
    let gic = setup.chip.gic().v3().unwrap();
    setup.on(CPU0, |own| gic.cpu_off(CPU0, own)).unwrap();
}

/// Changes a machine, and signals an interrupt twice. Returns the explanation of the second signal,
/// and `true` if the handler runs for it.
fn run(kind: Kind, change: impl FnOnce(&Setup)) -> (String, bool) {
    let setup = Setup::new();
    let (sgi, interrupts) = (HwIrq::new(SGI.into()), setup.chip.interrupts());
    let line = setup.line(Trigger::Edge);
    let ipi = interrupts.request_per_cpu(sgi, Trigger::Edge, "ipi", |_| {}).unwrap();
    setup.machine.execute(CPU0, |_| ipi.enable_here());
    change(&setup);
    let signal = || match kind {
        Kind::Vector => drop(setup.function().signal(1)),
        Kind::Spi => {
            setup.machine.set_line(Line::Spi(SPI), Level::High);
            setup.machine.set_line(Line::Spi(SPI), Level::Low);
        }
        Kind::Sgi => {
            let sgi = SgiId::new(SGI).unwrap();
            setup.on(CPU0, |own| setup.chip.send_ipi(sgi, &[CPU0], own)).unwrap();
        }
    };
    let settle = || {
        for cpu in [CPU0, CPU1].into_iter().filter(|cpu| setup.machine.wants(*cpu)) {
            setup.machine.execute(cpu, |own| setup.chip.handle_irq(cpu, own, |_, _| {}));
        }
    };
    let (irq, count): (_, &dyn Fn() -> u64) = match kind {
        Kind::Vector => (setup.handle.irq(), &|| setup.handle.count()),
        Kind::Spi => (line.irq(), &|| line.count()),
        Kind::Sgi => (ipi.irq(), &|| ipi.count()),
    };
    signal();
    settle();
    let before = count();
    signal();
    let text = setup.explain_on(CPU0, irq).to_string();
    settle();
    let arrives = count() > before;
    // The drivers must not wait for a broken ITS when they are dropped.
    setup.machine.block_its();
    (text, arrives)
}

#[test]
fn explain_names_each_changed_register_or_driver_state() {
    let mut score = Score::new("a kernel with the drivers");
    for kind in [Kind::Vector, Kind::Spi, Kind::Sgi] {
        let (working, arrives) = run(kind, |_| {});
        assert!(arrives && working.contains("no obstacle was found"), "{working}");
        let mut add = |words, change: &dyn Fn(&Setup)| match run(kind, change) {
            (_, true) => score.add_harmless(),
            (text, false) => score.add_fault(words, [&working, &text]),
        };
        let setup = Setup::new();
        for (place, words) in places(kind, &setup) {
            for value in other_values(place.read(&setup), place.bits()) {
                add(words, &|setup| place.write(setup, value));
            }
        }
        for (act, words) in ACTS.into_iter().filter(|_| kind == Kind::Vector) {
            add(words, &act);
        }
    }
    score.check();
}
