//! Combines a layer and the parent below it into one parent.

use super::Layer;
use crate::runtime::Host;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use doorbell_fallible::SortedMap;
use doorbell_fallible::lock::TaskLock;
use msi_types::explain::Explanation;
use msi_types::{
    Attachment, BlockRequest, Cpu, DmaIsolation, DoorbellPage, Fit, Granule, HwIrq, HwIrqBlock,
    Isolation, LevelMessages, Move, MoveOutcome, MsiError, MsiMessage, MsiParent, NotDmaIsolated,
    NotIsolated, Pending, RequesterId, Tier,
};

/// A [`Layer`] on top of a parent.
///
/// Every message that a device stores was translated by the layer's [`hold`](Layer::hold). A
/// message is released once the device no longer stores it: when a move has finished, when its
/// vector has been freed, or immediately if a step fails.
pub struct LayeredParent<L, P: ?Sized> {
    layer: L,
    host: Arc<dyn Host>,
    records: TaskLock<Records>,
    parent: Arc<P>,
}

#[derive(Default)]
struct Records {
    vectors: SortedMap<HwIrq, DeviceMessages>,
    /// Messages whose vectors are being freed, each with the number of the freeing operation.
    /// Messages stay in this list until the parent has freed their vectors. The list has room for
    /// all vectors.
    freed: Vec<(u64, DeviceMessages)>,
    operations: u64,
}

impl Records {
    /// Records new vectors: either all of them or, if memory is exhausted, none.
    fn insert(
        &mut self,
        vectors: impl ExactSizeIterator<Item = HwIrq>,
        messages: DeviceMessages,
    ) -> Result<(), TryReserveError> {
        self.vectors.reserve_many(vectors.len())?;
        self.freed.try_reserve(self.vectors.len() + vectors.len())?;
        vectors.for_each(|hwirq| self.vectors.insert(hwirq, messages));
        Ok(())
    }

    /// Moves the records for a block's vectors to `freed`. Must be called before the parent frees
    /// the block, because another device may own the vectors afterwards.
    fn remove_block(&mut self, block: &HwIrqBlock, operation: u64) {
        for hwirq in block.hwirqs() {
            self.freed.extend(self.vectors.remove(hwirq).map(|messages| (operation, messages)));
        }
    }

    fn take_freed(&mut self, operation: u64) -> Option<DeviceMessages> {
        let index = self.freed.iter().position(|(by, _)| *by == operation)?;
        Some(self.freed.swap_remove(index).1)
    }
}

/// The messages that a device stores for one vector.
#[derive(Clone, Copy)]
struct DeviceMessages {
    device: RequesterId,
    /// Limits of the device's store.
    fit: Fit,
    /// The stored message. `None` until the message is composed, and for every vector in a group
    /// except the first.
    stored: Option<Passed>,
    /// The new message while a move is in progress, if the move changes it.
    moving: Option<Passed>,
    /// The message that deasserts a level.
    deassert: Option<Passed>,
}

/// A message in two forms: below the layer and above it.
#[derive(Clone, Copy)]
struct Passed {
    /// The message from the level below.
    below: MsiMessage,
    /// The message as the layer translated it.
    above: MsiMessage,
}

impl DeviceMessages {
    const fn by(device: RequesterId, fit: Fit) -> Self {
        Self { device, fit, stored: None, moving: None, deassert: None }
    }
}

impl<L: Layer, P: MsiParent + ?Sized> LayeredParent<L, P> {
    /// Puts `layer` over `parent`.
    pub fn new(layer: L, parent: Arc<P>, host: Arc<dyn Host>) -> Self {
        Self { layer, host, records: TaskLock::new(Records::default()), parent }
    }

    /// Returns the layer.
    pub fn layer(&self) -> &L {
        &self.layer
    }

    /// Returns the parent under the layer.
    pub fn parent(&self) -> &Arc<P> {
        &self.parent
    }

    fn with<T>(&self, act: impl FnOnce(&mut Records) -> T) -> T {
        act(&mut self.records.lock(&*self.host))
    }

    fn messages_of(&self, hwirq: HwIrq) -> Result<DeviceMessages, MsiError> {
        self.with(|records| records.vectors.get(hwirq).copied())
            .ok_or(MsiError::UnknownVector(hwirq))
    }

