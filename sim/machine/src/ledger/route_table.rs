//! The routes of all vectors, derived from the calls that the interrupt core makes to the
//! controllers.

use super::route::Dispatches;
use super::{Clock, Pending, Route};
use doorbell_hardware::lock::lock;
use gic_driver::direct_lpi::{Resend, ResendObserver, ResendReason};
use irq_domain::{EffectiveAffinity, Interrupts};
use msi_types::{
    Attachment, BlockRequest, Cpu, DmaIsolation, DoorbellPage, Granule, HwIrq, HwIrqBlock,
    Isolation, LevelMessages, Move, MoveOutcome, MsiError, MsiMessage, MsiParent, RequesterId,
    Tier,
};
use std::collections::HashMap;
#[cfg(test)]
use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The routes of all allocated vectors.
#[derive(Debug)]
pub(crate) struct RouteTable {
    clock: Arc<Clock>,
    cpus: usize,
    by_vector: RwLock<HashMap<u32, Arc<Route>>>,
    /// The dispatches of all vectors that were ever acknowledged or allocated.
    dispatches: Mutex<HashMap<u32, Arc<Dispatches>>>,
    /// The CPUs that do not know yet which vector they have acknowledged.
    looks: Arc<Dispatches>,
    /// Held while lines move, and while the target of a new vector with a line is read.
    lines: Mutex<()>,
    /// Vectors for which the table ignores the driver's resend reports.
    #[cfg(test)]
    unheard: Mutex<HashSet<u32>>,
}

impl RouteTable {
    pub(crate) fn new(clock: Arc<Clock>, cpus: usize) -> Self {
        Self {
            clock,
            cpus,
            by_vector: RwLock::default(),
            dispatches: Mutex::default(),
            looks: Arc::default(),
            lines: Mutex::default(),
            #[cfg(test)]
            unheard: Mutex::default(),
        }
    }

    /// Wraps `parent` so that this table records all calls to it. As a deliberate defect, `astray`
    /// is added to the addresses of its messages.
    pub(crate) fn watch(
        self: &Arc<Self>,
        parent: Arc<dyn MsiParent>,
        pending: Pending,
        astray: u64,
    ) -> Arc<dyn MsiParent> {
        Arc::new(ObservedParent { routes: Arc::clone(self), pending, astray, parent })
    }

    /// Records that the driver has cleared the interrupts pending at `cpu` and has performed the
    /// resends that it reported.
    pub(crate) fn emptied(&self, cpu: Cpu) {
        self.read().values().for_each(|route| route.empty(cpu));
    }

    /// Ignores the driver's reports about resends of `hwirq` from now on.
    #[cfg(test)]
    pub(crate) fn ignore_resends(&self, hwirq: HwIrq) {
        lock(&self.unheard).insert(hwirq.get());
    }

    /// Returns the vector's route, or `None` if the vector is not allocated.
    pub(crate) fn get(&self, hwirq: HwIrq) -> Option<Arc<Route>> {
        self.read().get(&hwirq.get()).cloned()
    }

    /// Returns the dispatches of a vector.
    pub(crate) fn dispatches(&self, hwirq: HwIrq) -> Arc<Dispatches> {
        let new = || Arc::new(Dispatches::new(Arc::clone(&self.looks)));
        Arc::clone(lock(&self.dispatches).entry(hwirq.get()).or_insert_with(new))
    }

    pub(crate) fn looks(&self) -> &Dispatches {
        &self.looks
    }

    pub(super) fn add(&self, hwirq: HwIrq, pending: Pending, target: Cpu) {
        let route = Route::new(Arc::clone(&self.clock), self.cpus, pending, self.dispatches(hwirq));
        route.settle(target);
        self.write().insert(hwirq.get(), Arc::new(route));
    }

    fn add_chained(&self, hwirq: HwIrq, pending: Pending) {
        let route = Route::chained(Arc::clone(&self.clock), self.cpus, pending);
        self.write().insert(hwirq.get(), Arc::new(route));
    }

    /// Records the target of a new vector that has the target of its line.
    pub(crate) fn settle_line(&self, route: &Route, target: impl FnOnce() -> Option<Cpu>) {
        let _lines = lock(&self.lines);
        if let Some(target) = target() {
            route.settle(target);
        }
    }

    /// Calls `act`, which may move lines, and records the targets of their vectors.
    pub(crate) fn while_lines_move<R>(
        &self,
        interrupts: &Interrupts,
        act: impl FnOnce() -> R,
    ) -> R {
        let _lines = lock(&self.lines);
        let chained = || self.read().values().filter(|it| it.is_chained()).cloned().collect();
        let routes: Vec<Arc<Route>> = chained();
        for route in &routes {
            route.open_all();
        }
        let result = act();
        if !routes.is_empty() {
            for info in interrupts.snapshot().unwrap_or_default() {
                let route = self.get(info.hwirq).filter(|route| route.is_chained());
                if let (Some(route), EffectiveAffinity::Cpu(cpu)) = (route, info.affinity) {
                    route.settle(cpu);
                }
            }
        }
        result
    }

