//! The interface between a device's vectors and their controller, or a layer over one, and the
//! interface between the root controller's wired interrupts and the drivers that use them.

use crate::explain::Explanation;
use crate::{
    Capabilities, Cpu, DmaIsolation, DoorbellPage, Fit, Granule, HwIrq, Isolation, LevelMessages,
    MsiError, MsiMessage, NotDmaIsolated, Pending, RequesterId, Tier, Trigger,
};
use core::fmt;
use core::num::NonZeroU16;

/// The relation between the vectors in a block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shape {
    /// Each vector has its own message and affinity (MSI-X, IMS).
    Independent,
    /// All vectors share one message, and the device replaces its low data bits (Multi-MSI). The
    /// number of vectors must be a power of two, and the message's data is a multiple of it. If the
    /// message encodes the target CPU, the group can only move as a whole.
    AlignedGroup,
}

/// The state in which a controller allocates new vectors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Initially {
    /// Vectors are forwarded immediately. For endpoints that mask vectors themselves, this saves
    /// one invalidation per vector.
    Unmasked,
    /// Vectors are masked at the controller until [`MsiParent::unmask`] is called.
    Masked,
}

/// An endpoint's request for vectors.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BlockRequest {
    /// Number of vectors.
    pub count: NonZeroU16,
    /// The relation between the vectors.
    pub shape: Shape,
    /// Limits of the endpoint's store.
    pub fit: Fit,
    /// The initial target CPU.
    pub cpu: Cpu,
    /// Initial mask at the controller.
    pub initially: Initially,
}

impl BlockRequest {
    /// Creates a request for independent vectors that initially target `cpu` and are unmasked.
    pub const fn new(count: NonZeroU16, fit: Fit, cpu: Cpu) -> Self {
        Self { count, shape: Shape::Independent, fit, cpu, initially: Initially::Unmasked }
    }

    crate::setters! {
        with_shape: shape: Shape,
        with_fit: fit: Fit,
        with_cpu: cpu: Cpu,
        with_initially: initially: Initially,
    }
}

/// A device that is attached to a controller. [`MsiParent::attach`] returns it and
/// [`MsiParent::detach`] consumes it. An attachment isn't `Clone`, so a device cannot be detached
/// twice.
///
/// An attachment names its requester as the parent that returned it identifies the device, so a
/// level that needs the device's identity never has to look it up by another level's `cookie`:
/// controllers without a table of devices give all devices the same one.
#[doc(alias = "msi_prepare")]
#[derive(Debug)]
#[must_use = "a device stays attached until its attachment is passed to `detach`"]
pub struct Attachment {
    requester: RequesterId,
    cookie: u32,
}

impl Attachment {
    /// Creates the attachment of a requester. Only implementations of [`MsiParent`] should call
    /// this, because only the one that chose `cookie` knows what it means.
    pub const fn new(requester: RequesterId, cookie: u32) -> Self {
        Self { requester, cookie }
    }

    /// Returns the requester that [`MsiParent::attach`] attached.
    pub const fn requester(&self) -> RequesterId {
        self.requester
    }

    /// Returns the number that was passed to [`Attachment::new`]. Only implementations of
    /// [`MsiParent`] need this number.
    pub const fn cookie(&self) -> u32 {
        self.cookie
    }
}

/// Consecutive [`HwIrq`]s with one owner, who must free them with [`MsiParent::free`]. A block
/// isn't `Clone`, so its vectors cannot be freed twice.
#[doc(alias = "nr_irqs")]
#[derive(Debug, PartialEq, Eq)]
#[must_use = "vectors stay allocated until the block is passed to `free`"]
pub struct HwIrqBlock {
    first: HwIrq,
    count: NonZeroU16,
}

impl HwIrqBlock {
    /// Creates a block. Only implementations of [`MsiParent`] should call this. The range must not
    /// wrap around the end of the number space.
    pub const fn new(first: HwIrq, count: NonZeroU16) -> Self {
        Self { first, count }
    }

    /// Returns the lowest vector.
    pub const fn first(&self) -> HwIrq {
        self.first
    }

    /// Returns the number of vectors.
    pub const fn count(&self) -> NonZeroU16 {
        self.count
    }

    /// Returns the vector at `index`, or `None` if `index` is past the end.
    pub const fn hwirq(&self, index: u16) -> Option<HwIrq> {
        if index < self.count.get() { self.first.checked_add(index as u32) } else { None }
    }

    /// Returns the vector at this index of the block, or [`MsiError::UnknownVector`].
    pub fn nth(&self, index: u16) -> Result<HwIrq, MsiError> {
        self.hwirq(index).ok_or(MsiError::UnknownVector(self.first))
    }

