mod out_of_memory;

use super::*;
use crate::cpu_interface::SplitEoi;
use crate::v2m::{V2m, V2mFrame};
use crate::{
    Coherence, Gic, GicConfig, GicCpuInterface, GicPlatform, Mmio, Table, TableLayout, Wait,
};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use core::ops::Range;
use doorbell_test_support::Outside;
use gic_arch::gicc::Iar;
use gic_arch::{RegisterInfo, SgiId, v2m};
use msi_types::{
    BlockRequest, Fit, HwIrq, Initially, MsiError, MsiMessage, MsiParent, Pending, RequesterId,
    Rewrite, Shape, Trigger, WiredParent,
};
use std::collections::BTreeMap;
use std::sync::Mutex;

extern crate std;

const DISTRIBUTOR: u64 = 0x800_0000;
const INTERFACE: u64 = 0x801_0000;
const FRAME: u64 = 0x802_0000;
/// Interfaces are numbered otherwise than CPUs.
const INTERFACE_OF: [usize; 3] = [2, 0, 1];

/// A GICv2 whose registers below SPI 32 are banked.
#[derive(Clone, Debug)]
struct Board(Arc<Mutex<BoardState>>);

#[derive(Debug)]
struct BoardState {
    cpu: u32,
    pidr2: u32,
    /// The read-only targets of a CPU's own interrupts are there.
    has_targets: bool,
    cpu_number: u8,
    id_bits_minus_one: u8,
    distributor: BTreeMap<u32, u32>,
    banked: [BTreeMap<u32, u32>; 3],
    interfaces: [Interface; 3],
    sgis: Vec<Sgir>,
}

#[derive(Clone, Debug, Default)]
struct Interface {
    registers: BTreeMap<u32, u32>,
    pending: Vec<Iar>,
    running: Vec<Iar>,
    deactivated: Vec<Iar>,
    /// An acknowledgement was read, and later loads are not ordered after it yet.
    unordered: bool,
    /// It is a GICv1's: `EOImode` is RAZ/WI.
    no_eoi_mode: bool,
}

impl Board {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(BoardState {
            cpu: 0,
            pidr2: 0x2b,
            has_targets: true,
            cpu_number: 2,
            id_bits_minus_one: 0,
            distributor: BTreeMap::new(),
            banked: Default::default(),
            interfaces: Default::default(),
            sgis: Vec::new(),
        })))
    }

    fn state<R>(&self, f: impl FnOnce(&mut BoardState) -> R) -> R {
        let _outside = Outside::new();
        f(&mut self.0.lock().unwrap())
    }

    fn run_on(&self, cpu: u32) {
        self.state(|state| state.cpu = cpu);
    }

    fn gic(&self) -> Result<Arc<GicV2<Self>>, GicError> {
        GicV2::new(self.clone(), GicV2Config::new(DISTRIBUTOR, INTERFACE, 3), self.cpu())
            .map(Arc::new)
    }

    fn running(&self) -> Arc<GicV2<Self>> {
        let gic = self.gic().unwrap();
        for cpu in [0, 1] {
            self.run_on(cpu);
            gic.cpu_on(Cpu::new(cpu)).unwrap();
        }
        self.run_on(0);
        gic
    }

    /// A bit of an array of one bit for each interrupt, at the CPU that executes.
    fn bit(&self, array: gic_arch::IntIdField, intid: u32) -> bool {
        self.state(|state| state.read(array.offset() + intid / 32 * 4)) & 1 << (intid % 32) != 0
    }
}

fn in_array(offset: u32, info: RegisterInfo) -> Option<u32> {
    info.index_of(offset)
}

