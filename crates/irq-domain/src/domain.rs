//! A device's message-signalled interrupts: one domain per device, between its message store and
//! its controller.

mod allocation;
pub(crate) mod bridge;
mod counts;
mod managed;
mod negotiation;
mod relocation;
mod restore;
mod shared_attachment;
mod shared_device;
mod source;
mod teardown;

use shared_attachment::SharedAttachment;
pub use shared_device::{SharedDevice, SharedDeviceConfig};

use crate::error::{MsiDeviceError, RequestError};
use crate::host::Host;
use crate::interrupts::Interrupts;
use crate::irq::descriptor::Descriptor;
use crate::irq::flow::Start;
use crate::irq::handler::Handler;
use crate::irq::handler::{IrqContext, IrqReturn};
use crate::irq::registry::IrqRegistry;
use crate::name::Name;
use crate::number::Irq;
use crate::request::deferred_free::{TakenOnDrop, Teardown};
use crate::request::handle::IrqHandle;
use crate::request::parts::IrqCore;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;
use doorbell_fallible::{Shared, SortedMap, try_collect};
use doorbell_lock::TaskLock;
use msi_types::{
    Cpu, DmaIsolated, FastMask, HwIrq, HwIrqBlock, InterruptIsolated, Isolation, Masking,
    MessageStore, MsiMessage, MsiParent, NotDmaIsolated, NotIsolated, RequesterId, Shape,
    StoreError, Trigger,
};

/// A device, as its bus knows it.
#[non_exhaustive]
pub struct MsiDeviceConfig<'a> {
    /// For people: the function's address, or the node's name.
    pub name: &'a str,
    /// The device's requester ID.
    pub requester: RequesterId,
    /// The controller that serves it, with the layers between.
    pub parent: Arc<dyn MsiParent>,
    /// The store of its messages.
    pub store: Arc<dyn MessageStore>,
}

impl<'a> MsiDeviceConfig<'a> {
    /// A device of this name and requester ID, served by `parent`, with its messages in `store`.
    pub fn new(
        name: &'a str,
        requester: RequesterId,
        parent: Arc<dyn MsiParent>,
        store: Arc<dyn MessageStore>,
    ) -> Self {
        Self { name, requester, parent, store }
    }
}

impl fmt::Debug for MsiDeviceConfig<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MsiDeviceConfig")
            .field("name", &self.name)
            .field("requester", &self.requester)
            .finish_non_exhaustive()
    }
}

/// A vector that a device was granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsiVector {
    /// Its slot in the device's message store: the MSI-X table index, or the MultiMSI message
    /// number.
    pub slot: u16,
    /// Its IRQ number.
    pub irq: Irq,
    /// The interrupt as the root controller acknowledges it.
    pub hwirq: HwIrq,
    /// The CPU that it is delivered to.
    pub cpu: Cpu,
}

/// A device's own interrupt domain: its vectors stand between its message store and its controller,
/// and its users see neither. A device with several stores (MSI-X and IMS) has several of
/// these, on one [`SharedDevice`].
///
/// The way of a driver: [`attach`](Self::attach), [`allocate`](Self::allocate),
/// [`request`](Self::request) for each slot; later, one by one, [`allocate_at`](Self::allocate_at)
/// and [`free`](Self::free). Dropping it undoes everything, in the order that lets no message slip
/// through. Handlers are removed, the store is turned off, and the vectors and the device are given
/// back to the controller. Handles that outlive it are inert. Dropped where the caller [may not
/// wait](crate::TaskContext::may_wait), all that is put off to a later task operation; handlers may
/// run until then.
#[must_use = "dropping the domain tears it down"]
pub struct MsiDevice {
    core: Shared<IrqCore>,
    domain: Shared<Domain>,
    owner: TakenOnDrop<dyn Teardown>,
}

impl MsiDevice {
    /// Attaches the device to its controller.
    ///
    /// Context: task; may sleep.
    pub fn attach(
        interrupts: &Interrupts,
        config: MsiDeviceConfig<'_>,
    ) -> Result<Self, MsiDeviceError> {
        let core = &interrupts.core;
        core.reclaim();
        let slots = config.store.slots();
        if slots == 0 {
            return Err(MsiDeviceError::TooFewSlots { free: 0, wanted: 1 });
        }
        Domain::check(&*config.parent, config.requester, &*config.store)?;
        let attachment = SharedAttachment::try_new(config.parent, config.requester)?;
        let device = Self::on_attachment(core, config.name, attachment.clone(), config.store)?;
        attachment.attach(core.host(), u32::from(slots))?;
        Ok(device)
    }

