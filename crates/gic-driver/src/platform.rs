//! What a kernel gives the drivers.

use crate::mmio::Mmio;
use core::ops::Range;
use gic_arch::icc::{SysReg, SysRegEncoding};
use gic_arch::{Readable, RegisterValue, Writable};
use msi_types::Cpu;

/// A range of physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PhysicalRegion {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// What a table needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableLayout {
    /// Size in bytes.
    pub bytes: u64,
    /// Alignment in bytes, a power of two.
    pub align: u64,
    /// Physical address bits that the controller can name: the whole table lies below
    /// 2^`address_bits`, which is at most 2^52.
    pub address_bits: u8,
    /// Where the memory should be near to, if the platform has NUMA nodes.
    pub node: Option<u32>,
}

/// Address bits of the GIC's table registers and commands (IHI 0069 §5.2, §12.11, §12.19).
pub(crate) const ADDRESS_BITS: u8 = 52;

impl TableLayout {
    fn admits(&self, table: &Table) -> bool {
        let end = table.address.checked_add(self.bytes);
        let reachable = end.is_some_and(|end| end <= 1 << self.address_bits.min(ADDRESS_BITS));
        reachable && table.address.is_multiple_of(self.align) && table.bytes >= self.bytes
    }
}

/// Why there is no table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoTable {
    /// The platform gave no memory.
    NoMemory,
    /// The platform gave memory at this address, which the layout rules out. It was released.
    Misplaced(u64),
}

/// Allocates a table and checks that the platform kept to `layout`. Task.
pub(crate) fn allocate_table<P: Platform>(
    platform: &P,
    layout: TableLayout,
) -> Result<Table, NoTable> {
    let table = platform.allocate_table(layout).ok_or(NoTable::NoMemory)?;
    if layout.admits(&table) {
        return Ok(table);
    }
    let address = table.address;
    platform.release_table(table);
    Err(NoTable::Misplaced(address))
}

/// Zeroed, physically contiguous memory that a controller reads (and may write). Owned: given back
/// by [`Platform::release_table`]; not `Clone`.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// Physical address.
    pub address: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Whatever lets the platform find its mapping again.
    pub handle: usize,
}

/// Does a controller's access to a table look into the CPUs' caches?
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coherence {
    /// Yes: a barrier publishes a write.
    Coherent,
    /// No: a write is cleaned to the point of coherency.
    NonCoherent,
}

/// Can the CPU read what a controller wrote?
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Observed {
    /// Loads return it.
    Yes,
    /// Loads may return what the CPU's caches remember.
    No,
}

/// One turn of a bounded wait.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wait {
    /// Look again.
    Again,
    /// The time is over.
    GiveUp,
}

/// What a kernel gives the drivers, by `&self`: several controllers in one process need no global.
///
/// Everything may be called in any context unless it says "task".
pub trait Platform: Send + Sync {
    /// A mapped register frame.
    type Mmio: Mmio;
    /// Interrupt state of a CPU, as [`irq_save`](Self::irq_save) found it.
    type IrqState;

    /// Maps registers as device memory. `None` if nothing can be mapped there. Task.
    fn map(&self, region: PhysicalRegion) -> Option<Self::Mmio>;

    /// Allocates zeroed table memory, the zeros published as by [`publish`](Self::publish) with
    /// [`Coherence::NonCoherent`]. Returns `None` if no memory meets the layout; drivers refuse
    /// memory that does not. Task.
    fn allocate_table(&self, layout: TableLayout) -> Option<Table>;
    /// Takes table memory back. No controller uses it any more. Task.
    fn release_table(&self, table: Table);
    /// Takes over memory that firmware or a previous kernel set up as a table and reserved. `None`
    /// if it is not reserved. What is pending in such a table is cleared before it reaches anybody
    /// ([the ITS's part](crate::its#after-kexec)). Task.
    fn adopt_table(&self, region: PhysicalRegion) -> Option<Table> {
        let _ = region;
        None
    }
    /// Stores a byte in one store. `offset` is below the table's size.
    fn store8(&self, table: &Table, offset: u64, value: u8);
    /// Stores 64 bits, little-endian, in one store. `offset` is a multiple of 8 below the table's
    /// size.
    fn store64(&self, table: &Table, offset: u64, value: u64);
    /// Loads a byte. `offset` is below the table's size.
    fn load8(&self, table: &Table, offset: u64) -> u8;
    /// Makes earlier stores to `range` of the table visible to the controller before any later
    /// register write.
    fn publish(&self, table: &Table, range: Range<u64>, coherence: Coherence);

