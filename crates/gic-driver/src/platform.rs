//! The kernel's services for the drivers: [`Platform`] for every interrupt, [`GicPlatform`] for
//! a whole GIC with LPIs.

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

/// One turn of a bounded wait.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wait {
    /// Look again.
    Again,
    /// The time is over.
    GiveUp,
}

/// The kernel's services for the drivers, in addition to its [`LocalCpu`]. Functions take `&self`,
/// so that several controllers in one process need no global state.
///
/// A timer's interrupt, SGIs, other PPIs and SPIs need nothing else, and no heap. A whole
/// [`Gic`](crate::Gic) with LPIs needs [`GicPlatform`]. References and `Arc`s to a platform are
/// platforms, too.
///
/// Functions that state no context may be called in any.
///
/// A kernel of one CPU at `EL1` whose memory is identity-mapped; `irq` is its own module:
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
///         // SAFETY: mapped as device memory for ever, and used by the driver alone.
///         Some(unsafe { RawMmio::new(base, usize::try_from(region.bytes).ok()?) })
///     }
///     fn wait(&self, turn: u32) -> Wait {
///         // A clock is better: a turn takes as long as a register's read.
///         if turn < 10_000_000 { Wait::Again } else { Wait::GiveUp }
///     }
/// }
/// ```
pub trait Platform: LocalCpu {
    /// A mapped register frame. The driver drops frames that it does not need, such as those of
    /// redistributors without a CPU, so a platform may unmap frames in `Drop`.
    type Mmio: Mmio;

    /// Maps registers as device memory. Returns `None` if the region cannot be mapped.
    ///
    /// Context: task; may sleep.
    fn map(&self, region: PhysicalRegion) -> Option<Self::Mmio>;

    /// One turn of waiting for hardware: a pause, and whether to look again. `turn` counts from 0
    /// in each wait; the platform's clock decides when it is enough (about a second is customary).
    fn wait(&self, turn: u32) -> Wait;
}

/// References and smart pointers: a driver takes a platform by value, whatever owns it.
impl<P: Deref<Target: Platform> + Send + Sync> Platform for P {
    type Mmio = <P::Target as Platform>::Mmio;

    fn map(&self, region: PhysicalRegion) -> Option<Self::Mmio> {
        (**self).map(region)
    }

    fn wait(&self, turn: u32) -> Wait {
        (**self).wait(turn)
    }
}

/// A register did not reach the state that was waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("timed out waiting for {0}")]
pub struct TimedOut(pub &'static str);

/// Waits, bounded by the platform's clock, until `done`. Looks one last time after the clock gave
/// up. A CPU that was off the bus for long then does not report a fault that is none.
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
