//! A machine with several ITSes and redistributors, as the drivers' platform.

use super::interleaving;
use super::interpreter::{Hardware, Interpreter};
use super::memory::Memory;
use super::redistributor::{ConfigTable, Redistributor};
use doorbell_test_support::Outside;
use gic_arch::gits::{self, Baser, Cbaser, Ctlr, Cwriter};
use gic_arch::icc::SysRegEncoding;
use gic_arch::{gicd, id};
use gic_driver::{
    Coherence, GicPlatform, Mmio, PhysicalRegion, Platform, SystemRegisters, Table, TableLayout,
    Wait,
};
use msi_types::{Cpu, IrqState, LocalCpu};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) const DISTRIBUTOR: u64 = 0x800_0000;
pub(crate) const ITS: u64 = 0x808_0000;
pub(crate) const ITS_STRIDE: u64 = 0x2_0000;
/// RD_base of CPU 0, and the distance to the next.
pub(crate) const REDISTRIBUTOR: u64 = 0x900_0000;
pub(crate) const REDISTRIBUTOR_STRIDE: u64 = 0x2_0000;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) its: Vec<Interpreter>,
    pub(crate) redistributors: Vec<Redistributor>,
    /// Allocations that still succeed.
    pub(crate) allowance: Option<u32>,
    /// Size in bytes of the largest allocation that succeeds.
    pub(crate) largest: u64,
    /// So many allocations from now, one lies this far from where it should.
    pub(crate) misplaced: Option<(u32, u64)>,
    /// Turns of one wait.
    pub(crate) patience: u32,
    /// Turns of all waits.
    pub(crate) turns: u32,
    /// Number of times that a task let others run.
    pub(crate) yields: u32,
    /// `GICD_TYPER.num_LPIs`.
    pub(crate) num_lpis: u8,
    /// `GICD_CTLR`.
    distributor: u32,
    config: Option<ConfigTable>,
    pending_its: Vec<Hardware>,
}

impl World {
    /// Receives a device's message. Returns the redistributor and the LPI that became pending.
    pub(crate) fn message(&mut self, its: usize, device: u32, event: u32) -> Option<(usize, u32)> {
        let (lpi, target) = self.its[its].translate(&mut self.memory, device, event)?;
        let at = self.redistributors.iter().position(|rd| rd.target == target).unwrap();
        self.redistributors[at].pending.insert(lpi);
        Some((at, lpi))
    }

    /// Everything that is pending or may become so without a new message.
    pub(crate) fn traces_of(&self, lpi: u32) -> usize {
        use super::redistributor::Effect;
        let pending = self.redistributors.iter().filter(|rd| rd.pending.contains(&lpi)).count();
        let deferred = self.its.iter().flat_map(|its| &its.deferred).filter(
            |(_, effect)| matches!(effect, Effect::Set(it) | Effect::MoveTo(it, _) if *it == lpi),
        );
        pending + deferred.count()
    }

    /// The first ITS hangs, or goes on.
    pub(crate) fn set_stuck(&mut self, stuck: bool) {
        self.its[0].set_stuck(stuck, &mut self.memory, &mut self.redistributors);
    }

    /// By how much the next allocation is misplaced.
    fn shift(&mut self) -> u64 {
        match self.misplaced {
            Some((0, shift)) => {
                self.misplaced = None;
                shift
            }
            Some((more, shift)) => {
                self.misplaced = Some((more - 1, shift));
                0
            }
            None => 0,
        }
    }

    /// A previous kernel left LPIs enabled at these CPUs, with tables that are reserved, all of
    /// them configured and the first 64 pending.
    pub(crate) fn leave_lpis(&mut self, cpus: &[usize]) {
        let table = |bytes| TableLayout::new(bytes, 0x1_0000);
        let config = self.memory.allocate(table(0x2000), 0);
        self.memory.store(config, &[0xa3; 0x2000]);
        self.memory.publish(config, 0..0x2000, Coherence::NonCoherent);
        for cpu in cpus {
            let pending = self.memory.allocate(table(0x800), 0);
            self.redistributors[*cpu].leave_enabled(config, pending, 8192..8256);
        }
        Board::learn_config_table(self, config, 0x2000);
    }