impl BoardState {
    fn words(&mut self, offset: u32) -> &mut BTreeMap<u32, u32> {
        if in_array(offset, gicd::SPENDSGIR.info("")).is_some() {
            return &mut self.banked[self.cpu as usize];
        }
        let own =
            [(gicd::IGROUPR, 32), (gicd::IPRIORITYR, 4), (gicd::ITARGETSR, 4), (gicd::ICFGR, 16)];
        let sets = [gicd::ISENABLER, gicd::ISPENDR, gicd::ISACTIVER].map(|array| (array, 32));
        let banked = own.into_iter().chain(sets).any(|(array, fields)| {
            in_array(offset, array.info("")).is_some_and(|register| register < 32 / fields)
        });
        if banked { &mut self.banked[self.cpu as usize] } else { &mut self.distributor }
    }

    fn read(&mut self, offset: u32) -> u32 {
        let own_targets =
            in_array(offset, gicd::ITARGETSR.info("")).is_some_and(|register| register < 8);
        if own_targets {
            let bit = 1u8 << INTERFACE_OF[self.cpu as usize];
            return if self.has_targets { u32::from_ne_bytes([bit; 4]) } else { 0 };
        }
        match offset {
            _ if offset == gicd::GICV2_PIDR2.offset() && self.id_bits_minus_one != 0 => {
                panic!("a reserved register of a GICv3 is read: an external abort (38539)")
            }
            _ if offset == gicd::GICV2_PIDR2.offset() => self.pidr2,
            _ if offset == gicd::TYPER.offset() => {
                let typer = Typer::new().with_it_lines_number(3).with_cpu_number(self.cpu_number);
                typer.with_id_bits_minus_one(self.id_bits_minus_one).into()
            }
            _ if offset >= 0x1000 => panic!("an external abort at GICD + {offset:#x}"),
            _ => self.words(offset).get(&offset).copied().unwrap_or(0),
        }
    }

    fn write(&mut self, offset: u32, value: u32) {
        for (set, clear) in [
            (gicd::ISENABLER, gicd::ICENABLER),
            (gicd::ISPENDR, gicd::ICPENDR),
            (gicd::ISACTIVER, gicd::ICACTIVER),
        ] {
            if let Some(register) = in_array(offset, set.info("")) {
                *self.words(offset).entry(set.offset() + register * 4).or_default() |= value;
                return;
            }
            if let Some(register) = in_array(offset, clear.info("")) {
                let set = set.offset() + register * 4;
                *self.words(set).entry(set).or_default() &= !value;
                return;
            }
        }
        assert!(
            !(0xd00..0xf00).contains(&offset),
            "GICD + {offset:#x} is another register on a GICv2"
        );
        assert!(offset < 0x1000, "an external abort at GICD + {offset:#x}");
        if in_array(offset, gicd::SPENDSGIR.info("")).is_some() {
            *self.words(offset).entry(offset).or_default() |= value;
        } else if let Some(register) = in_array(offset, gicd::CPENDSGIR.info("")) {
            let set = gicd::SPENDSGIR.info("").offset + register * 4;
            *self.words(set).entry(set).or_default() &= !value;
        } else if offset == gicd::SGIR.offset() {
            self.sgis.push(Sgir::from(value));
        } else {
            self.words(offset).insert(offset, value);
        }
    }

    fn write_byte(&mut self, offset: u32, value: u8) {
        let word = offset & !3;
        let mut bytes = self.read(word).to_le_bytes();
        bytes[(offset & 3) as usize] = value;
        self.words(word).insert(word, u32::from_le_bytes(bytes));
    }
}

impl Interface {
    fn read(&mut self, offset: u32) -> u32 {
        match offset {
            _ if offset == gicc::IAR.offset() => match self.pending.pop() {
                Some(taken) => {
                    self.running.push(taken);
                    self.unordered = true;
                    taken.into()
                }
                None => 1023,
            },
            // Every interrupt has the priority that the driver gives all of them.
            _ if offset == gicc::RPR.offset() => {
                if self.running.is_empty() {
                    0xff
                } else {
                    0xa0
                }
            }
            _ if offset == gicc::HPPIR.offset() => {
                self.pending.last().map_or(1023, |next| (*next).into())
            }
            _ => self.registers.get(&offset).copied().unwrap_or(0),
        }
    }

