//! The interface to a device with one message store, for the device's driver.

use super::irq_domain::IrqDomain;
use super::negotiation::check_store;
use super::shared_attachment::SharedAttachment;
use super::vector_table::{DeviceVector, MsiVector, VectorTable};
use crate::error::{MsiDeviceError, RequestError};
use crate::interrupts::Interrupts;
use crate::irq::flow::Start;
use crate::irq::handler::{Handler, IrqContext, IrqReturn};
use crate::irq::registry::IrqRegistry;
use crate::name::Name;
use crate::request::deferred_free::{TakenOnDrop, Teardown};
use crate::request::handle::IrqHandle;
use crate::request::parts::IrqCore;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;
use doorbell_fallible::Shared;
use msi_types::{
    Cpu, DmaIsolated, InterruptIsolated, Isolation, MessageStore, MsiMessage, MsiParent,
    NotDmaIsolated, NotIsolated, RequesterId, Shape, StoreError,
};

/// A device, as its bus describes it.
#[non_exhaustive]
pub struct MsiDeviceConfig<'a, S: ?Sized = dyn MessageStore> {
    /// Name of the device, for messages and statistics: the function's address or the node's name.
    pub name: &'a str,
    /// The device's requester ID.
    pub requester: RequesterId,
    /// The controller that serves the device, with the layers in between.
    pub parent: Arc<dyn MsiParent>,
    /// The store of its messages: a [bridge](crate::InputBridge)'s registers, or another store.
    pub store: Arc<S>,
}

impl<'a> MsiDeviceConfig<'a> {
    /// Creates the configuration of a device with this name and requester ID, served by `parent`,
    /// whose messages are in `store`.
    pub fn new(
        name: &'a str,
        requester: RequesterId,
        parent: Arc<dyn MsiParent>,
        store: Arc<dyn MessageStore>,
    ) -> Self {
        Self { name, requester, parent, store }
    }
}

impl<S: ?Sized> fmt::Debug for MsiDeviceConfig<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MsiDeviceConfig")
            .field("name", &self.name)
            .field("requester", &self.requester)
            .finish_non_exhaustive()
    }
}

