//! Tests for virtual interrupts linked to physical ones. A physical interrupt must be active from
//! the time the hypervisor takes it until the guest has deactivated the virtual one, and must be
//! inactive at all other times.

use super::entered::{Entered, enter};
use doorbell_test_support::guest::{Hardware, Machine};
use gic_arch::ich::ListRegisterState;
use gic_arch::ich::ListRegisterState::{Invalid, Pending};
use gic_arch::{IntId, gicd};
use msi_types::{Cpu, Level, Line, LineObserver, SetLine};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use vgic::{LinkError, ListRegisterVcpu, PhysicalInterrupts, VgicConfig};

const SPI: u32 = 40;
const PHYSICAL: u32 = 77;

/// Physical distributor, which knows the inputs that are high and the active interrupts.
#[derive(Default)]
struct Distributor {
    high: Mutex<BTreeSet<u32>>,
    active: Mutex<BTreeSet<u32>>,
    /// Number of times that the model sampled the level of an input.
    asked: AtomicUsize,
}

impl Distributor {
    fn is_active(&self) -> bool {
        self.active.lock().unwrap().contains(&PHYSICAL)
    }

    fn set(&self, level: Level) {
        let mut high = self.high.lock().unwrap();
        if level == Level::High {
            high.insert(PHYSICAL)
        } else {
            high.remove(&PHYSICAL)
        };
    }

    fn end(&self, physical: u32) {
        assert!(self.active.lock().unwrap().remove(&physical), "{physical} is not active");
    }
}

impl PhysicalInterrupts for Distributor {
    fn level(&self, line: Line, physical: IntId) -> Level {
        assert_eq!(line, Line::Spi(SPI));
        self.asked.fetch_add(1, SeqCst);
        let is_high = self.high.lock().unwrap().contains(&physical.get());
        if is_high { Level::High } else { Level::Low }
    }

    fn deactivate(&self, line: Line, physical: IntId) {
        assert_eq!(line, Line::Spi(SPI));
        self.end(physical.get());
    }
}

/// Panics, because the model must not report deactivations of linked interrupts to the observer.
impl LineObserver for Distributor {
    fn deactivated(&self, line: Line) {
        panic!("{line:?} is linked");
    }
}

struct Board {
    machine: Machine,
    distributor: Arc<Distributor>,
}

/// Creates a guest with two vCPUs whose SPI 40 is linked to a physical interrupt.
fn board() -> Board {
    let machine = Machine::running(VgicConfig::new(2));
    for spi in SPI..SPI + 4 {
        machine.enable_spi(spi);
    }
    let distributor = Arc::new(Distributor::default());
    machine.gic.serve_physical(distributor.clone()).unwrap();
    machine.gic.link(Line::Spi(SPI), IntId::new(PHYSICAL)).unwrap();
    Board { machine, distributor }
}

impl Board {
    /// Raises the input as the device does, and takes the physical interrupt as the hypervisor
    /// does.
    fn fire(&self) {
        self.distributor.set(Level::High);
        assert!(self.distributor.active.lock().unwrap().insert(PHYSICAL), "already active");
        self.machine.raise(SPI);
    }

    fn is_pending(&self) -> bool {
        self.machine.read_gicd(gicd::ISPENDR.registers().get(1).unwrap()) >> 8 & 1 != 0
    }

    /// Exits, after forwarding the hardware's deactivations to the physical distributor.
    fn exit(&self, inside: Entered, hardware: &mut Hardware) -> ListRegisterVcpu {
        self.deactivate(hardware);
        inside.exit(&hardware.registers)
    }

    fn deactivate(&self, hardware: &mut Hardware) {
        hardware.deactivated.drain(..).for_each(|physical| self.distributor.end(physical));
    }
}

/// Returns the states and physical INTIDs of the interrupts in list registers.
fn listed(hardware: &Hardware) -> Vec<(ListRegisterState, Option<u16>)> {
    let used = hardware.registers.list.iter().filter(|it| it.state() != Invalid);
    used.map(|it| (it.state(), it.hw().then_some(it.physical_intid()))).collect()
}

const LISTED: (ListRegisterState, Option<u16>) = (Pending, Some(77));