    fn splits(&self) -> bool {
        let control = self.registers.get(&gicc::CTLR.offset()).copied().unwrap_or(0);
        gicc::Ctlr::from(control).eoi_mode_s()
    }

    fn write(&mut self, offset: u32, value: u32) {
        if offset == gicc::EOIR.offset() {
            assert_eq!(
                self.running.pop().map(u32::from),
                Some(value),
                "what IAR gave, sender and all"
            );
            if !self.splits() {
                self.deactivated.push(Iar::from(value));
            }
        } else if offset == gicc::DIR.offset() {
            assert!(self.splits(), "DIR is written though EOIR deactivates");
            self.deactivated.push(Iar::from(value));
        } else if offset == gicc::CTLR.offset() && self.no_eoi_mode {
            self.registers.insert(offset, gicc::Ctlr::from(value).with_eoi_mode_s(false).into());
        } else {
            self.registers.insert(offset, value);
        }
    }
}

#[derive(Clone, Debug)]
struct BoardFrame(Board, u64, u64);

impl Mmio for BoardFrame {
    fn read32(&self, offset: u32) -> u32 {
        self.check_mapped(offset);
        self.0.state(|state| match self.1 {
            DISTRIBUTOR => state.read(offset),
            INTERFACE => state.interfaces[state.cpu as usize].read(offset),
            _ if offset == v2m::TYPER.offset() => {
                v2m::Typer::new().with_first(64).with_count(16).into()
            }
            _ => 0,
        })
    }
    fn write32(&self, offset: u32, value: u32) {
        self.check_mapped(offset);
        self.0.state(|state| match self.1 {
            DISTRIBUTOR => state.write(offset, value),
            _ => state.interfaces[state.cpu as usize].write(offset, value),
        });
    }
    fn read64(&self, offset: u32) -> u64 {
        panic!("64-bit read at {offset:#x}")
    }
    fn write64(&self, offset: u32, _: u64) {
        panic!("64-bit write at {offset:#x}")
    }
    fn write8(&self, offset: u32, value: u8) {
        assert_eq!(self.1, DISTRIBUTOR);
        self.0.state(|state| state.write_byte(offset, value));
    }
    fn read_barrier(&self) {
        self.0.state(|state| state.interfaces[state.cpu as usize].unordered = false);
    }
}

impl BoardFrame {
    fn check_mapped(&self, offset: u32) {
        assert!(u64::from(offset) < self.2, "{offset:#x} is not mapped");
    }
}

impl Platform for Board {
    type Mmio = BoardFrame;
    type IrqState = ();

    fn map(&self, region: PhysicalRegion) -> Option<BoardFrame> {
        let sizes: &[u64] = match region.base {
            INTERFACE => &[0x1000, 0x2000],
            // Sizes that a GICv3's driver maps.
            DISTRIBUTOR => &[0x1000, 0x1_0000],
            _ => &[0x1000],
        };
        assert!(sizes.contains(&region.bytes), "a GICv2's frames have 4 KiB");
        let PhysicalRegion { base, bytes } = region;
        [DISTRIBUTOR, INTERFACE, FRAME]
            .contains(&base)
            .then(|| BoardFrame(self.clone(), base, bytes))
    }
    fn irq_save(&self) {}
    fn irq_restore(&self, (): ()) {}
    fn wait(&self, _: u32) -> Wait {
        Wait::GiveUp
    }
}

impl GicPlatform for Board {
    fn allocate_table(&self, _: TableLayout) -> Option<Table> {
        panic!("there are no tables")
    }
    fn release_table(&self, _: Table) {}
    fn store8(&self, _: &Table, _: u64, _: u8) {}
    fn store64(&self, _: &Table, _: u64, _: u64) {}
    fn load8(&self, _: &Table, _: u64) -> u8 {
        0
    }
    fn publish(&self, _: &Table, _: Range<u64>, _: Coherence) {}
    fn cpu(&self) -> Cpu {
        Cpu::new(self.state(|state| state.cpu))
    }
}