    pub(super) fn remove(&self, block: &HwIrqBlock) {
        let mut by_vector = self.write();
        for hwirq in vectors(block.first(), block.count()) {
            by_vector.remove(&hwirq.get());
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<u32, Arc<Route>>> {
        self.by_vector.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<u32, Arc<Route>>> {
        self.by_vector.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the route of a vector whose interrupt a driver reports as resent.
    fn told(&self, resend: Resend) -> Option<Arc<Route>> {
        #[cfg(test)]
        if lock(&self.unheard).contains(&resend.hwirq.get()) {
            return None;
        }
        self.get(resend.hwirq)
    }

    fn of(&self, first: HwIrq, count: NonZeroU16) -> impl Iterator<Item = Arc<Route>> {
        vectors(first, count).filter_map(|hwirq| self.get(hwirq))
    }
}

impl ResendObserver for RouteTable {
    fn resending(&self, resend: Resend) {
        let Some(route) = self.told(resend) else { return };
        if resend.reason == ResendReason::Unknowable {
            route.count_unknowable();
        }
        // Only the interrupt core requests resends.
        route.resent(resend.cpu, resend.reason == ResendReason::Requested);
    }

    fn resent(&self, resend: Resend) {
        // The CPU may have looked for interrupts after `resending`, and before the write.
        if let Some(route) = self.told(resend) {
            route.resent(resend.cpu, resend.reason == ResendReason::Requested);
        }
    }
}

fn vectors(first: HwIrq, count: NonZeroU16) -> impl Iterator<Item = HwIrq> {
    (0..u32::from(count.get())).filter_map(move |index| first.checked_add(index))
}

/// A parent that records the targets of its vectors. A new target is recorded before any message
/// can reach it, and an old target is removed once no message can reach it any more.
struct ObservedParent {
    routes: Arc<RouteTable>,
    pending: Pending,
    astray: u64,
    parent: Arc<dyn MsiParent>,
}

impl ObservedParent {
    const fn message(&self, message: MsiMessage) -> MsiMessage {
        MsiMessage { address: message.address + self.astray, ..message }
    }

    fn entered(&self, block: HwIrqBlock, target: Cpu) -> HwIrqBlock {
        for hwirq in vectors(block.first(), block.count()) {
            match self.parent.line(hwirq) {
                Some(_) => self.routes.add_chained(hwirq, self.pending),
                None => self.routes.add(hwirq, self.pending, target),
            }
        }
        block
    }
}

impl MsiParent for ObservedParent {
    fn isolation(&self, of: RequesterId) -> Isolation {
        self.parent.isolation(of)
    }

    fn dma_isolation(&self, of: RequesterId) -> DmaIsolation {
        self.parent.dma_isolation(of)
    }

    fn attach(&self, device: RequesterId, max: u32) -> Result<Attachment, MsiError> {
        self.parent.attach(device, max)
    }

    fn detach(&self, device: Attachment) {
        self.parent.detach(device);
    }

    fn allocate(
        &self,
        device: &Attachment,
        request: &BlockRequest,
    ) -> Result<HwIrqBlock, MsiError> {
        Ok(self.entered(self.parent.allocate(device, request)?, request.cpu))
    }

    fn allocate_managed(
        &self,
        device: &Attachment,
        request: &BlockRequest,
        among: &[Cpu],
    ) -> Result<HwIrqBlock, MsiError> {
        Ok(self.entered(self.parent.allocate_managed(device, request, among)?, request.cpu))
    }

    fn free(&self, device: &Attachment, block: HwIrqBlock) {
        self.routes.remove(&block);
        self.parent.free(device, block);
    }

    fn release(&self, device: Attachment, blocks: &mut dyn Iterator<Item = HwIrqBlock>) {
        self.parent.release(device, &mut blocks.inspect(|block| self.routes.remove(block)));
    }

    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        self.parent.compose(block, index).map(|message| self.message(message))
    }

    fn compose_level(&self, block: &HwIrqBlock, index: u16) -> Result<LevelMessages, MsiError> {
        let LevelMessages { assert, deassert } = self.parent.compose_level(block, index)?;
        let [assert, deassert] = [assert, deassert].map(|message| self.message(message));
        Ok(LevelMessages { assert, deassert })
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let route = block.hwirq(index).and_then(|hwirq| self.routes.get(hwirq));
        // Some controllers redirect the vector immediately. In that case, its messages wait at the
        // endpoint.
        let before = route.as_ref().and_then(|route| route.target());
        if let Some(route) = &route {
            route.open(to);
        }
        let moved = self.parent.begin_move(block, index, to).map(|moved| Move {
            message: moved.message.map(|message| self.message(message)),
            ..moved
        });
        match (&moved, route.zip(before)) {
            (Ok(moved), _) => {
                self.routes.of(moved.first, moved.count).for_each(|route| route.open(to));
            }
            (Err(_), Some((route, before))) => route.settle(before),
            (Err(_), None) => {}
        }
        moved
    }

    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        let (first, count, from, to) = (moved.first, moved.count, moved.from, moved.to);
        let result = self.parent.end_move(moved, outcome);
        // The message stored at the endpoint determines the target, even if the controller failed
        // to complete the move.
        let target = if outcome == MoveOutcome::Written { to } else { from };
        self.routes.of(first, count).for_each(|route| route.settle(target));
        result
    }

    fn mask(&self, hwirq: HwIrq) {
        self.parent.mask(hwirq);
    }

    fn unmask(&self, hwirq: HwIrq) {
        self.parent.unmask(hwirq);
    }

    fn set_pending(&self, hwirq: HwIrq, pending: msi_types::Pending) {
        self.parent.set_pending(hwirq, pending);
    }

    fn line(&self, hwirq: HwIrq) -> Option<HwIrq> {
        self.parent.line(hwirq)
    }

    fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        self.parent.is_pending(hwirq)
    }

    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        self.parent.tiers(visit);
    }

    fn doorbell_page(&self, granule: Granule) -> DoorbellPage {
        self.parent.doorbell_page(granule)
    }

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        self.parent.describe(hwirq, out)
    }
}