    fn post(&mut self, its: usize, value: Cwriter) {
        self.its[its].post(&mut self.memory, &mut self.redistributors, value);
    }
}

/// A handle to the world.
#[derive(Clone, Debug)]
pub(crate) struct Board(Arc<Mutex<World>>);

/// The world, whose memory is not the driver's.
#[derive(Debug)]
pub(crate) struct WorldGuard<'a> {
    world: MutexGuard<'a, World>,
    _outside: Outside,
}

impl Deref for WorldGuard<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for WorldGuard<'_> {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

type Handler = Box<dyn FnOnce()>;

thread_local! {
    static MASKED: Cell<usize> = const { Cell::new(0) };
    /// A handler that interrupts one of this thread's waits, after so many others.
    static HANDLER: RefCell<Option<(u32, Handler)>> = const { RefCell::new(None) };
    /// Called by this thread's allocations, without a lock of the board's.
    static ALLOCATING: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Has `handler` interrupt this thread in the turn number `turn` of its waits from now on.
pub(crate) fn interrupt_at(turn: u32, handler: impl FnOnce() + 'static) {
    HANDLER.set(Some((turn, Box::new(handler))));
}

/// Has this thread's next allocation call `f`.
pub(crate) fn while_allocating(f: impl FnOnce() + 'static) {
    ALLOCATING.set(Some(Box::new(f)));
}

impl Board {
    /// With these ITSes; redistributors are named as `GITS_TYPER.PTA` of the first one says.
    pub(crate) fn new(its: Vec<Hardware>, cpus: u32) -> Self {
        let by_address = its[0].typer.pta();
        let redistributors = (0..u64::from(cpus))
            .map(|cpu| {
                let address = REDISTRIBUTOR + cpu * REDISTRIBUTOR_STRIDE;
                Redistributor::new(if by_address { address >> 16 } else { cpu })
            })
            .collect();
        Self(Arc::new(Mutex::new(World {
            memory: Memory::new(),
            its: Vec::new(),
            redistributors,
            allowance: None,
            largest: u64::MAX,
            misplaced: None,
            patience: 40,
            turns: 0,
            yields: 0,
            num_lpis: 0,
            distributor: 0,
            config: None,
            pending_its: its,
        })))
    }

    pub(crate) fn world(&self) -> WorldGuard<'_> {
        // A driver that is dropped by a failed test goes on to the end.
        let world = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        WorldGuard { _outside: Outside::new(), world }
    }

    /// The first table is that of the LPIs' configuration; now the ITSes know it.
    fn learn_config_table(world: &mut World, address: u64, bytes: u64) {
        if world.config.is_none() {
            let config = ConfigTable { address, count: usize::try_from(bytes).unwrap() };
            world.config = Some(config);
            let pending = std::mem::take(&mut world.pending_its);
            world.its =
                pending.into_iter().map(|hardware| Interpreter::new(hardware, config)).collect();
        }
    }
}

fn must_be_task(what: &str) {
    assert_eq!(MASKED.get(), 0, "{what} with interrupts masked");
}

impl LocalCpu for Board {
    fn irq_save(&self) -> IrqState {
        interleaving::lock();
        if !interleaving::is_one_cpu() {
            return IrqState::new(0);
        }
        MASKED.set(MASKED.get() + 1);
        IrqState::new(MASKED.get() - 1)
    }

    fn irq_restore(&self, state: IrqState) {
        if !interleaving::is_one_cpu() {
            return;
        }
        MASKED.set(MASKED.get() - 1);
        assert_eq!(MASKED.get(), state.get(), "interrupt states are restored in reverse order");
    }

    fn relax(&self) {
        assert!(
            MASKED.get() != 0 || !interleaving::is_one_cpu(),
            "a task spins, and the thread that it waits for may never run"
        );
        interleaving::wait();
    }

    fn yield_now(&self) {
        must_be_task("yield_now");
        self.world().yields += 1;
        interleaving::wait();
    }
}