fn hwirq(number: u32) -> HwIrq {
    HwIrq::new(number)
}

fn target(board: &Board, intid: u32) -> u8 {
    let word = board.state(|state| state.read(gicd::ITARGETSR.offset() + (intid & !3)));
    word.to_le_bytes()[(intid & 3) as usize]
}

#[test]
fn what_is_no_gicv2_is_refused() {
    let board = Board::new();
    board.state(|state| state.pidr2 = 0x3b);
    assert!(matches!(board.gic(), Err(GicError::WrongRevision { .. })));
}

#[test]
fn a_gicv3_is_refused_by_its_typer() {
    let board = Board::new();
    board.state(|state| state.id_bits_minus_one = 9);
    assert!(matches!(board.gic(), Err(GicError::OtherVersion { .. })));
}

#[test]
fn gicv3_driver_refuses_a_gicv2() {
    let board = Board::new();
    let config = GicConfig {
        distributor_bytes: Some(0x1_0000),
        ..GicConfig::new(DISTRIBUTOR, vec![], vec![gic_arch::Affinity::default()])
    };
    let refused = Gic::new(Arc::new(board), config).unwrap_err();
    let block = Block::Distributor(DISTRIBUTOR);
    assert_eq!(refused, GicError::OtherVersion { block, found: "GICv2" });
}

#[test]
fn spis_go_to_the_boot_cpu_disabled_in_group_0() {
    let board = Board::new();
    board.state(|state| {
        state.distributor.insert(gicd::ISENABLER.offset() + 4, u32::MAX);
        state.distributor.insert(gicd::IGROUPR.offset() + 8, u32::MAX);
    });
    board.gic().unwrap();
    for intid in [32, 63, 64, 127] {
        assert_eq!(target(&board, intid), 1 << INTERFACE_OF[0], "{intid}");
        assert!(!board.bit(gicd::ISENABLER, intid) && !board.bit(gicd::IGROUPR, intid));
    }
    assert_eq!(board.state(|state| state.read(gicd::CTLR.offset())), 1);
}

#[test]
fn cpu_on_enables_sgis_and_keeps_bypass() {
    let board = Board::new();
    let bypass = gicc::Ctlr::new().with_irq_byp_dis_grp0(true).with_fiq_en(true);
    board.state(|state| state.interfaces[0].registers.insert(gicc::CTLR.offset(), bypass.into()));
    let gic = board.running();
    assert!((0..16).all(|sgi| board.bit(gicd::ISENABLER, sgi)));
    assert!((16..32).all(|ppi| !board.bit(gicd::ISENABLER, ppi)));
    board.state(|state| {
        let interface = &mut state.interfaces[0];
        assert_eq!(
            (interface.read(gicc::PMR.offset()), interface.read(gicc::CTLR.offset())),
            (0xf0, 0x41)
        );
    });
    assert_eq!([0, 1, 2].map(|cpu| gic.is_on(Cpu::new(cpu))), [true, true, false]);
    gic.cpu_off(Cpu::new(0)).unwrap();
    assert_eq!(board.state(|state| state.interfaces[0].read(gicc::CTLR.offset())), 0x40);
    assert!(!gic.is_on(Cpu::new(0)));
}

#[test]
fn cpu_without_number_must_be_the_only_one() {
    let board = Board::new();
    board.state(|state| state.has_targets = false);
    assert_eq!(board.gic().unwrap_err(), GicError::NoTarget(Cpu::new(0)));
    board.state(|state| state.cpu_number = 0);
    let gic = board.gic().unwrap();
    gic.cpu_on(Cpu::new(0)).unwrap();
    assert!(gic.is_on(Cpu::new(0)));
}

#[test]
fn more_than_eight_cpus_are_refused() {
    let board = Board::new();
    let config = |cpus| GicV2Config::new(DISTRIBUTOR, INTERFACE, cpus);
    let new = |cpus| GicV2::new(&board, config(cpus), Cpu::new(0));
    assert!(new(9).is_err() && new(0).is_err() && new(8).is_ok());
    assert_eq!(new(3).unwrap().cpu_on(Cpu::new(3)), Err(GicError::UnknownCpu(Cpu::new(3))));
}