    /// Returns the vectors of the block, in order.
    pub fn hwirqs(&self) -> impl ExactSizeIterator<Item = HwIrq> + Clone + use<> {
        let first = self.first.get();
        (0..self.count.get()).map(move |index| HwIrq::new(first.saturating_add(index.into())))
    }

    /// Splits the block into single vectors, in order. The parts can be freed separately and in any
    /// order. Only a block with [`Shape::Independent`] may be split; an aligned group must be freed
    /// as a whole.
    pub fn split(self) -> impl ExactSizeIterator<Item = Self> {
        self.hwirqs().map(|hwirq| Self::new(hwirq, NonZeroU16::MIN))
    }

    /// Returns the index of `hwirq` in the block, or `None` if the block does not contain it.
    pub fn index_of(&self, hwirq: HwIrq) -> Option<u16> {
        let offset = hwirq.get().checked_sub(self.first.get())?;
        u16::try_from(offset).ok().filter(|index| *index < self.count.get())
    }
}

/// An affinity change in progress. If [`message`](Move::message) is `Some`, the caller must rewrite
/// the endpoint's store between [`MsiParent::begin_move`] and [`MsiParent::end_move`].
#[derive(Debug)]
#[must_use = "a move must be finished by `end_move`"]
pub struct Move {
    /// The first vector that moves: either the only one, or the first of its group.
    pub first: HwIrq,
    /// Number of vectors.
    pub count: NonZeroU16,
    /// The first vector's new message, or `None` if the stored one does not change.
    pub message: Option<MsiMessage>,
    /// CPU before the move.
    pub from: Cpu,
    /// CPU after the move.
    pub to: Cpu,
}

/// Result of rewriting the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MoveOutcome {
    /// The new message was written and read back, or no change was needed.
    Written,
    /// The store failed and still holds the old message. The controller must restore the old
    /// target.
    RolledBack,
}

/// A controller, or a layer over one, as seen by the devices whose vectors it allocates. One object
/// serves one bus or one platform device, and knows how the controller identifies the requesters on
/// it. The trait is object safe; implementations must lock internally.
///
/// Each operation states its [context](crate#contexts).
#[doc(alias = "msi_parent_ops")]
pub trait MsiParent: Send + Sync {
    /// Returns whether this requester is prevented from triggering other requesters' interrupts.
    ///
    /// Context: any.
    #[doc(alias = "IRQ_DOMAIN_FLAG_ISOLATED_MSI")]
    fn isolation(&self, of: RequesterId) -> Isolation;

    /// Returns whether this requester is prevented from accessing memory that does not belong to
    /// it. Only a layer that drives the IOMMU in front of the requester needs to implement this: a
    /// controller alone cannot isolate memory.
    ///
    /// Context: any.
    fn dma_isolation(&self, of: RequesterId) -> DmaIsolation {
        let _ = of;
        DmaIsolation::NotIsolated(NotDmaIsolated::NoIommu)
    }

    /// Attaches a device and prepares for up to `max` vectors. If the controller cannot tell some
    /// requesters apart, they share one set of tables, but each caller still receives a separate
    /// [`Attachment`].
    ///
    /// Context: task; may sleep.
    ///
    /// By default, the controller keeps nothing for each device.
    fn attach(&self, device: RequesterId, max: u32) -> Result<Attachment, MsiError> {
        let _ = max;
        Ok(Attachment::new(device, 0))
    }

    /// Removes an attachment, all blocks of which must already have been freed. Removing a device's
    /// last attachment also removes the device from the controller.
    ///
    /// Context: task; may sleep.
    fn detach(&self, device: Attachment) {
        let _ = device;
    }

    /// Allocates vectors that target [`BlockRequest::cpu`]: either all of them or none.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns the endpoint's limit that the controller cannot meet. The controller never allocates
    /// fewer vectors than requested.
    fn allocate(&self, device: &Attachment, request: &BlockRequest)
    -> Result<HwIrqBlock, MsiError>;

    /// Allocates vectors like [`allocate`](Self::allocate), except that each is only ever delivered
    /// to one of `among`, even as those CPUs go online and offline. The controller reserves
    /// resources on each of these CPUs, online or not, so that a move between them cannot fail for
    /// lack of resources. A controller whose vectors are not a per-CPU resource need not reserve
    /// anything.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`MsiError::NoVectors`] if one of the CPUs has no resources left. Otherwise, returns the
    /// endpoint's limit that the controller cannot meet.
    fn allocate_managed(
        &self,
        device: &Attachment,
        request: &BlockRequest,
        among: &[Cpu],
    ) -> Result<HwIrqBlock, MsiError> {
        let _ = among;
        self.allocate(device, request)
    }