    /// Makes what a controller wrote to `range` of the table, before a register that was read says
    /// so, visible to later loads: a barrier if it is coherent, an invalidation of the caches if
    /// not. The CPU has stored nothing there since it was published. Task.
    ///
    /// As provided, only a coherent controller can be observed; drivers do without where they
    /// cannot.
    fn observe(&self, table: &Table, range: Range<u64>, coherence: Coherence) -> Observed {
        let _ = (table, range);
        match coherence {
            Coherence::Coherent => {
                crate::barrier::observe_device();
                Observed::Yes
            }
            Coherence::NonCoherent => Observed::No,
        }
    }

    /// The CPU that executes this.
    fn cpu(&self) -> Cpu;
    /// Masks interrupts on this CPU.
    fn irq_save(&self) -> Self::IrqState;
    /// Restores what [`irq_save`](Self::irq_save) found.
    fn irq_restore(&self, state: Self::IrqState);

    /// One turn of waiting for hardware: a pause, and whether to look again. `turn` counts from 0
    /// in each wait; the platform's clock decides when it is enough (about a second is customary).
    fn wait(&self, turn: u32) -> Wait;
    /// One turn of waiting, with interrupts masked, for another CPU that holds a lock for a few
    /// instructions. A pause is enough.
    fn relax(&self) {
        core::hint::spin_loop();
    }

    /// One turn of waiting for another task that holds a lock for long: it may wait for hardware or
    /// allocate. Task: the caller holds no spin lock, and its interrupts are as the kernel has them
    /// in task context.
    ///
    /// A kernel whose tasks have priorities makes sure that a holder of lower priority runs: the
    /// caller sleeps, or lends its priority. To give way to tasks of the same priority is not
    /// enough. As provided, it is a [pause](Self::relax), for kernels that do not preempt tasks.
    fn yield_task(&self) {
        self.relax();
    }
}

/// A register did not reach the state that was waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("timed out waiting for {0}")]
pub struct TimedOut(pub &'static str);

/// Waits, bounded by the platform's clock, until `done`. Looks one last time after the clock gave
/// up, so that a CPU that was off the bus for long does not report a fault that is none.
///
/// # Errors
/// [`TimedOut`] with `what` was waited for.
pub fn wait_until<P: Platform>(
    platform: &P,
    what: &'static str,
    mut done: impl FnMut() -> bool,
) -> Result<(), TimedOut> {
    let mut turn = 0;
    loop {
        if done() {
            return Ok(());
        }
        if platform.wait(turn) == Wait::GiveUp {
            return if done() { Ok(()) } else { Err(TimedOut(what)) };
        }
        turn = turn.saturating_add(1);
    }
}

/// Where a kernel or hypervisor executes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ExceptionLevel {
    /// EL1: a kernel.
    El1,
    /// EL2: a hypervisor, or a kernel in its place. `ICC_SRE_EL2` is its to set.
    El2,
}

/// The CPU interface's system registers of the CPU that executes this. On hardware a zero-sized
/// type over `MRS` and `MSR`; in a simulated machine the handle of one CPU.
pub trait SystemRegisters {
    /// Reads a register.
    fn read_raw(&self, register: SysRegEncoding) -> u64;
    /// Writes a register, with the barrier that makes it take effect (`ISB`).
    fn write_raw(&self, register: SysRegEncoding, value: u64);
    /// The exception level that executes this: EL1, if the implementation does not say otherwise.
    fn exception_level(&self) -> ExceptionLevel {
        ExceptionLevel::El1
    }

    /// Reads a typed register.
    fn read<V: RegisterValue<Raw = u64>, A: Readable>(&self, register: SysReg<V, A>) -> V {
        V::from(self.read_raw(register.encoding()))
    }

    /// Writes a typed register.
    fn write<V: RegisterValue<Raw = u64>, A: Writable>(&self, register: SysReg<V, A>, value: V) {
        self.write_raw(register.encoding(), value.into());
    }
}

impl<S: SystemRegisters + ?Sized> SystemRegisters for &S {
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        (**self).read_raw(register)
    }

    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        (**self).write_raw(register, value);
    }

    fn exception_level(&self) -> ExceptionLevel {
        (**self).exception_level()
    }
}