#[test]
fn an_sgi_names_interfaces_and_not_cpus() {
    let board = Board::new();
    let gic = board.running();
    gic.send(SgiId::new(3).unwrap(), Cpu::new(1)).unwrap();
    gic.send_to_others(SgiId::new(5).unwrap());
    assert_eq!(
        gic.send(SgiId::new(3).unwrap(), Cpu::new(2)),
        Err(GicError::UnknownCpu(Cpu::new(2))),
        "it is off"
    );
    let sent =
        board.state(|state| state.sgis.iter().map(|sgi| u32::from(*sgi)).collect::<Vec<_>>());
    assert_eq!(sent, [(1 << INTERFACE_OF[1]) << 16 | 3, 1 << 24 | 5]);
}

#[test]
fn end_writes_the_acknowledged_value() {
    let board = Board::new();
    let gic = board.running();
    let interface = gic.cpu_interface();
    let sgi = Iar::new().with_intid(3).with_cpu_id(2);
    board.state(|state| state.interfaces[0].pending = vec![Iar::new().with_intid(40), sgi]);
    assert_eq!(interface.highest_pending(), Some(IntId::new(3)));
    let first = interface.acknowledge().unwrap();
    assert_eq!((first.intid(), first.sender()), (IntId::new(3), 2));
    let second = interface.acknowledge().unwrap();
    interface.end(second);
    interface.end(first);
    assert!(interface.acknowledge().is_none() && interface.highest_pending().is_none());
    assert!(board.state(|state| state.interfaces[0].running.is_empty()));
}

#[test]
fn handler_loads_follow_the_acknowledgement() {
    let board = Board::new();
    let gic = board.running();
    board.state(|state| state.interfaces[0].pending.push(Iar::new().with_intid(3).with_cpu_id(1)));
    let taken = gic.cpu_interface().acknowledge().unwrap();
    assert!(!board.state(|state| state.interfaces[0].unordered));
    gic.cpu_interface().end(taken);
}

fn gic_of_8_kib(board: &Board) -> GicV2<&Board> {
    let config =
        GicV2Config { cpu_interface_bytes: 0x2000, ..GicV2Config::new(DISTRIBUTOR, INTERFACE, 3) };
    GicV2::new(board, config, Cpu::new(0)).unwrap()
}

#[test]
fn ending_and_deactivating_can_be_split() {
    let board = Board::new();
    let gic = gic_of_8_kib(&board);
    gic.cpu_on_with::<SplitEoi>(Cpu::new(0)).unwrap();
    let interface = gic.cpu_interface_with::<SplitEoi>();
    let sgi = Iar::new().with_intid(3).with_cpu_id(2);
    board.state(|state| state.interfaces[0].pending.push(sgi));
    let active = interface.end(interface.acknowledge().unwrap());
    assert_eq!(active.intid(), IntId::new(3));
    assert!(board.state(|state| state.interfaces[0].deactivated.is_empty()));
    interface.deactivate(active);
    // The sender's number among it.
    assert_eq!(board.state(|state| state.interfaces[0].deactivated.clone()), [sgi]);
}

#[test]
fn split_end_needs_dir_and_eoi_mode() {
    let board = Board::new();
    let small = board.gic().unwrap();
    let refused = small.cpu_on_with::<SplitEoi>(Cpu::new(0));
    assert!(matches!(refused, Err(GicError::NoSplitEnd(_))));
    board.state(|state| state.interfaces[0].no_eoi_mode = true);
    let gic = gic_of_8_kib(&board);
    assert!(matches!(gic.cpu_on_with::<SplitEoi>(Cpu::new(0)), Err(GicError::NoSplitEnd(_))));
    assert!(!gic.is_on(Cpu::new(0)));
    assert_eq!(gic.cpu_on(Cpu::new(0)), Ok(()));
}

