//! The vCPU's side of the LPI core, owned by its thread.

use super::LpiCore;
use super::consumer::{Consumer, ListedLpi, ReadyLpi};
use super::itt::EntryRef;
use alloc::sync::Arc;
use core::fmt;
use core::ops::ControlFlow;
use gic_arch::Priority;
use msi_types::Cpu;

/// One vCPU's pending LPIs. At most one value exists per vCPU, and the vCPU's thread owns it.
pub(crate) struct PendingLpis {
    core: Arc<LpiCore>,
    consumer: Consumer,
}

impl fmt::Debug for PendingLpis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingLpis").field("cpu", &self.consumer.vcpu()).finish_non_exhaustive()
    }
}

impl PendingLpis {
    pub(super) const fn new(core: Arc<LpiCore>, consumer: Consumer) -> Self {
        Self { core, consumer }
    }

    /// Fast path of [`take`](Self::take), which must follow after [`ControlFlow::Continue`].
    /// Only calls `than` if an LPI may be pending.
    #[inline(always)]
    pub(crate) fn take_first(
        &mut self,
        than: impl FnOnce() -> Priority,
    ) -> ControlFlow<Option<ReadyLpi>> {
        self.consumer.take_first(self.core.shared(), than)
    }

    /// Acknowledges the highest-priority pending LPI, if its priority is higher than `than`.
    pub(crate) fn take(&mut self, than: Priority) -> Option<ReadyLpi> {
        self.consumer.take(self.core.shared(), than)
    }

    /// Fast path of [`list`](Self::list), which must follow after [`ControlFlow::Continue`].
    #[inline(always)]
    pub(crate) fn list_first(
        &mut self,
        fill: impl FnMut(ReadyLpi, ListedLpi) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.consumer.list_first(self.core.shared(), fill)
    }

    /// Moves pending LPIs whose priority is higher than `than` into list registers, highest
    /// priority first, until `fill` returns [`ControlFlow::Break`].
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

    /// Makes an event's LPI pending, and moves it to the list register that `place` chooses.
    /// Returns `None` without any effect if this isn't possible in one step.
    #[inline]
    pub(crate) fn list_message<P>(
        &self,
        found: EntryRef,
        place: impl FnOnce(ReadyLpi, ListedLpi, bool) -> Option<P>,
    ) -> Option<P> {
        self.consumer.list_message(self.core.shared(), found, place)
    }

    /// Folds an LPI that the guest has acknowledged, and moves it into the same list register, if
    /// it is pending again.
    #[inline]
    pub(crate) fn list_again(&self, listed: ListedLpi) -> Option<ReadyLpi> {
        self.consumer.list_again(self.core.shared(), listed)
    }

    /// Folds an LPI back from a list register. `pending` is `true` if the guest did not acknowledge
    /// the LPI.
    pub(crate) fn fold(&mut self, listed: ListedLpi, pending: bool) {
        if let Some(vcpu) = self.consumer.fold(self.core.shared(), listed, pending) {
            self.core.kick(vcpu);
        }
    }

    /// Returns `true` if no LPI is pending. The check is a single load, and a result of `false` may
    /// be stale until [`prune`](Self::prune).
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.consumer.is_empty()
    }

    /// Clears the bits that were left set in anticipation of the next LPI, so that
    /// [`is_empty`](Self::is_empty) returns `true`. Called after no LPI was found.
    pub(crate) fn prune(&mut self) {
        if !self.is_empty() {
            self.consumer.prune(self.core.shared());
        }
    }

    /// Returns the LPI that [`take`](Self::take) would acknowledge. A vCPU also calls this method
    /// before it sleeps, after it has set `needs_kick`: an LPI that becomes pending after the call
    /// will kick the vCPU.
    #[inline]
    pub(crate) fn highest(&mut self, than: Priority) -> Option<ReadyLpi> {
        if self.is_empty() { None } else { self.consumer.highest(self.core.shared(), than) }
    }
}

impl Drop for PendingLpis {
    fn drop(&mut self) {
        self.core.release_pending_lpis(Cpu::new(self.consumer.vcpu()));
    }
}