#[test]
fn a_pending_linked_level_is_reread_at_ispendr_and_entry() {
    let mut board = board();
    let (inside, mut hardware) = enter(board.machine.list_register_vcpu());
    let vcpu = board.exit(inside, &mut hardware);
    assert!(!board.is_pending());
    assert_eq!(board.distributor.asked.swap(0, SeqCst), 0, "an edge is not held by its input");
    board.fire();
    assert!(board.is_pending());
    let (_inside, hardware) = enter(vcpu);
    assert_eq!(listed(&hardware), [LISTED]);
    assert_eq!(board.distributor.asked.load(SeqCst), 2);
}

#[test]
fn a_reset_deactivates_and_keeps_the_link() {
    let mut board = board();
    board.fire();
    board.machine.gic.reset();
    assert!(!board.distributor.is_active());
    board.machine.start();
    board.machine.enable_spi(SPI);
    assert!(!board.is_pending());
    board.fire();
    assert_eq!(listed(&enter(board.machine.list_register_vcpu()).1), [LISTED]);
}

#[test]
fn is_physical_active_is_true_until_the_linked_interrupt_ends() {
    let mut board = board();
    let gic = board.machine.gic.clone();
    let is_active = || gic.is_physical_active(Line::Spi(SPI));
    assert!(!is_active());
    board.fire();
    assert!(is_active(), "pending");
    let (inside, mut hardware) = enter(board.machine.list_register_vcpu());
    assert_eq!(hardware.acknowledge(1), SPI);
    let vcpu = board.exit(inside, &mut hardware);
    assert!(is_active(), "active");
    let (inside, mut hardware) = enter(vcpu);
    hardware.end(1, SPI);
    let _vcpu = board.exit(inside, &mut hardware);
    assert!(!is_active(), "ended");
    assert!(!gic.is_physical_active(Line::Spi(4000)), "the line must not exist");
}

#[test]
fn deactivating_a_relinked_spi_deactivates_both_physical_interrupts() {
    let mut board = board();
    board.fire();
    let vcpu = board.machine.list_register_vcpu();
    let (inside, mut hardware) = enter(vcpu);
    assert_eq!(hardware.acknowledge(1), SPI);

    board.machine.gic.link(Line::Spi(SPI), IntId::new(PHYSICAL + 1)).unwrap();
    board.distributor.active.lock().unwrap().insert(PHYSICAL + 1);
    board.machine.gic.set_line(Line::Spi(SPI), Level::High);
    board.machine.set_bit(gicd::ICACTIVER, SPI);
    let _vcpu = board.exit(inside, &mut hardware);

    assert!(board.distributor.active.lock().unwrap().is_empty());
}

#[test]
fn an_invalid_link_is_refused() {
    let machine = Machine::running(VgicConfig::new(1));
    let link = |line, physical| machine.gic.link(line, IntId::new(physical));
    assert_eq!(link(Line::Spi(SPI), 77), Err(LinkError::NotServed));
    machine.gic.serve_physical(Arc::new(Distributor::default())).unwrap();
    assert!(machine.gic.serve_physical(Arc::new(Distributor::default())).is_err());
    for physical in [7, 1020, 1023, 8192] {
        let refused = Err(LinkError::NotPhysical(IntId::new(physical)));
        assert_eq!(link(Line::Spi(SPI), physical), refused);
    }
    for line in [Line::Spi(27), Line::Spi(1020), Line::Ppi { cpu: Cpu::new(0), intid: 3 }] {
        assert_eq!(link(line, 77), Err(LinkError::NoSuchLine(line)));
    }
    assert_eq!(link(Line::Spi(SPI), 5119), Ok(()));
}

#[test]
fn dropping_a_vcpu_in_its_guest_retargets_its_interrupt() {
    let mut machine = Machine::running(VgicConfig::new(2).with_one_of_n(true));
    machine.make_edge(SPI);
    machine.enable_spi(SPI);
    machine.route_to_any(SPI);
    machine.gic.pulse(Line::Spi(SPI));
    let (inside, hardware) = enter(machine.list_register_vcpu());
    assert_eq!(listed(&hardware), [(Pending, None)]);
    let rwp = |machine: &Machine| {
        let control = u32::try_from(machine.read_gicd(gicd::CTLR)).unwrap();
        gicd::Ctlr::from(control).rwp()
    };
    machine.set_bit(gicd::ICENABLER, SPI);
    machine.enable_spi(SPI);
    assert!(rwp(&machine));

    drop(inside);

    assert!(!rwp(&machine), "no write must wait for a dropped vCPU");
    assert_eq!(machine.acknowledge(0), u64::from(SPI), "the other vCPU must take the interrupt");
}
