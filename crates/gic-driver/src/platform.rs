//! Services that the kernel provides to the drivers: [`Platform`] for wired interrupts, and
//! [`GicPlatform`] for a whole GIC with LPIs.

use crate::mmio::Mmio;
use core::ops::{Deref, Range};
use gic_arch::Affinity;
use msi_types::{Cpu, LocalCpu};

/// A range of physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PhysicalRegion {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Decision after one turn of a bounded wait.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wait {
    /// Poll again.
    Again,
    /// Stop waiting, because the time limit has been reached.
    GiveUp,
}

/// Services that a kernel provides to the drivers, on top of its [`LocalCpu`]. Functions take
/// `&self`, so several controllers in one process need no global state.
///
/// This trait suffices for timer interrupts, SGIs, other PPIs and SPIs, and requires no heap. A
/// complete [`Gic`](crate::Gic) with LPIs needs [`GicPlatform`]. References and `Arc`s to a
/// platform also implement the trait.
///
/// Unless documented otherwise, functions may be called in any context.
///
/// Example: a single-CPU kernel at EL1 with identity-mapped memory; `irq` is one of its modules.
///
/// ```
/// # mod irq { pub fn mask() -> usize { 0 } pub fn restore(_: usize) {} }
/// # use core::ptr::NonNull;
/// use gic_driver::{IrqState, LocalCpu, PhysicalRegion, Platform, RawMmio, Wait};
///
/// struct Kernel;
///
/// impl LocalCpu for Kernel {
///     fn irq_save(&self) -> IrqState {
///         IrqState::new(irq::mask()) // DAIF
///     }
///     fn irq_restore(&self, state: IrqState) {
///         irq::restore(state.get());
///     }
///     fn yield_now(&self) {
///         self.relax(); // A kernel with a scheduler yields.
///     }
/// }
///
/// impl Platform for Kernel {
///     type Mmio = RawMmio;
///
///     fn map(&self, region: PhysicalRegion) -> Option<RawMmio> {
///         let base = NonNull::new(region.base as *mut u8)?;
///         // SAFETY: permanently mapped as device memory, and used only by the driver.
///         Some(unsafe { RawMmio::new(base, usize::try_from(region.bytes).ok()?) })
///     }
///     fn wait(&self, turn: u32) -> Wait {
///         // A clock is better: the length of a turn depends on a register read.
///         if turn < 10_000_000 { Wait::Again } else { Wait::GiveUp }
///     }
/// }
/// ```
pub trait Platform: LocalCpu {
    /// A mapped register frame. The driver drops frames that it does not need, e.g. for
    /// redistributors without a CPU. A platform may unmap the frame in `Drop`.
    type Mmio: Mmio;

    /// Maps registers as device memory. Returns `None` if the registers can't be mapped.
    ///
    /// Context: task; may sleep.
    fn map(&self, region: PhysicalRegion) -> Option<Self::Mmio>;

    /// Pauses for one turn while waiting for hardware, and decides whether to poll again. `turn`
    /// starts at 0 for each wait. The platform's clock should limit the wait; about a second is
    /// customary.
    fn wait(&self, turn: u32) -> Wait;
}

/// References and smart pointers implement the trait because drivers take the platform by value.
impl<P: Deref<Target: Platform> + Send + Sync> Platform for P {
    type Mmio = <P::Target as Platform>::Mmio;

    fn map(&self, region: PhysicalRegion) -> Option<Self::Mmio> {
        (**self).map(region)
    }

    fn wait(&self, turn: u32) -> Wait {
        (**self).wait(turn)
    }
}

