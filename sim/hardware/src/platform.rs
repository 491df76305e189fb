//! The platform on which the drivers run. It implements the traits of `gic-driver` and
//! `irq-domain`, both for threads and for the deterministic scheduler. Accesses are made on behalf
//! of the CPU whose code the calling thread is running.

use crate::bus::{AccessWidth, Bus};
use crate::ram::{Publication, Ram};
use gic_driver::{
    Coherence, GicPlatform, Mmio, PhysicalRegion, Platform, Table, TableLayout, Wait,
};
use irq_domain::{Host, IrqState, LocalCpu, TaskContext};
use msi_types::Cpu;
use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Maximum time that a driver waits for hardware. This limit only ends what hangs, because a
/// heavily loaded host may deschedule a thread for long.
const HANG: Duration = Duration::from_mins(10);
/// Maximum number of iterations of a driver's wait if no clock is used. Between two iterations,
/// only the scheduler runs.
const TURNS: u32 = 100_000;

/// Number of spin-loop hints in a slow handler: about a microsecond.
const LINGERING: u32 = 32;

thread_local! {
    /// The CPU whose code this thread is running, if any, and the nesting depth of its interrupt
    /// mask.
    static EXECUTING: Cell<Option<Cpu>> = const { Cell::new(None) };
    static MASKED: Cell<usize> = const { Cell::new(0) };
    static WAITING_SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A guard that makes its thread run as a CPU until it is dropped.
#[derive(Debug)]
pub struct Executing {
    before: Option<Cpu>,
    masked: usize,
}

impl Executing {
    /// Makes this thread run as `cpu` with interrupts masked.
    pub fn in_exception(cpu: Cpu) -> Self {
        Self { before: EXECUTING.replace(Some(cpu)), masked: MASKED.replace(1) }
    }

    /// Makes this thread run as a task that isn't on any CPU.
    pub fn as_nobody() -> Self {
        Self { before: EXECUTING.replace(None), masked: MASKED.replace(0) }
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        EXECUTING.set(self.before);
        MASKED.set(self.masked);
    }
}

/// A point at which other activity may take place, i.e. before a register access or during a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterleavePoint {
    /// Interrupts are unmasked, so devices may send, and every CPU may take an interrupt.
    Unmasked,
    /// Interrupts are masked: devices may send, but other CPUs must not run, because this CPU may
    /// hold a lock that they need.
    Masked,
    /// A long-running handler, during which devices and other CPUs may run.
    InHandler,
}

/// Lets other activity take place at each interleave point, as it could on real hardware. The
/// deterministic scheduler implements this trait.
pub trait Interleave: Send + Sync {
    /// Called at each interleave point, on the thread that reached it.
    fn at(&self, moment: InterleavePoint);
}

/// The drivers' platform, which is also the interrupt core's host.
pub struct MachinePlatform {
    bus: Arc<Bus>,
    ram: Arc<Ram>,
    publishes: bool,
    interleave: Arc<OnceLock<Arc<dyn Interleave>>>,
}

impl MachinePlatform {
    /// Creates the platform for a machine with this bus and RAM.
    pub fn new(bus: Arc<Bus>, ram: Arc<Ram>) -> Self {
        Self { bus, ram, publishes: true, interleave: Arc::default() }
    }

    /// Returns the same platform without cache maintenance, as if the drivers had forgotten to
    /// publish their tables.
    #[must_use]
    pub fn without_publication(self) -> Self {
        Self { publishes: false, ..self }
    }

    /// Makes `interleave` decide what happens at interleave points from now on. Waits then no
    /// longer use a clock.
    pub fn interleave_by(&self, interleave: Arc<dyn Interleave>) {
        // The cell is set only once, because the scheduler lives as long as the machine.
        let _ = self.interleave.set(interleave);
    }

    /// Spends some time in a handler. With a scheduler, other CPUs may run during this time.
    pub fn linger(&self) {
        if let Some(interleave) = self.interleave.get() {
            interleave.at(InterleavePoint::InHandler);
        } else {
            (0..LINGERING).for_each(|_| std::hint::spin_loop());
        }
    }

    /// Returns a CPU's port to the bus.
    pub fn cpu_bus(&self) -> CpuBus {
        CpuBus { bus: Arc::clone(&self.bus), interleave: Arc::clone(&self.interleave) }
    }
}

/// A CPU's port to the bus. Other activity may take place before each access.
#[derive(Clone)]
pub struct CpuBus {
    bus: Arc<Bus>,
    interleave: Arc<OnceLock<Arc<dyn Interleave>>>,
}

impl CpuBus {
    /// Reads from a physical address.
    pub fn read(&self, address: u64, width: AccessWidth) -> u64 {
        pause(&self.interleave);
        self.bus.read(address, width)
    }