    /// Creates a domain on an attachment, of which the caller must have made it a user.
    ///
    /// Context: task; may sleep.
    fn on_attachment(
        core: &Shared<IrqCore>,
        name: &str,
        attachment: Shared<SharedAttachment>,
        store: Arc<dyn MessageStore>,
    ) -> Result<Self, TryReserveError> {
        let state = TaskLock::new(DomainState::default());
        let domain =
            Shared::try_new(Domain { name: Name::try_new(name)?, attachment, store, state })?;
        let owner =
            Shared::<dyn Teardown>::try_unsized(DomainOwner(domain.clone()), |block| block)?;
        core.deferred.reserve(core.host())?;
        Ok(Self { core: core.clone(), domain, owner: TakenOnDrop::new(owner) })
    }

    /// Grants the device vectors at its lowest free slots: as many of the `wanted` range of counts
    /// as the controller can allocate, beginning with the most. Places them on CPUs, writes their
    /// messages, and turns the store on. They are held back until they are
    /// [requested](Self::request): at the endpoint if it can mask them, otherwise by the core,
    /// which sends messages that arrived too early again.
    ///
    /// [`Shape::Independent`] (MSI-X) can be allocated several times. [`Shape::AlignedGroup`]
    /// (MultiMSI) is granted in powers of two, once, on one CPU. A store that [signals by
    /// levels](MessageStore::trigger) requires a controller that supports them; its handlers must
    /// make their device deassert the level before they return. If a step fails, all previous ones
    /// are rolled back.
    ///
    /// Context: task; may sleep.
    pub fn allocate(
        &self,
        shape: Shape,
        wanted: RangeInclusive<u16>,
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        self.core.reclaim();
        Domain::allocate(&self.domain, &self.core, shape, wanted)
    }

    /// Grants the device a vector at each of the given slots, at any position in its store, before
    /// or after others are in use. Intended for devices that add vectors one by one. If a step
    /// fails, all previous ones are rolled back.
    ///
    /// Context: task; may sleep.
    pub fn allocate_at(&self, slots: &[u16]) -> Result<Vec<MsiVector>, MsiDeviceError> {
        self.core.reclaim();
        Domain::allocate_at(&self.domain, &self.core, slots)
    }

    /// Grants the device a vector at `slot` that is delivered only to one of `among`, for example
    /// the CPUs of a queue. It is assigned to the online CPU that has the fewest managed vectors.
    /// When its CPU goes offline, it moves to another one of them. When the last of them goes
    /// offline, it is shut down until the first is online again; its device's messages stay pending
    /// in the meantime. The controller reserves the resources that these moves require.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// As for [`allocate_at`](Self::allocate_at); [`MsiDeviceError::NoCpu`] if none of them is
    /// online.
    pub fn allocate_managed(
        &self,
        slot: u16,
        among: &[Cpu],
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        self.core.reclaim();
        Domain::allocate_managed(&self.domain, &self.core, slot, among)
    }

    /// Frees the vector at `slot`, with its handler. Its handle has no effect afterwards. The slot
    /// can be allocated again, in any way. Must not be called within the handler.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`MsiDeviceError::NoVector`]; [`MsiDeviceError::OfAGroup`], because a group can be freed
    /// only as a whole, by tearing the domain down. [`MsiDeviceError::Store`] if the store refused
    /// the write; the vector was freed nevertheless.
    pub fn free(&self, slot: u16) -> Result<(), MsiDeviceError> {
        self.core.reclaim();
        self.domain.free(&self.core.registry, slot)
    }