/// Error for a register that did not reach the awaited state in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("timed out waiting for {0}")]
pub struct TimedOut(pub &'static str);

/// Waits until `done` returns `true`, bounded by the platform's clock. Polls once more after the
/// time limit, so that a CPU that was itself stalled does not report a timeout when the hardware
/// has already finished.
///
/// # Errors
/// [`TimedOut`] with `what` if the state was not reached in time.
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

/// Requirements for a table's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TableLayout {
    /// Size in bytes.
    pub bytes: u64,
    /// Alignment in bytes, a power of two.
    pub align: u64,
    /// Physical address bits that the controller can address. The whole table must lie below
    /// 2^`address_bits`, which is at most 2^52.
    pub address_bits: u8,
    /// Preferred NUMA node for the memory.
    pub node: Option<u32>,
}

/// Address bits in the GIC's table registers and commands (IHI 0069 §5.2, §12.11, §12.19).
pub(crate) const ADDRESS_BITS: u8 = 52;

impl TableLayout {
    /// Creates a layout with this size and alignment, at any address that a GIC can reach.
    pub const fn new(bytes: u64, align: u64) -> Self {
        Self { bytes, align, address_bits: ADDRESS_BITS, node: None }
    }

    fn admits(&self, table: &Table) -> bool {
        let end = table.address.checked_add(self.bytes);
        let reachable = end.is_some_and(|end| end <= 1 << self.address_bits.min(ADDRESS_BITS));
        reachable && table.address.is_multiple_of(self.align) && table.bytes >= self.bytes
    }
}

/// Reason why a table can't be allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoTable {
    /// The platform is out of memory.
    NoMemory,
    /// The platform returned memory at this address, which violates the layout. The memory has been
    /// released.
    Misplaced(u64),
}

/// Allocates a table and checks that it meets `layout`.
///
/// Context: task; may sleep.
pub(crate) fn allocate_table<P: GicPlatform>(
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

/// Zeroed, physically contiguous memory that a controller reads and may write. The type is not
/// `Clone`: a table has one owner, which frees it with [`GicPlatform::release_table`].
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Table {
    /// Physical address.
    pub address: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Value with which the platform looks up its mapping of the memory.
    pub handle: usize,
}

impl Table {
    /// Creates a table from `bytes` bytes of memory at `address`. Only the platform interprets
    /// `handle`.
    pub const fn new(address: u64, bytes: u64, handle: usize) -> Self {
        Self { address, bytes, handle }
    }

    /// Takes the table out of an owner that is being dropped, and leaves an empty table in its
    /// place.
    pub(crate) const fn take(&mut self) -> Self {
        core::mem::replace(self, Self::new(0, 0, 0))
    }
}

/// Coherence of a controller's table accesses with CPU caches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coherence {
    /// Accesses are coherent, so a barrier publishes a write.
    Coherent,
    /// Accesses are not coherent, so a write must be cleaned to the point of coherency.
    NonCoherent,
}

/// Result of [`GicPlatform::observe`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Observed {
    /// Loads return the data that the controller wrote.
    Yes,
    /// Loads may return stale data from the CPU's caches.
    No,
}

/// Kernel services for a whole GIC with LPIs and ITSes, on top of [`Platform`]: table memory and
/// CPU numbers. References and `Arc`s to a `GicPlatform` also implement the trait.
///
/// Unless documented otherwise, functions may be called in any context.
pub trait GicPlatform: Platform {
    /// Returns the calling CPU's number.
    fn cpu(&self) -> Cpu;

    /// Returns the calling CPU's affinity in `MPIDR_EL1` layout. A platform that does not know the
    /// affinity may return `None`, but the boot CPU's number must then be its index among the CPUs
    /// enabled by firmware.
    ///
    /// The provided method reads the register on bare-metal AArch64 targets (`target_os = "none"`),
    /// at EL1 or above. Kernels with custom targets must implement this method if they may be
    /// started on any CPU.
    fn affinity(&self) -> Option<Affinity> {
        #[cfg(all(target_arch = "aarch64", target_os = "none"))]
        let affinity = Some(crate::sysreg::own_affinity());
        #[cfg(not(all(target_arch = "aarch64", target_os = "none")))]
        let affinity = None;
        affinity
    }