impl Platform for Board {
    type Mmio = BoardFrame;

    fn map(&self, region: PhysicalRegion) -> Option<BoardFrame> {
        must_be_task("map");
        let frame = |block| BoardFrame { board: self.clone(), block };
        if region.base == DISTRIBUTOR {
            return Some(frame(BoardBlock::Distributor));
        }
        if let Some(offset) = region.base.checked_sub(REDISTRIBUTOR) {
            let cpu = (offset / REDISTRIBUTOR_STRIDE) as usize;
            return (cpu < self.world().redistributors.len())
                .then(|| frame(BoardBlock::Redistributor(cpu)));
        }
        let its = (region.base.checked_sub(ITS)? / ITS_STRIDE) as usize;
        assert_eq!(region.bytes, 0x2_0000, "an ITS has two frames");
        (its < self.world().its.len()).then(|| frame(BoardBlock::Its(its)))
    }

    fn wait(&self, turn: u32) -> Wait {
        interleaving::wait();
        match HANDLER.take() {
            Some((0, handler)) => handler(),
            Some((more, handler)) => HANDLER.set(Some((more - 1, handler))),
            None => {}
        }
        let mut world = self.world();
        world.turns += 1;
        if turn >= world.patience { Wait::GiveUp } else { Wait::Again }
    }
}

impl GicPlatform for Board {
    fn allocate_table(&self, layout: TableLayout) -> Option<Table> {
        must_be_task("allocate_table");
        if let Some(interlude) = ALLOCATING.take() {
            interlude();
        }
        let mut world = self.world();
        if layout.bytes > world.largest {
            return None;
        }
        if let Some(allowance) = &mut world.allowance {
            *allowance = allowance.checked_sub(1)?;
        }
        let shift = world.shift();
        let address = world.memory.allocate(layout, shift);
        Self::learn_config_table(&mut world, address, layout.bytes);
        Some(Table::new(address, layout.bytes, 0))
    }

    fn release_table(&self, table: Table) {
        if std::thread::panicking() {
            return;
        }
        must_be_task("release_table");
        let mut world = self.world();
        let overlaps = |start: u64, bytes: u64| {
            start < table.address + table.bytes && table.address < start + bytes
        };
        for its in &world.its {
            for (device, (itt, bytes)) in &its.mapped {
                assert!(
                    !overlaps(*itt, *bytes),
                    "the table of device {device:#x} was given back while mapped"
                );
            }
            let registers = its.tables.iter().filter(|baser| baser.valid());
            for (start, bytes) in registers.map(|baser| (baser.address(), baser.bytes())) {
                assert!(
                    !overlaps(start, bytes),
                    "a table was given back while GITS_BASER names it"
                );
            }
        }
        world.memory.release(table.address);
    }

    fn adopt_table(&self, region: PhysicalRegion) -> Option<Table> {
        must_be_task("adopt_table");
        let bytes = self.world().memory.bytes_at(region.base)?;
        (bytes >= region.bytes).then_some(Table::new(region.base, bytes, 0))
    }

    fn store8(&self, table: &Table, offset: u64, value: u8) {
        assert!(offset < table.bytes);
        interleaving::access();
        self.world().memory.store(table.address + offset, &[value]);
    }

    fn store64(&self, table: &Table, offset: u64, value: u64) {
        assert!(offset.is_multiple_of(8) && offset < table.bytes);
        self.world().memory.store(table.address + offset, &value.to_le_bytes());
    }

    fn load8(&self, table: &Table, offset: u64) -> u8 {
        interleaving::access();
        self.world().memory.load(table.address + offset, 1)[0]
    }

    fn publish(&self, table: &Table, range: Range<u64>, coherence: Coherence) {
        assert!(range.start < range.end && range.end <= table.bytes, "publish of {range:?}");
        interleaving::access();
        self.world().memory.publish(table.address, range, coherence);
    }