    /// Installs the handler of the vector at `slot`, and enables the vector.
    ///
    /// Context: task; may sleep.
    pub fn request<R: Into<IrqReturn>>(
        &self,
        slot: u16,
        name: &str,
        handler: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<IrqHandle, RequestError> {
        self.install(slot, name, Handler::try_new(handler)?, Start::Enabled)
    }

    /// Installs the handler of the vector at `slot`. The vector is disabled until the first
    /// [`IrqHandle::enable`].
    ///
    /// Context: task; may sleep.
    pub fn request_disabled<R: Into<IrqReturn>>(
        &self,
        slot: u16,
        name: &str,
        handler: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<IrqHandle, RequestError> {
        self.install(slot, name, Handler::try_new(handler)?, Start::Disabled)
    }

    fn install(
        &self,
        slot: u16,
        name: &str,
        handler: Handler,
        start: Start,
    ) -> Result<IrqHandle, RequestError> {
        self.core.reclaim();
        let descriptor =
            self.domain.descriptor(self.core.host(), slot).ok_or(RequestError::NoVector(slot))?;
        self.core.registry.free_handler(&descriptor);
        IrqHandle::install(&self.core, &descriptor, name, handler, start)
    }

    /// Writes the messages, masks and enable of all vectors again, after the device lost them in a
    /// function-level reset or a suspend. The bus driver must call it when it resumes the device:
    /// after interrupt controllers have resumed, after it restored the registers that accesses to
    /// the store require (a PCI function's command register and BARs, and those of bridges above
    /// it), and before the device's own driver starts the device again. Vectors must not be enabled
    /// or disabled between the loss and this call.
    ///
    /// A message that the device had to send in the meantime is lost with its state: the driver of
    /// a device that can wake the system must check the device after this call.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`MsiDeviceError::Store`] if the device refused a write. The call can be repeated.
    pub fn restore(&self) -> Result<(), MsiDeviceError> {
        self.domain.restore(&self.core.registry)
    }

    /// Frees all vectors and detaches the device, like dropping, but reports whether the store
    /// could be turned off.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The store refused a write, because the device is absent or broken. Handlers, vectors and the
    /// attachment were freed nevertheless.
    pub fn tear_down(self) -> Result<(), StoreError> {
        Domain::tear_down(&self.domain, &self.core.registry)
    }

    /// Returns the vectors granted so far, by ascending slot.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub fn vectors(&self) -> Result<Vec<MsiVector>, TryReserveError> {
        let state = self.domain.state.lock(self.core.host());
        try_collect(state.vectors.iter().map(|(slot, entry)| entry.info(slot)))
    }

    /// Returns the vector at `slot`; `None` if the slot has none.
    ///
    /// Context: task; may sleep.
    pub fn vector(&self, slot: u16) -> Option<MsiVector> {
        let state = self.domain.state.lock(self.core.host());
        state.vectors.get(slot).map(|entry| entry.info(slot))
    }

    /// Returns the message that the store holds at `slot`; `None` if the slot has no vector, and
    /// for all vectors of a group except the first.
    ///
    /// Context: task; may sleep.
    pub fn message(&self, slot: u16) -> Option<MsiMessage> {
        self.domain.state.lock(self.core.host()).vectors.get(slot)?.message
    }

    /// Returns the message that the device sends for the vector at `slot`, for devices that keep
    /// copies of it elsewhere: the message that the store holds, or the one that the device derives
    /// from its group's message. It changes when the interrupt moves.
    ///
    /// Context: task; may sleep.
    pub fn sent_message(&self, slot: u16) -> Option<MsiMessage> {
        self.domain.sent_message(self.core.host(), slot)
    }

    /// Returns whether the device is prevented from triggering other devices' interrupts.
    ///
    /// Context: any.
    pub fn isolation(&self) -> Isolation {
        self.domain.parent().isolation(self.domain.attachment.requester)
    }

    /// Returns a proof of this isolation, which passthrough requires, or the reason why it does not
    /// hold.
    ///
    /// Context: any.
    pub fn prove_isolated(&self) -> Result<InterruptIsolated<'_>, NotIsolated> {
        InterruptIsolated::prove(self.domain.parent(), self.domain.attachment.requester)
    }

    /// Returns a proof that the device is prevented from accessing memory that does not belong to
    /// it, which passthrough requires as well, or the reason why it does not hold.
    ///
    /// Context: any.
    pub fn prove_dma_isolated(&self) -> Result<DmaIsolated<'_>, NotDmaIsolated> {
        DmaIsolated::prove(self.domain.parent(), self.domain.attachment.requester)
    }

    /// Returns the device's name.
    ///
    /// Context: any.
    pub fn name(&self) -> &str {
        &self.domain.name
    }
}

impl Drop for MsiDevice {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            self.core.deferred.release_owner(&self.core.registry, owner);
        }
    }
}

impl fmt::Debug for MsiDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MsiDevice").field("name", &self.domain.name).finish_non_exhaustive()
    }
}

/// The ownership of a domain that ends with its [`MsiDevice`].
struct DomainOwner(Shared<Domain>);

impl Teardown for DomainOwner {
    fn tear_down(&self, registry: &IrqRegistry) {
        // `MsiDevice::tear_down` is for callers that want the error of the store.
        let _ = Domain::tear_down(&self.0, registry);
    }
}

/// State that a [`MsiDevice`] and its interrupts share.
pub(crate) struct Domain {
    pub(crate) name: Name,
    pub(crate) attachment: Shared<SharedAttachment>,
    store: Arc<dyn MessageStore>,
    state: TaskLock<DomainState>,
}

#[derive(Default)]
struct DomainState {
    /// The domain was torn down.
    gone: bool,
    enable: StoreEnable,
    /// By their first slot.
    allocations: SortedMap<u16, Allocation>,
    /// By slot, sparse.
    vectors: SortedMap<u16, DeviceVector>,
}