    /// Allocates zeroed table memory. The zeros must be published as if by
    /// [`publish`](Self::publish) with [`Coherence::NonCoherent`]. Returns `None` if no memory
    /// meets the layout; drivers reject memory that does not.
    ///
    /// Context: task; may sleep.
    fn allocate_table(&self, layout: TableLayout) -> Option<Table>;
    /// Frees table memory that is no longer used by any controller.
    ///
    /// Context: task; may sleep.
    fn release_table(&self, table: Table);
    /// Takes over a table that firmware or a previous kernel set up in reserved memory. Returns
    /// `None` if the memory is not reserved. LPIs may be pending in such a table. Drivers clear
    /// each LPI before its first owner uses it (for an ITS, see [after
    /// kexec](crate::its#after-kexec)).
    ///
    /// Context: task; may sleep.
    fn adopt_table(&self, region: PhysicalRegion) -> Option<Table> {
        let _ = region;
        None
    }
    /// Stores a byte with a single store. `offset` is below the table's size.
    fn store8(&self, table: &Table, offset: u64, value: u8);
    /// Stores 64 bits, little-endian, with a single store. `offset` is a multiple of 8 and below
    /// the table's size.
    fn store64(&self, table: &Table, offset: u64, value: u64);
    /// Loads a byte. `offset` is below the table's size.
    fn load8(&self, table: &Table, offset: u64) -> u8;
    /// Makes earlier stores to `range` of the table visible to the controller before any later
    /// register write.
    ///
    /// On Arm, a coherent controller needs `DSB ISHST` (as in Linux's ITS driver), because the
    /// drivers make tables Inner Shareable (`GICR_PROPBASER`, `GITS_BASER<n>`; IHI 0069 §12.11,
    /// §12.19). A non-coherent controller needs `DC CVAC` for each cache line of the range, in
    /// steps of `CTR_EL0.DminLine`, and then `DSB SY`, which waits until the lines are clean (Arm
    /// ARM, DDI 0487, "A64 Cache maintenance instructions").
    fn publish(&self, table: &Table, range: Range<u64>, coherence: Coherence);

    /// Makes controller-written data in `range` visible to later loads, after a register read has
    /// shown that it was written. If the controller is coherent, a barrier suffices (on Arm, `DMB
    /// OSHLD`). Otherwise, caches must be invalidated (`DC IVAC` for each cache line, then `DSB
    /// SY`). Software must not have stored to the range since it was published.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// The provided method only supports coherent controllers, and returns [`Observed::No`] for
    /// others. Drivers must not depend on [`Observed::Yes`].
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
}

/// References and smart pointers to a platform implement the trait.
impl<P: Deref<Target: GicPlatform> + Send + Sync> GicPlatform for P {
    fn cpu(&self) -> Cpu {
        (**self).cpu()
    }

    fn affinity(&self) -> Option<Affinity> {
        (**self).affinity()
    }

    fn allocate_table(&self, layout: TableLayout) -> Option<Table> {
        (**self).allocate_table(layout)
    }

    fn release_table(&self, table: Table) {
        (**self).release_table(table);
    }

    fn adopt_table(&self, region: PhysicalRegion) -> Option<Table> {
        (**self).adopt_table(region)
    }

    fn store8(&self, table: &Table, offset: u64, value: u8) {
        (**self).store8(table, offset, value);
    }

    fn store64(&self, table: &Table, offset: u64, value: u64) {
        (**self).store64(table, offset, value);
    }

    fn load8(&self, table: &Table, offset: u64) -> u8 {
        (**self).load8(table, offset)
    }

    fn publish(&self, table: &Table, range: Range<u64>, coherence: Coherence) {
        (**self).publish(table, range, coherence);
    }

    fn observe(&self, table: &Table, range: Range<u64>, coherence: Coherence) -> Observed {
        (**self).observe(table, range, coherence)
    }
}