/// Everything but the identity is lost.
fn lose_power(board: &Board) {
    board.state(|state| {
        state.distributor.clear();
        state.banked = Default::default();
        state.interfaces = Default::default();
    });
}

#[test]
fn a_gic_that_lost_power_comes_back_as_it_was() {
    let board = Board::new();
    let gic = gic_of_8_kib(&board);
    gic.cpu_on_with::<SplitEoi>(Cpu::new(0)).unwrap();
    board.run_on(1);
    gic.cpu_on(Cpu::new(1)).unwrap();
    board.run_on(0);
    gic.set_trigger(hwirq(40), Trigger::Edge).unwrap();
    gic.set_target(hwirq(40), Cpu::new(1)).unwrap();
    gic.unmask(hwirq(40));
    gic.set_pending(hwirq(41), Pending::Set);
    gic.unmask(hwirq(27));
    gic.interrupt(IntId::new(27)).unwrap().set_priority(Priority::new(0x40));
    gic.cpu_interface().set_mask(Priority::new(0x80));
    board.state(|state| state.write(gicd::SPENDSGIR.get(1).unwrap().offset(), 0x0200));
    let before = board.state(|state| (state.distributor.clone(), state.banked[0].clone()));

    board.run_on(1);
    gic.cpu_off(Cpu::new(1)).unwrap();
    board.run_on(0);
    let saved = gic.suspend(Cpu::new(0)).unwrap();
    assert_eq!(board.state(|state| state.read(gicd::CTLR.offset())), 0);
    assert!(!gic.is_on(Cpu::new(0)));
    lose_power(&board);
    gic.resume(&saved);

    let nonzero = |words: &BTreeMap<u32, u32>| -> Vec<_> {
        words.iter().filter(|(_, value)| **value != 0).map(|(at, value)| (*at, *value)).collect()
    };
    let after = board.state(|state| (state.distributor.clone(), state.banked[0].clone()));
    assert_eq!(nonzero(&after.0), nonzero(&before.0));
    assert_eq!(nonzero(&after.1), nonzero(&before.1));
    assert!(gic.is_on(Cpu::new(0)) && !gic.is_on(Cpu::new(1)));
    board.state(|state| {
        let interface = &mut state.interfaces[0];
        assert!(interface.splits() && interface.read(gicc::CTLR.offset()) & 1 != 0);
        assert_eq!(interface.read(gicc::PMR.offset()), 0x80);
    });
    assert_eq!(gic.suspend(Cpu::new(1)).unwrap_err(), GicError::UnknownCpu(Cpu::new(1)));
}

#[test]
fn running_priority_is_the_active_interrupts() {
    let board = Board::new();
    let gic = board.running();
    let interface = gic.cpu_interface();
    assert_eq!(interface.running_priority(), Priority::IDLE);
    board.state(|state| state.interfaces[0].pending.push(Iar::new().with_intid(40)));
    let taken = interface.acknowledge().unwrap();
    assert_eq!(interface.running_priority(), Priority::new(0xa0));
    interface.end(taken);
    assert_eq!(interface.running_priority(), Priority::IDLE);
}

#[test]
fn the_mask_is_what_was_set() {
    let board = Board::new();
    let gic = board.running();
    let interface = gic.cpu_interface();
    assert_eq!(interface.mask(), Priority::new(0xf0));
    interface.set_mask(Priority::new(0x80));
    assert_eq!(interface.mask(), Priority::new(0x80));
}

#[test]
fn a_private_vector_is_the_calling_cpus_own() {
    let board = Board::new();
    let gic = board.running();
    board.run_on(1);
    gic.unmask(hwirq(27));
    gic.set_pending(hwirq(27), Pending::Set);
    assert!(gic.is_pending(hwirq(27)));
    board.run_on(0);
    assert!(!gic.is_pending(hwirq(27)) && !board.bit(gicd::ISENABLER, 27));
    assert!(matches!(gic.set_target(hwirq(27), Cpu::new(1)), Err(MsiError::NotReachable(..))));
}