/// May the store send?
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum StoreEnable {
    #[default]
    Off,
    On,
}

/// Unit of freeing at the controller: an independent vector or a group. Its vectors are in
/// consecutive slots.
struct Allocation {
    block: HwIrqBlock,
    shape: Shape,
    /// The slot of its first vector.
    first: u16,
}

impl Allocation {
    fn slots(&self) -> impl Iterator<Item = u16> + Clone {
        (self.first..=u16::MAX).take(self.block.count().get().into())
    }
}

/// A vector of the device.
struct DeviceVector {
    /// The first slot of its allocation.
    first: u16,
    descriptor: Shared<Descriptor>,
    /// The message in the store; of a group only the first vector has one.
    message: Option<MsiMessage>,
    /// The second message of a level.
    deassert: Option<MsiMessage>,
}

impl DeviceVector {
    fn info(&self, slot: u16) -> MsiVector {
        MsiVector {
            slot,
            irq: self.descriptor.irq,
            hwirq: self.descriptor.hwirq,
            cpu: self.descriptor.target(),
        }
    }
}

impl Domain {
    pub(crate) fn parent(&self) -> &dyn MsiParent {
        &*self.attachment.parent
    }

    /// Returns the endpoint's mask, if it can mask vectors in any context. Only the controller can
    /// mask a level that was asserted.
    ///
    /// Context: any.
    fn endpoint_mask(&self) -> Option<&dyn FastMask> {
        self.store.fast_mask().filter(|_| self.store.trigger() == Trigger::Edge)
    }

    /// Masks a vector: at the endpoint if that is possible in any context, otherwise at the
    /// controller.
    ///
    /// Context: any.
    pub(crate) fn mask(&self, slot: u16, hwirq: HwIrq) {
        match self.endpoint_mask() {
            Some(endpoint) => endpoint.mask(slot),
            None => self.parent().mask(hwirq),
        }
    }

    /// Unmasks a vector.
    ///
    /// Context: any.
    pub(crate) fn unmask(&self, slot: u16, hwirq: HwIrq) {
        match self.endpoint_mask() {
            Some(endpoint) => endpoint.unmask(slot),
            None => self.parent().unmask(hwirq),
        }
    }

    /// Context: any.
    pub(crate) fn is_pending(&self, slot: u16, hwirq: HwIrq) -> Option<bool> {
        let waiting = self.endpoint_mask().is_some_and(|endpoint| endpoint.is_pending(slot));
        if waiting { Some(true) } else { self.parent().is_pending(hwirq) }
    }

    fn sent_message(&self, host: &dyn Host, slot: u16) -> Option<MsiMessage> {
        let state = self.state.lock(host);
        let entry = state.vectors.get(slot)?;
        match state.allocations.get(entry.first)?.shape {
            Shape::Independent => entry.message,
            Shape::AlignedGroup => {
                let base = state.vectors.get(entry.first)?.message?;
                Some(MsiMessage { data: base.data | u32::from(slot - entry.first), ..base })
            }
        }
    }

    fn descriptor(&self, host: &dyn Host, slot: u16) -> Option<Shared<Descriptor>> {
        let state = self.state.lock(host);
        state.vectors.get(slot).map(|entry| entry.descriptor.clone())
    }

    /// Context: task; may sleep.
    pub(crate) fn describe(
        &self,
        host: &dyn Host,
        slot: u16,
        hwirq: HwIrq,
        out: &mut dyn fmt::Write,
    ) -> fmt::Result {
        let (message, shape) = {
            let state = self.state.lock(host);
            let entry = state.vectors.get(slot);
            let allocation = entry.and_then(|entry| state.allocations.get(entry.first));
            (entry.and_then(|entry| entry.message), allocation.map(|allocation| allocation.shape))
        };
        write!(out, "device {}: requester {}, slot {slot}", self.name, self.attachment.requester)?;
        if shape == Some(Shape::AlignedGroup) {
            write!(out, " of a group")?;
        }
        if let Some(message) = message {
            write!(out, ", address {:#x}, data {:#x}", message.address, message.data)?;
        }
        let masked_at = match (self.endpoint_mask(), self.store.masking()) {
            (Some(_), _) => "the endpoint",
            (None, Masking::PerVector) => "the controller, at the endpoint while it is rewritten",
            (None, Masking::None) => "the controller",
        };
        writeln!(
            out,
            ", masked at {masked_at}, {}",
            self.parent().isolation(self.attachment.requester)
        )?;
        self.parent().describe(hwirq, out)
    }
}
