//! The services that the board provides to drivers, and checks of the context in which drivers use
//! them.

use super::{Board, DISTRIBUTOR, ITS, ITS_STRIDE, MIP, REDISTRIBUTOR};
use crate::fake::registers::{BoardBlock, BoardFrame};
use crate::fake::virtual_execution::FakeVpe;
use crate::interleaving;
use gic_arch::v2m;
use gic_driver::{
    Coherence, GicPlatform, Observed, PhysicalRegion, Platform, Table, TableLayout, Wait,
};
use msi_types::{Cpu, IrqState, LocalCpu};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::thread;

type Handler = Box<dyn FnOnce()>;

thread_local! {
    static MASKED: Cell<usize> = const { Cell::new(0) };
    static CPU: Cell<u32> = const { Cell::new(0) };
    /// Handler that will interrupt one of this thread's waits, and the number of turns until then.
    static HANDLER: RefCell<Option<(u32, Handler)>> = const { RefCell::new(None) };
    /// Closure that this thread's next table allocation calls, without holding the board's locks.
    static ALLOCATING: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Makes the calling thread execute on this CPU from now on.
pub(crate) fn run_on(cpu: u32) {
    CPU.set(cpu);
}

/// Runs `handler` as an interrupt handler at turn number `turn` of this thread's future waits.
pub(crate) fn interrupt_at(turn: u32, handler: impl FnOnce() + 'static) {
    HANDLER.set(Some((turn, Box::new(handler))));
}

/// Makes this thread's next table allocation call `f`.
pub(crate) fn while_allocating(f: impl FnOnce() + 'static) {
    ALLOCATING.set(Some(Box::new(f)));
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
        self.note_thread();
        MASKED.set(MASKED.get() + 1);
        IrqState::new(MASKED.get() - 1)
    }

    fn irq_restore(&self, state: IrqState) {
        if !interleaving::is_one_cpu() {
            return;
        }
        MASKED.set(MASKED.get() - 1);
        assert_eq!(MASKED.get(), state.get(), "interrupt states must be restored in reverse order");
    }

    fn relax(&self) {
        self.check_shared();
        assert!(
            MASKED.get() != 0 || !interleaving::is_one_cpu(),
            "a task spins, so the thread that it waits for may never run"
        );
        interleaving::wait();
    }

    fn yield_now(&self) {
        must_be_task("yield_now");
        self.check_shared();
        self.world().yields += 1;
        interleaving::wait();
    }
}

impl Platform for Board {
    type Mmio = BoardFrame;

    fn map(&self, region: PhysicalRegion) -> Option<BoardFrame> {
        must_be_task("map");
        let PhysicalRegion { base, bytes } = region;
        let world = self.world();
        let block = match base {
            _ if world.unmapped.contains(&base) => return None,
            DISTRIBUTOR => BoardBlock::Distributor,
            MIP => BoardBlock::Mip,
            _ if world.v2m.contains_key(&base) => {
                assert_eq!(bytes, v2m::FRAME_SIZE);
                BoardBlock::V2m(base)
            }
            ITS..REDISTRIBUTOR if (base - ITS).is_multiple_of(ITS_STRIDE) => {
                assert_eq!(bytes, 0x2_0000, "an ITS has two frames");
                let its = usize::try_from((base - ITS) / ITS_STRIDE).unwrap();
                (its < world.its.len()).then_some(BoardBlock::Its(its))?
            }
            REDISTRIBUTOR.. => world.redistributor_block(region)?,
            _ => panic!("no device exists at {base:#x}"),
        };
        Some(BoardFrame { board: self.clone(), block })
    }

    fn wait(&self, turn: u32) -> Wait {
        assert_eq!(MASKED.get(), 0, "the driver waits for hardware with interrupts masked");
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
        self.note_thread();
        if let Some(interlude) = ALLOCATING.take() {
            interlude();
        }
        let address = self.world().memory.allocate(layout)?;
        Some(Table::new(address, layout.bytes, 0))
    }

    fn release_table(&self, table: Table) {
        if thread::panicking() {
            return;
        }
        must_be_task("release_table");
        let mut world = self.world();
        for its in &world.its {
            its.check_unused(&table);
        }
        let mut used = world.memory.vpes.iter().flat_map(FakeVpe::tables);
        let is_used = used.any(|used| (table.address..table.address + table.bytes).contains(&used));
        assert!(!is_used, "a table of a mapped vPE was released");
        world.memory.release(table.address);
    }

    fn adopt_table(&self, region: PhysicalRegion) -> Option<Table> {
        must_be_task("adopt_table");
        self.world().memory.adopt(region)
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

    fn observe(&self, table: &Table, range: Range<u64>, coherence: Coherence) -> Observed {
        must_be_task("observe");
        let possible = self.world().memory.observe(table.address, range, coherence);
        if possible { Observed::Yes } else { Observed::No }
    }

    fn cpu(&self) -> Cpu {
        Cpu::new(CPU.get())
    }
}