    /// Reads 32 bits.
    pub fn read32(&self, address: u64) -> u32 {
        u32::try_from(self.read(address, AccessWidth::Word)).unwrap_or(u32::MAX)
    }

    /// Writes to a physical address.
    pub fn write(&self, address: u64, width: AccessWidth, value: u64) {
        pause(&self.interleave);
        self.bus.write(address, width, value);
    }
}

impl fmt::Debug for CpuBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bus.fmt(f)
    }
}

/// Lets other threads or CPUs run. Returns `true` if a scheduler chose the next activity.
fn pause(interleave: &OnceLock<Arc<dyn Interleave>>) -> bool {
    let Some(interleave) = interleave.get() else { return false };
    interleave.at(if MASKED.get() == 0 {
        InterleavePoint::Unmasked
    } else {
        InterleavePoint::Masked
    });
    true
}

/// Mapped registers.
#[derive(Debug)]
pub struct Frame {
    bus: CpuBus,
    base: u64,
}

impl Mmio for Frame {
    fn read32(&self, offset: u32) -> u32 {
        self.bus.read32(self.base + u64::from(offset))
    }

    fn write32(&self, offset: u32, value: u32) {
        self.bus.write(self.base + u64::from(offset), AccessWidth::Word, u64::from(value));
    }

    fn read64(&self, offset: u32) -> u64 {
        self.bus.read(self.base + u64::from(offset), AccessWidth::Double)
    }

    fn write64(&self, offset: u32, value: u64) {
        self.bus.write(self.base + u64::from(offset), AccessWidth::Double, value);
    }

    fn write8(&self, offset: u32, value: u8) {
        self.bus.write(self.base + u64::from(offset), AccessWidth::Byte, u64::from(value));
    }
}

impl Platform for MachinePlatform {
    type Mmio = Frame;

    fn map(&self, region: PhysicalRegion) -> Option<Frame> {
        let answered = gic_firmware::Region::new(region.base, region.bytes)?;
        self.bus.covers(answered).then(|| Frame { bus: self.cpu_bus(), base: region.base })
    }

    fn wait(&self, turn: u32) -> Wait {
        if pause(&self.interleave) {
            return if turn < TURNS { Wait::Again } else { Wait::GiveUp };
        }
        if turn == 0 {
            WAITING_SINCE.set(Some(Instant::now()));
        }
        std::thread::yield_now();
        match WAITING_SINCE.get() {
            Some(since) if since.elapsed() > HANG => Wait::GiveUp,
            _ => Wait::Again,
        }
    }
}

impl GicPlatform for MachinePlatform {
    fn allocate_table(&self, layout: TableLayout) -> Option<Table> {
        let address =
            self.ram.allocate_below(layout.bytes, layout.align, 1 << layout.address_bits)?;
        Some(Table::new(address, layout.bytes, 0))
    }

    fn release_table(&self, table: Table) {
        self.ram.release(table.address, table.bytes);
    }

    fn store8(&self, table: &Table, offset: u64, value: u8) {
        self.ram.cpu_store8(table.address + offset, value);
    }

    fn store64(&self, table: &Table, offset: u64, value: u64) {
        self.ram.cpu_store64(table.address + offset, value);
    }

    fn load8(&self, table: &Table, offset: u64) -> u8 {
        self.ram.cpu_load8(table.address + offset)
    }

    fn publish(&self, table: &Table, range: Range<u64>, coherence: Coherence) {
        let how = match coherence {
            Coherence::Coherent => Publication::Barrier,
            Coherence::NonCoherent => Publication::Clean,
        };
        if self.publishes {
            self.ram.publish(table.address + range.start..table.address + range.end, how);
        }
    }

    fn cpu(&self) -> Cpu {
        // Code that runs outside of any CPU (such as tests, or the owner of device threads) counts
        // as running on the boot CPU.
        EXECUTING.get().unwrap_or_default()
    }
}

impl LocalCpu for MachinePlatform {
    fn irq_save(&self) -> IrqState {
        let before = MASKED.get();
        MASKED.set(before + 1);
        IrqState::new(before)
    }

    fn irq_restore(&self, state: IrqState) {
        MASKED.set(state.get());
    }

    fn relax(&self) {
        if !pause(&self.interleave) {
            std::thread::yield_now();
        }
    }

    fn yield_now(&self) {
        debug_assert_eq!(MASKED.get(), 0, "a task must not wait with interrupts masked");
        self.relax();
    }
}

impl TaskContext for MachinePlatform {
    /// Returns `false` while interrupts are masked: a CPU takes exceptions with interrupts masked,
    /// and an exception handler must not wait.
    fn may_wait(&self) -> bool {
        MASKED.get() == 0
    }
}

impl Host for MachinePlatform {
    fn current_cpu(&self) -> Option<Cpu> {
        EXECUTING.get()
    }
}

msi_types::debug_by!(MachinePlatform as "MachinePlatform", |it| {ram: it.ram});