    /// Frees vectors: either a whole block, or a part that was [split](HwIrqBlock::split) off an
    /// independent one. After this call, the vectors can no longer become pending.
    ///
    /// Context: task; may sleep.
    fn free(&self, device: &Attachment, block: HwIrqBlock);

    /// Frees all of an attachment's vectors and removes it. This is like [`free`](Self::free) for
    /// each block in `blocks`, followed by [`detach`](Self::detach), but in a single operation if
    /// the controller supports that. `blocks` must yield every block, whole or split, that was
    /// allocated through this attachment and has not been freed yet.
    ///
    /// Context: task; may sleep.
    fn release(&self, device: Attachment, blocks: &mut dyn Iterator<Item = HwIrqBlock>) {
        blocks.for_each(|block| self.free(&device, block));
        self.detach(device);
    }

    /// Returns the message that makes the vector at `index` of `block` pending. Only index 0 of an
    /// aligned group has a message; the device derives the others from it. An implementation may
    /// have to call another party, such as a hypervisor.
    ///
    /// Context: task; may sleep.
    #[doc(alias = "irq_compose_msi_msg")]
    fn compose(&self, block: &HwIrqBlock, index: u16) -> Result<MsiMessage, MsiError>;

    /// Makes the vector at `index` of `block` level-triggered until it is freed, and returns its
    /// two messages. These messages replace the one from [`compose`](Self::compose). The vector
    /// must be masked.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`MsiError::NoLevels`] if the controller has no second message. The provided method always
    /// returns this.
    fn compose_level(&self, block: &HwIrqBlock, index: u16) -> Result<LevelMessages, MsiError> {
        let _ = (block, index);
        Err(MsiError::NoLevels)
    }

    /// Prepares to deliver the vector at `index` of `block` to the CPU `to`. The result tells the
    /// caller which other vectors move with this one, and whether the stored message must change.
    ///
    /// Context: task; may sleep.
    #[doc(alias = "irq_set_affinity")]
    fn begin_move(&self, block: &HwIrqBlock, index: u16, to: Cpu) -> Result<Move, MsiError>;

    /// Finishes a move begun by [`begin_move`](Self::begin_move). If `outcome` is
    /// [`Written`](MoveOutcome::Written), the old CPU receives no new message after this call. A
    /// vector that was pending at the old CPU is delivered once, to either the old or the new CPU.
    ///
    /// Context: task; may sleep.
    fn end_move(&self, moved: Move, outcome: MoveOutcome) -> Result<(), MsiError>;

    /// Masks the vector at the controller. A message that arrives while it is masked makes it
    /// pending.
    ///
    /// Context: any.
    fn mask(&self, hwirq: HwIrq);

    /// Unmasks the vector at the controller.
    ///
    /// Context: any.
    fn unmask(&self, hwirq: HwIrq);

    /// Makes the vector pending as its device would, or clears its pending state.
    ///
    /// Context: any.
    #[doc(alias = "irq_set_irqchip_state")]
    #[doc(alias = "irq_retrigger")]
    fn set_pending(&self, hwirq: HwIrq, pending: Pending);

    /// Returns the wired interrupt of the root controller that signals this vector, if the
    /// controller is chained: the handler of that interrupt, the line, finds out which vectors
    /// arrived. All vectors of a line have its target CPU, so the core moves lines and never calls
    /// [`begin_move`](Self::begin_move) for their vectors. Before it frees one, whose device is
    /// silent by then, it clears the vector's pending state and waits for a run of the line's
    /// handler to end. The provided method returns `None`: the root controller itself acknowledges
    /// the vector.
    ///
    /// Context: any.
    fn line(&self, hwirq: HwIrq) -> Option<HwIrq> {
        let _ = hwirq;
        None
    }

