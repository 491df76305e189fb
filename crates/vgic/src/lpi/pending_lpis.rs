//! A vCPU's half: what its thread owns.

use super::LpiCore;
use super::consumer::{Consumer, ListedLpi, ReadyLpi};
use alloc::sync::Arc;
use core::fmt;
use core::ops::ControlFlow;
use gic_arch::Priority;
use msi_types::Cpu;

/// The pending LPIs of one vCPU. There is one such value per vCPU at a time; its thread owns it.
pub(crate) struct PendingLpis {
    core: Arc<LpiCore>,
    consumer: Consumer,
}

impl fmt::Debug for PendingLpis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingLpis").field("cpu", &self.consumer.vcpu).finish_non_exhaustive()
    }
}

impl PendingLpis {
    pub(super) const fn new(core: Arc<LpiCore>, consumer: Consumer) -> Self {
        Self { core, consumer }
    }

    /// Acknowledges the most urgent pending LPI, if its priority is more urgent than `than`.
    #[inline]
    pub(crate) fn take(&mut self, than: Priority) -> Option<ReadyLpi> {
        self.consumer.take(self.core.shared(), than)
    }

    /// Moves pending LPIs whose priorities are more urgent than `than` into list registers, the
    /// most urgent first, until `fill` breaks off.
    #[inline]
    pub(crate) fn list(
        &mut self,
        than: Priority,
        fill: impl FnMut(ReadyLpi, ListedLpi) -> ControlFlow<()>,
    ) {
        if !self.is_empty() {
            self.consumer.list(self.core.shared(), than, fill);
        }
    }

    /// Brings an LPI back from a list register; `pending` if the guest did not acknowledge it.
    pub(crate) fn fold(&mut self, listed: ListedLpi, pending: bool) {
        if let Some(vcpu) = self.consumer.fold(self.core.shared(), listed, pending) {
            self.core.kick(vcpu);
        }
    }

    /// Is no LPI pending? One load; `false` may be wrong until [`prune`](Self::prune).
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.consumer.is_empty(self.core.shared())
    }

    /// No LPI was found: clears the bits that were left set for the next one, so that
    /// [`is_empty`](Self::is_empty) says so.
    pub(crate) fn prune(&mut self) {
        if !self.is_empty() {
            self.consumer.prune(self.core.shared());
        }
    }

    /// The LPI that [`take`](Self::take) would acknowledge. Also called between setting
    /// `needs_kick` and sleep: an LPI that becomes pending later kicks.
    #[inline]
    pub(crate) fn highest(&mut self, than: Priority) -> Option<ReadyLpi> {
        if self.is_empty() { None } else { self.consumer.highest(self.core.shared(), than) }
    }
}

impl Drop for PendingLpis {
    fn drop(&mut self) {
        self.core.release_pending_lpis(Cpu::new(self.consumer.vcpu));
    }
}
