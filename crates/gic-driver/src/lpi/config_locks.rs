//! Locks for configuration bytes.

use doorbell_lock::IrqLock;
use gic_arch::Lpi;

/// Number of locks that all configuration bytes share.
const LOCKS: usize = 32;

/// Locks for configuration bytes. The LPI at index n uses the lock n modulo [`LOCKS`].
#[derive(Debug, Default)]
pub(super) struct ConfigLocks([ConfigLock; LOCKS]);

/// A lock in its own cache line, so that CPUs using different locks don't contend.
#[derive(Debug, Default)]
#[repr(align(64))]
struct ConfigLock(IrqLock<()>);

impl ConfigLocks {
    pub(super) fn of(&self, lpi: Lpi) -> &IrqLock<()> {
        &self.0[lpi.index() as usize % LOCKS].0
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &IrqLock<()>> {
        self.0.iter().map(|lock| &lock.0)
    }

    /// Returns the locks for consecutive LPIs, starting at `first`.
    pub(super) fn from(&self, first: Lpi) -> impl Iterator<Item = &IrqLock<()>> {
        self.0.iter().cycle().skip(first.index() as usize % LOCKS).map(|lock| &lock.0)
    }
}