    /// Returns whether the vector is pending; `None` if the hardware cannot report it, as for
    /// physical LPIs.
    ///
    /// Context: any.
    fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        let _ = hwirq;
        None
    }

    /// Calls `visit` for each level of the hierarchy, from the one next to the endpoint to the
    /// root. A level describes the capabilities that it offers and requires
    /// ([`negotiate`](crate::negotiate)). The provided method describes a controller that offers
    /// every capability; a controller that uses it must refuse requests that it cannot meet.
    ///
    /// Context: any.
    fn tiers(&self, visit: &mut dyn FnMut(&Tier)) {
        visit(&Tier::new("controller").with_provides(Capabilities::ALL));
    }

    /// Returns the other contents of the pages that contain this controller's doorbells, for pages
    /// of this size. Mapping a doorbell for a device also maps these contents.
    ///
    /// Context: any.
    fn doorbell_page(&self, granule: Granule) -> DoorbellPage {
        let _ = granule;
        DoorbellPage::Unknown
    }

    /// Explains how far this vector's message gets between the endpoint and the target CPU, by
    /// reading the hardware's registers and tables. Must not have side effects that software can
    /// observe. `requester` is the device's requester ID as its bus reports it. The provided method
    /// returns an empty explanation.
    ///
    /// Context: task; may sleep.
    fn explain(&self, hwirq: HwIrq, requester: RequesterId) -> Explanation {
        let _ = (hwirq, requester);
        Explanation::new()
    }

    /// Writes one readable line for each level of the hierarchy below this vector, the root last.
    /// Lines start with the level's name, and continuation lines with two spaces. The caller
    /// indents them.
    ///
    /// Context: task; may sleep.
    fn describe(&self, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result;
}

/// Wired interrupts of the root controller, by INTID. MBI, GICv2m, Hyper-V's SPIs and drivers of
/// wired devices build on this interface. The trait is object safe; implementations must lock
/// internally.
///
/// Each operation states its [context](crate#contexts).
#[doc(alias = "irq_domain")]
pub trait WiredParent: Send + Sync {
    /// Claims `count` consecutive interrupts, the first of which is `first`, for one owner. Claims
    /// all of them or none.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`MsiError::UnknownVector`] with the first interrupt that is not implemented, or
    /// [`MsiError::InUse`] with the first one that is already claimed.
    fn claim(&self, first: HwIrq, count: NonZeroU16) -> Result<(), MsiError>;
    /// Releases interrupts. After the call, the interrupts are disabled and not pending.
    ///
    /// Context: task; may sleep.
    fn release(&self, first: HwIrq, count: NonZeroU16);
    /// Sets the trigger mode of the interrupt, which must be masked.
    ///
    /// Context: task; may sleep.
    fn set_trigger(&self, hwirq: HwIrq, trigger: Trigger) -> Result<(), MsiError>;
    /// Routes the interrupt to a CPU.
    ///
    /// Context: task; may sleep.
    fn set_target(&self, hwirq: HwIrq, cpu: Cpu) -> Result<(), MsiError>;
    /// Disables forwarding of the interrupt, and waits until the hardware has done so.
    ///
    /// Context: any.
    fn mask(&self, hwirq: HwIrq);
    /// Enables forwarding of the interrupt.
    ///
    /// Context: any.
    fn unmask(&self, hwirq: HwIrq);
    /// Sets or clears the pending state of the interrupt.
    ///
    /// Context: any.
    fn set_pending(&self, hwirq: HwIrq, pending: Pending);
    /// Returns `true` if the interrupt is pending (at the distributor or a redistributor).
    ///
    /// Context: any.
    fn is_pending(&self, hwirq: HwIrq) -> bool;
    /// Returns `true` if each CPU has its own interrupt with this number (on a GIC: an implemented
    /// SGI or PPI). The core refuses requests for other private interrupts. The provided method
    /// returns `true`.
    ///
    /// Context: task; may sleep.
    fn has_private(&self, hwirq: HwIrq) -> bool {
        let _ = hwirq;
        true
    }
    /// Explains how far the interrupt gets in this controller, by reading the hardware's registers.
    /// A private interrupt is explained for the calling CPU. The provided method returns an empty
    /// explanation.
    ///
    /// Context: task; may sleep.
    fn explain(&self, hwirq: HwIrq) -> Explanation {
        let _ = hwirq;
        Explanation::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_maps_indices_to_vectors_and_back() {
        let block = HwIrqBlock::new(HwIrq::new(8200), NonZeroU16::new(4).unwrap());
        for index in 0..4 {
            assert_eq!(block.index_of(block.hwirq(index).unwrap()), Some(index));
        }
        assert_eq!(block.hwirq(4), None);
        assert_eq!(block.index_of(HwIrq::new(8199)), None);
        assert_eq!(block.index_of(HwIrq::new(8204)), None);
    }

    #[test]
    fn splitting_a_block_yields_its_vectors_in_order() {
        let block = HwIrqBlock::new(HwIrq::new(8200), NonZeroU16::new(3).unwrap());
        let single = |hwirq| HwIrqBlock::new(HwIrq::new(hwirq), NonZeroU16::MIN);
        assert!(block.split().eq([8200, 8201, 8202].map(single)));
    }
}