    fn note(&self, hwirq: HwIrq, change: impl FnOnce(&mut DeviceMessages)) {
        self.with(|records| records.vectors.get_mut(hwirq).map(change));
    }

    /// Has the layer translate a message for the device.
    fn pass(&self, to: &DeviceMessages, below: MsiMessage) -> Result<Passed, MsiError> {
        let above =
            if self.is_in_bridge() { below } else { self.layer.hold(to.device, below, to.fit)? };
        Ok(Passed { below, above })
    }

    /// Returns `true` if the host bridge takes the device's writes, so that they never reach the
    /// layer.
    fn is_in_bridge(&self) -> bool {
        self.parent.doorbell_page(Granule::Size4K) == DoorbellPage::InBridge
    }

    fn let_go(&self, device: RequesterId, messages: impl IntoIterator<Item = Option<Passed>>) {
        if self.is_in_bridge() {
            return;
        }
        for message in messages.into_iter().flatten() {
            self.layer.let_go(device, message.above);
        }
    }

    /// Returns a device's attachment to the parent. [`attach`](Self::attach) has checked that the
    /// layer forwards the requester.
    fn below(&self, device: &Attachment) -> Attachment {
        let above = device.requester();
        Attachment::new(self.layer.requester(above).unwrap_or(above), device.cookie())
    }

    fn allocate_below(
        &self,
        device: &Attachment,
        request: &BlockRequest,
        allocate: impl FnOnce(&Attachment, &BlockRequest) -> Result<HwIrqBlock, MsiError>,
    ) -> Result<HwIrqBlock, MsiError> {
        let below = self.below(device);
        let block = allocate(&below, &request.with_fit(self.layer.fit(request.fit)))?;
        let messages = DeviceMessages::by(device.requester(), request.fit);
        if self.with(|records| records.insert(block.hwirqs(), messages)).is_err() {
            self.parent.free(&below, block);
            return Err(MsiError::NoMemory("a layer's records"));
        }
        Ok(block)
    }

    fn begin_freeing(&self) -> u64 {
        self.with(|records| {
            records.operations += 1;
            records.operations
        })
    }

    /// Releases messages once the parent has freed their vectors.
    fn end_freeing(&self, operation: u64) {
        while let Some(messages) = self.with(|records| records.take_freed(operation)) {
            self.let_go(messages.device, [messages.stored, messages.moving, messages.deassert]);
        }
    }
}

impl<L: Layer, P: MsiParent + ?Sized> MsiParent for LayeredParent<L, P> {
    fn isolation(&self, of: RequesterId) -> Isolation {
        let Ok(requester) = self.layer.requester(of) else {
            return Isolation::NotIsolated(NotIsolated::NoController);
        };
        let below = self.parent.isolation(requester);
        self.layer.isolation(of, below, &|granule| self.parent.doorbell_page(granule))
    }

    fn dma_isolation(&self, of: RequesterId) -> DmaIsolation {
        let below = match self.layer.requester(of) {
            Ok(requester) => self.parent.dma_isolation(requester),
            Err(_) => DmaIsolation::NotIsolated(NotDmaIsolated::NoIommu),
        };
        self.layer.dma_isolation(of, below)
    }

    fn attach(&self, device: RequesterId, max: u32) -> Result<Attachment, MsiError> {
        let below = self.parent.attach(self.layer.requester(device)?, max)?;
        Ok(Attachment::new(device, below.cookie()))
    }

    fn detach(&self, device: Attachment) {
        self.parent.detach(self.below(&device));
    }

    fn allocate(
        &self,
        device: &Attachment,
        request: &BlockRequest,
    ) -> Result<HwIrqBlock, MsiError> {
        self.allocate_below(device, request, |device, below| self.parent.allocate(device, below))
    }

    fn allocate_managed(
        &self,
        device: &Attachment,
        request: &BlockRequest,
        among: &[Cpu],
    ) -> Result<HwIrqBlock, MsiError> {
        self.allocate_below(device, request, |device, below| {
            self.parent.allocate_managed(device, below, among)
        })
    }

    fn free(&self, device: &Attachment, block: HwIrqBlock) {
        let operation = self.begin_freeing();
        self.with(|records| records.remove_block(&block, operation));
        self.parent.free(&self.below(device), block);
        self.end_freeing(operation);
    }