#[test]
fn an_spi_is_claimed_configured_and_released() {
    let board = Board::new();
    let gic = board.running();
    let two = NonZeroU16::new(2).unwrap();
    gic.claim(hwirq(40), two).unwrap();
    assert_eq!(gic.claim(hwirq(41), two), Err(MsiError::UnknownVector(hwirq(41))));
    assert!(gic.claim(hwirq(127), two).is_err(), "128 is not there");
    gic.set_trigger(hwirq(40), Trigger::Edge).unwrap();
    gic.set_target(hwirq(40), Cpu::new(1)).unwrap();
    assert_eq!(
        (target(&board, 40), target(&board, 41)),
        (1 << INTERFACE_OF[1], 1 << INTERFACE_OF[0])
    );
    assert!(matches!(gic.set_target(hwirq(40), Cpu::new(2)), Err(MsiError::NotReachable(..))));
    gic.unmask(hwirq(40));
    assert!(gic.set_trigger(hwirq(40), Trigger::Level).is_err(), "it is enabled");
    gic.set_pending(hwirq(40), Pending::Set);
    gic.release(hwirq(40), two);
    assert!(!board.bit(gicd::ISENABLER, 40) && !gic.is_pending(hwirq(40)));
    assert_eq!(gic.claim(hwirq(40), two), Ok(()));
}

#[test]
fn frames_of_messages_stand_on_it() {
    let board = Board::new();
    let gic = board.running();
    let v2m = V2m::new(Arc::new(board.clone()), gic.clone(), &[V2mFrame::new(FRAME)]).unwrap();
    let device = v2m.attach(RequesterId::new(1), 4).unwrap();
    let fit = Fit { address_bits: 32, data_bits: 16, rewrite: Rewrite::Never };
    let count = NonZeroU16::new(4).unwrap();
    let request = BlockRequest {
        count,
        shape: Shape::AlignedGroup,
        fit,
        cpu: Cpu::new(1),
        initially: Initially::Unmasked,
    };
    let block = v2m.allocate(&device, &request).unwrap();
    assert_eq!(v2m.compose(&block, 0), Ok(MsiMessage { address: FRAME + 0x40, data: 64 }));
    assert!((64..68).all(|intid| board.bit(gicd::ISENABLER, intid)));
    let edge = board.state(|state| state.read(gicd::ICFGR.offset() + 16));
    assert_eq!(edge, 0b1010_1010);
    let moved = v2m.begin_move(&block, 1, Cpu::new(0)).unwrap();
    assert_eq!(moved.message, None);
    assert_eq!(
        (target(&board, 64), target(&board, 65)),
        (1 << INTERFACE_OF[1], 1 << INTERFACE_OF[0])
    );
}

/// A trap loop that knows neither the architecture nor the mode.
fn take(interface: &impl GicCpuInterface) -> Option<IntId> {
    let interrupt = interface.acknowledge()?;
    let intid = interrupt.intid();
    interface.deactivate(interface.end(interrupt));
    Some(intid)
}

#[test]
fn one_trap_loop_deactivates_once_in_either_mode() {
    let board = Board::new();
    let gic = gic_of_8_kib(&board);
    gic.cpu_on(Cpu::new(0)).unwrap();
    let sgi = Iar::new().with_intid(3).with_cpu_id(2);
    let raise = || board.state(|state| state.interfaces[0].pending.push(sgi));
    raise();
    assert_eq!(take(&gic.cpu_interface()), Some(IntId::new(3)));
    gic.cpu_on_with::<SplitEoi>(Cpu::new(0)).unwrap();
    raise();
    assert_eq!(take(&gic.cpu_interface_with::<SplitEoi>()), Some(IntId::new(3)));
    assert_eq!(take(&gic.cpu_interface_with::<SplitEoi>()), None);
    assert_eq!(
        board.state(|state| state.interfaces[0].deactivated.clone()),
        [sgi, sgi],
        "sender and all"
    );
}