    fn cpu(&self) -> Cpu {
        Cpu::new(0)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum BoardBlock {
    Distributor,
    Redistributor(usize),
    Its(usize),
}

/// A mapped frame.
#[derive(Clone, Debug)]
pub(crate) struct BoardFrame {
    pub(crate) board: Board,
    pub(crate) block: BoardBlock,
}

const CTLR: u32 = gits::CTLR.offset();
const TYPER: u32 = gits::TYPER.offset();
const IIDR: u32 = gits::IIDR.offset();
const PIDR2: u32 = id::PIDR2.offset();
const CBASER: u32 = gits::CBASER.offset();
const CWRITER: u32 = gits::CWRITER.offset();
const CREADR: u32 = gits::CREADR.offset();

impl Mmio for BoardFrame {
    fn read32(&self, offset: u32) -> u32 {
        interleaving::access();
        let mut world = self.board.world();
        match (self.block, offset) {
            (_, PIDR2) => 0x3b,
            (BoardBlock::Redistributor(cpu), offset) => {
                let World { redistributors, memory, .. } = &mut *world;
                redistributors[cpu].read(memory, offset)
            }
            (BoardBlock::Distributor, offset) if offset == gicd::CTLR.offset() => world.distributor,
            (BoardBlock::Its(its), CTLR) => world.its[its].control().into(),
            (BoardBlock::Its(its), IIDR) => world.its[its].hardware.iidr,
            (BoardBlock::Distributor, offset) if offset == gicd::TYPER.offset() => {
                let typer = gicd::Typer::new().with_lpis(true).with_id_bits_minus_one(15);
                typer.with_num_lpis(world.num_lpis).into()
            }
            _ => 0,
        }
    }

    fn write32(&self, offset: u32, value: u32) {
        interleaving::access();
        let mut world = self.board.world();
        match (self.block, offset) {
            (BoardBlock::Its(its), CTLR) => world.its[its].set_control(Ctlr::from(value)),
            (BoardBlock::Distributor, CTLR) => world.distributor = value,
            (BoardBlock::Redistributor(cpu), _) => world.redistributors[cpu].write(offset, value),
            _ => {}
        }
    }

    fn read64(&self, offset: u32) -> u64 {
        interleaving::access();
        let world = &mut *self.board.world();
        let its = match self.block {
            BoardBlock::Its(its) => its,
            BoardBlock::Redistributor(cpu) => {
                let last = cpu + 1 == world.redistributors.len();
                return world.redistributors[cpu].read64(offset, u16::try_from(cpu).unwrap(), last);
            }
            BoardBlock::Distributor => return 0,
        };
        match offset {
            TYPER => world.its[its].hardware.typer.into(),
            CBASER => world.its[its].queue.into(),
            CREADR => world.its[its].look(&mut world.memory, &mut world.redistributors).into(),
            0x100..0x140 => world.its[its].tables[(offset as usize - 0x100) / 8].into(),
            _ => panic!("read of {offset:#x}"),
        }
    }

    fn write64(&self, offset: u32, value: u64) {
        interleaving::access();
        let mut world = self.board.world();
        let its = match self.block {
            BoardBlock::Its(its) => its,
            BoardBlock::Redistributor(cpu) => {
                return world.redistributors[cpu].write64(offset, value);
            }
            BoardBlock::Distributor => return,
        };
        match offset {
            CBASER => world.its[its].set_queue(Cbaser::from(value)),
            CWRITER => world.post(its, Cwriter::from(value)),
            0x100..0x140 => {
                world.its[its].set_table((offset as usize - 0x100) / 8, Baser::from(value));
            }
            _ => panic!("write of {offset:#x}"),
        }
    }

    fn write8(&self, offset: u32, _: u8) {
        panic!("byte write at {offset:#x}");
    }
}

/// A CPU's system registers: what was written reads back.
#[derive(Debug, Default)]
pub(crate) struct CpuRegisters(RefCell<BTreeMap<u16, u64>>);

impl SystemRegisters for CpuRegisters {
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        self.0.borrow().get(&register.packed()).copied().unwrap_or(0)
    }

    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        self.0.borrow_mut().insert(register.packed(), value);
    }
}
