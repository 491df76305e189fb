//! Services that the kernel provides to the drivers: [`Platform`] for wired interrupts, and
//! [`GicPlatform`] for a whole GIC with LPIs.

mod tables;

pub(crate) use tables::{ADDRESS_BITS, NoTable, allocate_table};
pub use tables::{Coherence, GicPlatform, Observed, Table, TableLayout};

use crate::mmio::Mmio;
use core::ops::Deref;
use msi_types::LocalCpu;

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