    fn release(&self, device: Attachment, blocks: &mut dyn Iterator<Item = HwIrqBlock>) {
        let operation = self.begin_freeing();
        let removed =
            |block: &HwIrqBlock| self.with(|records| records.remove_block(block, operation));
        self.parent.release(self.below(&device), &mut blocks.inspect(removed));
        self.end_freeing(operation);
    }

    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError> {
        let hwirq = block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?;
        let messages = self.messages_of(hwirq)?;
        let passed = self.pass(&messages, self.parent.compose(block, index)?)?;
        self.note(hwirq, |messages| messages.stored = Some(passed));
        self.let_go(messages.device, [messages.stored]);
        Ok(passed.above)
    }

    fn compose_level(&self, block: &HwIrqBlock, index: u16) -> Result<LevelMessages, MsiError> {
        let hwirq = block.hwirq(index).ok_or(MsiError::UnknownVector(block.first()))?;
        let messages = self.messages_of(hwirq)?;
        let below = self.parent.compose_level(block, index)?;
        let assert = self.pass(&messages, below.assert)?;
        let deassert = self.pass(&messages, below.deassert);
        let deassert = deassert.inspect_err(|_| self.let_go(messages.device, [Some(assert)]))?;
        self.note(hwirq, |messages| {
            messages.stored = Some(assert);
            messages.deassert = Some(deassert);
        });
        self.let_go(messages.device, [messages.stored, messages.deassert]);
        Ok(LevelMessages { assert: assert.above, deassert: deassert.above })
    }

    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError> {
        let moved = self.parent.begin_move(block, index, to)?;
        let Some(below) = moved.message else { return Ok(moved) };
        let messages = self.messages_of(moved.first);
        let passed = match messages.and_then(|messages| self.pass(&messages, below)) {
            Ok(passed) => passed,
            Err(error) => {
                // Report the first error.
                let _ = self.parent.end_move(moved, MoveOutcome::RolledBack);
                return Err(error);
            }
        };
        self.note(moved.first, |messages| messages.moving = Some(passed));
        Ok(Move { message: Some(passed.above), ..moved })
    }

    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError> {
        let hwirq = moved.first;
        let messages = self.messages_of(hwirq);
        let message = messages.ok().and_then(|messages| messages.moving).map(|passed| passed.below);
        let result = self.parent.end_move(Move { message, ..moved }, outcome);
        // The device's message is authoritative, even if the controller failed to finish the move.
        if let Ok(DeviceMessages { device, stored, moving: Some(new), .. }) = messages {
            let (stays, goes) = match outcome {
                MoveOutcome::Written => (Some(new), stored),
                MoveOutcome::RolledBack => (stored, Some(new)),
            };
            self.note(hwirq, |messages| {
                messages.stored = stays;
                messages.moving = None;
            });
            self.let_go(device, [goes]);
        }
        result
    }

    fn mask(&self, hwirq: HwIrq) {
        self.parent.mask(hwirq);
    }

    fn unmask(&self, hwirq: HwIrq) {
        self.parent.unmask(hwirq);
    }

    fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        self.parent.set_pending(hwirq, pending);
    }

    fn line(&self, hwirq: HwIrq) -> Option<HwIrq> {
        self.parent.line(hwirq)
    }

    fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        self.parent.is_pending(hwirq)
    }

    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        visit(&self.layer.tier());
        self.parent.tiers(visit);
    }

    fn doorbell_page(&self, granule: Granule) -> DoorbellPage {
        self.parent.doorbell_page(granule)
    }

    fn explain(&self, hwirq: HwIrq, requester: RequesterId) -> Explanation {
        let messages = self.messages_of(hwirq).ok();
        let layer = messages.and_then(|DeviceMessages { device, stored, .. }| {
            let Passed { below, above } = stored?;
            Some(self.layer.explain(device, above, below))
        });
        let below = self.layer.requester(requester).unwrap_or(requester);
        layer.unwrap_or_default().merge(self.parent.explain(hwirq, below))
    }

    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result {
        if let Ok(DeviceMessages { device, stored, .. }) = self.messages_of(hwirq) {
            self.layer.describe(device, out)?;
            if let Some(Passed { below, .. }) = stored {
                writeln!(out, "  to address {:#x}, data {:#x} below", below.address, below.data)?;
            }
        }
        self.parent.describe(hwirq, out)
    }
}

impl<L, P: ?Sized> fmt::Debug for LayeredParent<L, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LayeredParent(..)")
    }
}