/// A device's interrupt domain. Its vectors connect the message store to the controller, and hide
/// both from the device's driver. A device with several stores (MSI-X and IMS) has several domains,
/// on one [`SharedDevice`](crate::SharedDevice).
///
/// A driver calls [`attach`](Self::attach), then [`allocate`](Self::allocate), then
/// [`request`](Self::request) for each slot. Later, it can add and remove single vectors by
/// [`allocate_at`](Self::allocate_at) and [`free`](Self::free). Dropping the domain tears it down
/// in an order that prevents stray messages: it removes the handlers, turns the store off, and then
/// frees the vectors and detaches the device. Handles that outlive the domain have no effect. If
/// the caller of drop [may not wait](crate::TaskContext::may_wait), a later task operation does all
/// this, and handlers may run until then.
///
/// The [crate's example](crate#example) attaches a device and requests one of its vectors.
/// [`pci::find_store`](crate::pci::find_store) shows the same for a PCI function.
#[doc(alias = "msi_domain_alloc_irqs")]
#[doc(alias = "pci_alloc_irq_vectors")]
#[must_use = "dropping the domain tears it down"]
pub struct MsiDevice {
    core: Shared<IrqCore>,
    domain: Shared<IrqDomain>,
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
        check_store(&*config.parent, config.requester, &*config.store)?;
        let attachment = SharedAttachment::try_new(config.parent, config.requester)?;
        let device = Self::on_attachment(core, config.name, attachment.clone(), config.store)?;
        attachment.attach(core.host(), u32::from(slots))?;
        Ok(device)
    }

    /// Creates a domain on an attachment, of which the caller must have made it a user.
    ///
    /// Context: task; may sleep.
    pub(super) fn on_attachment(
        core: &Shared<IrqCore>,
        name: &str,
        attachment: Shared<SharedAttachment>,
        store: Arc<dyn MessageStore>,
    ) -> Result<Self, TryReserveError> {
        let domain = Shared::try_new(IrqDomain::new(Name::try_new(name)?, attachment, store))?;
        let owner =
            Shared::<dyn Teardown>::try_unsized(DomainOwner(domain.clone()), |block| block)?;
        core.deferred.reserve(core.host())?;
        Ok(Self { core: core.clone(), domain, owner: TakenOnDrop::new(owner) })
    }

    /// Grants the device vectors at its lowest free slots: as many of the `wanted` range of counts
    /// as the controller can allocate, beginning with the most. Places them on CPUs, writes their
    /// messages, and turns the store on. Messages are held back until their vectors are
    /// [requested](Self::request): at the endpoint if it can mask them, otherwise by the core,
    /// which sends messages that arrived too early again.
    ///
    /// [`Shape::Independent`] (MSI-X) can be allocated several times. [`Shape::AlignedGroup`]
    /// (Multi-MSI) is granted in powers of two, once, on one CPU. A store that [signals by
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
        IrqDomain::allocate(&self.domain, &self.core, shape, wanted)
    }

    /// Grants the device a vector at each of the given slots, at any position in its store, before
    /// or after others are in use. Intended for devices that add vectors one by one. If a step
    /// fails, all previous ones are rolled back.
    ///
    /// Context: task; may sleep.
    pub fn allocate_at(&self, slots: &[u16]) -> Result<Vec<MsiVector>, MsiDeviceError> {
        self.core.reclaim();
        IrqDomain::allocate_at(&self.domain, &self.core, slots)
    }

    /// Grants the device a vector at `slot` that is delivered only to CPUs of `among`, for example
    /// those that use a queue. It is assigned to the online CPU that has the fewest managed
    /// vectors. When its CPU goes offline, it moves to another one of them. When the last of them
    /// goes offline, it is shut down until the first is online again; the device's messages stay
    /// pending in the meantime. The controller reserves the resources that these moves require.
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
        IrqDomain::allocate_managed(&self.domain, &self.core, slot, among)
    }

    /// Frees the vector at `slot`, with its handler. Its handle has no effect afterwards. The slot
    /// can be allocated again, in any way. Must not be called within the handler.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`MsiDeviceError::NoVector`]; [`MsiDeviceError::OfAGroup`], because a group can be freed
    /// only as a whole, by tearing the domain down; [`MsiDeviceError::Store`] if the store refused
    /// the write, although the vector was freed.
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
        let descriptor = self.domain.with_table(self.core.host(), |table| {
            table.get(slot).map(|vector| vector.descriptor.clone())
        });
        let descriptor = descriptor.ok_or(RequestError::NoVector(slot))?;
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
    /// A message that the device should have sent in the meantime is lost together with the
    /// device's state. The driver of a device that can wake the system must therefore check the
    /// device after this call.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`MsiDeviceError::Store`] if the device refused a write. The call may be repeated.
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
    /// attachment were still freed.
    pub fn tear_down(self) -> Result<(), StoreError> {
        self.domain.tear_down(&self.core.registry)
    }

    /// Returns the vectors granted so far, by ascending slot.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub fn vectors(&self) -> Result<Vec<MsiVector>, TryReserveError> {
        self.domain.with_table(self.core.host(), VectorTable::granted)
    }

    /// Returns the vector at `slot`, or `None` if the slot has none.
    ///
    /// Context: task; may sleep.
    pub fn vector(&self, slot: u16) -> Option<MsiVector> {
        self.domain.with_table(self.core.host(), |table| table.vector(slot))
    }

    /// Returns the message that the store holds at `slot`. Returns `None` if the slot has no
    /// vector, and for all vectors of a group except the first.
    ///
    /// Context: task; may sleep.
    pub fn message(&self, slot: u16) -> Option<MsiMessage> {
        self.domain
            .with_table(self.core.host(), |table| table.get(slot).and_then(DeviceVector::message))
    }

    /// Returns the message that the device sends for the vector at `slot`, for devices that keep
    /// copies of it elsewhere: the message that the store holds, or the one that the device derives
    /// from its group's message. It changes when the interrupt moves.
    ///
    /// Context: task; may sleep.
    pub fn sent_message(&self, slot: u16) -> Option<MsiMessage> {
        self.domain.with_table(self.core.host(), |table| table.sent_message(slot))
    }

    /// Returns whether the device is prevented from triggering other devices' interrupts.
    ///
    /// Context: any.
    pub fn isolation(&self) -> Isolation {
        self.domain.attachment.isolation()
    }

    /// Returns a proof of this isolation, which passthrough requires, or the reason why it does not
    /// hold.
    ///
    /// Context: any.
    pub fn prove_isolated(&self) -> Result<InterruptIsolated<'_>, NotIsolated> {
        self.domain.attachment.prove_isolated()
    }

    /// Returns a proof that the device is prevented from accessing memory that does not belong to
    /// it, which passthrough requires as well, or the reason why it does not hold.
    ///
    /// Context: any.
    pub fn prove_dma_isolated(&self) -> Result<DmaIsolated<'_>, NotDmaIsolated> {
        self.domain.attachment.prove_dma_isolated()
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

/// The owner of a domain, which tears it down when its [`MsiDevice`] is dropped.
struct DomainOwner(Shared<IrqDomain>);

impl Teardown for DomainOwner {
    fn tear_down(&self, registry: &IrqRegistry) {
        // Callers that need the store's error call `MsiDevice::tear_down`.
        let _ = self.0.tear_down(registry);
    }
}
