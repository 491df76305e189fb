//! The driver-facing interface to a device with one message store, and to a device with several
//! ones, whose domains share one attachment.

use super::endpoint::{Endpoint, MessageCopy, check_store};
use super::irq_domain::{IrqDomain, SharedAttachment};
use super::vector_table::{DeviceVector, MsiVector, VectorTable};
use crate::error::{MsiDeviceError, RequestError};
use crate::interrupts::Interrupts;
use crate::irq::handler::{Handler, IrqContext, IrqReturn, Start};
use crate::name::Name;
use crate::request::handle::IrqHandle;
use crate::request::root_controller::{IrqCore, Owner};
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

/// Configuration for a device with one message store.
#[non_exhaustive]
pub struct MsiDeviceConfig<'a> {
    /// Device name for diagnostics and statistics: the function's address or the node's name.
    pub(crate) name: &'a str,
    /// The device's requester ID.
    pub(crate) requester: RequesterId,
    /// The controller that serves the device, including the layers in between.
    pub(crate) parent: Arc<dyn MsiParent>,
    /// The device's message store.
    pub(crate) store: Arc<dyn MessageStore>,
    pub(crate) copy: Option<Arc<MessageCopy>>,
}

impl<'a> MsiDeviceConfig<'a> {
    /// Creates the configuration for a device with this name and requester ID. `parent` serves it,
    /// and `store` holds its messages.
    pub fn new(
        name: &'a str,
        requester: RequesterId,
        parent: Arc<dyn MsiParent>,
        store: Arc<dyn MessageStore>,
    ) -> Self {
        Self { name, requester, parent, store, copy: None }
    }

    /// Has the core call `copy` for a slot whenever the message changes that the device sends for
    /// the slot. Drivers must use this if they copy messages into the device, which then sends
    /// these copies and not what its store holds.
    ///
    /// The function must update all copies for the slot before it returns, in such a way that the
    /// device never sends a mix of two messages. `None` means that the slot has no vector any more:
    /// the device must not send for it. The core calls the function under the store's lock, once
    /// the store holds the new message, and before the controller stops accepting the old one, so
    /// no message is lost. This happens when vectors are allocated and freed, for each vector of a
    /// group that moves (by anybody, or because a CPU goes offline), and for all vectors in
    /// [`MsiDevice::restore`]. If a move fails and is rolled back, the copies stay as they are. The
    /// function must not use the device or its interrupts.
    ///
    /// The store cannot mask copies, so the controller masks instead. In a guest, the store's
    /// message is the guest's and not the one that the hardware expects. A hypervisor that only
    /// [traps](crate::layer::Hypervisor::Traps) stores can't find the copies, so it refuses the
    /// device like one that defines its own store. Hyper-V's host composes the message itself, so
    /// drivers may copy that one.
    ///
    /// # ath11k
    /// Linux's driver for this wireless adapter reads the address of its PCI MSI from configuration
    /// space, adds a vector's number to the data, and writes both into the descriptors of its
    /// rings. Here, the core tells the driver both:
    ///
    /// ```
    /// use irq_domain::{Interrupts, IrqHandle, MsiDevice, MsiDeviceConfig, pci::FunctionStore};
    /// use msi_types::{MsiParent, RequesterId};
    /// use std::{error::Error, sync::Arc};
    ///
    /// /// Accesses the adapter's rings.
    /// trait Rings: Send + Sync + 'static {
    ///     /// Writes the address and data registers of a vector's rings while they are paused.
    ///     fn set_message(&self, vector: u16, address: u64, data: u32);
    ///     /// Disarms a vector's rings.
    ///     fn disarm(&self, vector: u16);
    ///     /// Processes a vector's rings.
    ///     fn process(&self, vector: u16);
    /// }
    ///
    /// fn probe(
    ///     interrupts: &Interrupts,
    ///     parent: Arc<dyn MsiParent>,
    ///     FunctionStore { store, shape }: FunctionStore,
    ///     rings: Arc<impl Rings>,
    /// ) -> Result<(MsiDevice, Vec<IrqHandle>), Box<dyn Error>> {
    ///     let copies = Arc::clone(&rings);
    ///     let config = MsiDeviceConfig::new("ath11k", RequesterId::pci(1, 0, 0), parent, store);
    ///     let config = config.with_copy(Arc::new(move |vector, message| match message {
    ///         Some(message) => copies.set_message(vector, message.address, message.data),
    ///         None => copies.disarm(vector),
    ///     }));
    ///     let device = MsiDevice::attach(interrupts, config)?;
    ///     let mut handles = Vec::new();
    ///     for vector in device.allocate(shape, 1..=32)? {
    ///         let (rings, slot) = (Arc::clone(&rings), vector.slot);
    ///         handles.push(device.request(slot, "ath11k", move |_| rings.process(slot))?);
    ///     }
    ///     Ok((device, handles))
    /// }
    /// ```
    ///
    /// `sim/machine/examples/ath11k.rs` in the repository runs such a driver on direct LPIs.
    #[doc(alias = "irq_write_msi_msg")]
    #[doc(alias = "irq_set_affinity_notifier")]
    #[must_use]
    pub fn with_copy(self, copy: Arc<MessageCopy>) -> Self {
        Self { copy: Some(copy), ..self }
    }
}

msi_types::debug_by!(
    MsiDeviceConfig<'_> as "MsiDeviceConfig",
    |it| {name: it.name, requester: it.requester}
);

/// A device's interrupt domain. The domain connects the message store to the controller, and hides
/// both from the device driver. A device with several stores (MSI-X and IMS) has one domain for
/// each, all on the same [`SharedDevice`](crate::SharedDevice).
///
/// A driver calls [`attach`](Self::attach), then [`allocate`](Self::allocate), then
/// [`request`](Self::request) for each slot. Later on, it can add and remove single vectors with
/// [`allocate_at`](Self::allocate_at) and [`free`](Self::free). Dropping the domain removes the
/// handlers, turns the store off, then frees the vectors and detaches the device; this order
/// prevents stray messages. Handles that outlive the domain become no-ops. If the caller that drops
/// the domain [may not wait](crate::TaskContext::may_wait), a later task operation performs these
/// steps, and handlers may still run until then.
///
/// The [crate's example](crate#example) attaches a device and requests a vector. See
/// [`pci::find_store`](crate::pci::find_store) for a PCI function.
#[doc(alias = "msi_domain_alloc_irqs")]
#[doc(alias = "pci_alloc_irq_vectors")]
#[must_use = "dropping the domain tears it down"]
pub struct MsiDevice {
    core: Shared<IrqCore>,
    domain: Shared<IrqDomain>,
    _owner: Owner,
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
        let endpoint = Endpoint::new(config.store, config.copy);
        check_store(&*config.parent, config.requester, &endpoint)?;
        let attachment = SharedAttachment::try_new(config.parent, config.requester)?;
        let device = Self::on_attachment(core, config.name, attachment.clone(), endpoint)?;
        attachment.attach(core.host(), u32::from(slots))?;
        Ok(device)
    }

    /// Creates a domain on an attachment. The caller must already have registered the domain as a
    /// user of the attachment.
    ///
    /// Context: task; may sleep.
    pub(super) fn on_attachment(
        core: &Shared<IrqCore>,
        name: &str,
        attachment: Shared<SharedAttachment>,
        endpoint: Endpoint,
    ) -> Result<Self, TryReserveError> {
        let domain = Shared::try_new(IrqDomain::new(Name::try_new(name)?, attachment, endpoint))?;
        let torn_down = domain.clone();
        let owner = Owner::try_new(core, move |registry| {
            // Callers that want the store's error use `MsiDevice::tear_down` instead.
            let _ = torn_down.tear_down(registry);
        })?;
        Ok(Self { core: core.clone(), domain, _owner: owner })
    }

    /// Grants vectors at the device's lowest free slots: as many within `wanted` as the controller
    /// can allocate. Places them on CPUs, writes their messages, and turns the store on. Messages
    /// are held back until their vectors are [requested](Self::request). If the endpoint can't mask
    /// them, the core accepts early messages and sends them again later.
    ///
    /// [`Shape::Independent`] (MSI-X) can be allocated several times. [`Shape::AlignedGroup`]
    /// (Multi-MSI) can be allocated only once; the number of vectors is a power of two, and all of
    /// them target the same CPU. A store that [signals by levels](MessageStore::trigger) requires a
    /// controller that supports them, and its handlers must make their device deassert the level
    /// before they return. If a step fails, all previous ones are rolled back.
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

    /// Grants the device a vector at each of the given slots. The slots can be anywhere in the
    /// store, and other slots may already be in use. This is useful for devices that add vectors
    /// one by one. If a step fails, all previous ones are rolled back.
    ///
    /// Context: task; may sleep.
    pub fn allocate_at(&self, slots: &[u16]) -> Result<Vec<MsiVector>, MsiDeviceError> {
        self.core.reclaim();
        IrqDomain::allocate_at(&self.domain, &self.core, slots)
    }

    /// Grants a vector at `slot` that is only ever delivered to CPUs of `among`, e.g. the CPUs that
    /// use one of the device's queues. The vector targets the online CPU of `among` that has the
    /// fewest managed vectors. When that CPU goes offline, the vector moves to another CPU in the
    /// set. When the last CPU in the set goes offline, the vector is shut down until one of them is
    /// online again; the device's messages stay pending until then. The controller reserves
    /// everything that these moves require.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`MsiDeviceError::NoCpu`] if no CPU of `among` is online; otherwise any error that
    /// [`allocate_at`](Self::allocate_at) returns.
    pub fn allocate_managed(
        &self,
        slot: u16,
        among: &[Cpu],
    ) -> Result<Vec<MsiVector>, MsiDeviceError> {
        self.core.reclaim();
        IrqDomain::allocate_managed(&self.domain, &self.core, slot, among)
    }

    /// Frees the vector at `slot` and its handler. The handle becomes a no-op, and any of the
    /// allocation functions can use the slot again. Must not be called from within the handler.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`MsiDeviceError::NoVector`]; [`MsiDeviceError::OfAGroup`], because a group can only be
    /// freed as a whole, by tearing down the domain; [`MsiDeviceError::Store`] if the store refused
    /// the write. The vector is freed even if the store refused the write.
    pub fn free(&self, slot: u16) -> Result<(), MsiDeviceError> {
        self.core.reclaim();
        self.domain.free(&self.core.registry, slot)
    }

    /// Installs a handler for the vector at `slot`, and enables the vector.
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

    /// Installs a handler for the vector at `slot`, which stays disabled until the first
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
            table.vectors.get(slot).map(|vector| vector.descriptor.clone())
        });
        let descriptor = descriptor.ok_or(RequestError::NoVector(slot))?;
        self.core.registry.free_handler(&descriptor);
        IrqHandle::install(&self.core, &descriptor, name, handler, start)
    }

    /// Writes the messages, masks and enable bits again after a function-level reset or a suspend
    /// has cleared them. The bus driver must call this when it resumes the device: after the
    /// interrupt controllers have resumed, and after it has restored the registers that accesses to
    /// the store depend on (a PCI function's command register and BARs, and those of bridges above
    /// it), but before the device's own driver starts the device again. Messages are composed
    /// again, because a virtual bus may have other ones after it has resumed. Vectors must not be
    /// enabled or disabled between the loss of the registers and this call.
    ///
    /// A message that the device should have sent while it was down is lost along with the rest of
    /// its state. If the device can wake the system, its driver must therefore check it after this
    /// call.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`MsiDeviceError::Store`] if the device refused a write. The caller may try again.
    pub fn restore(&self) -> Result<(), MsiDeviceError> {
        self.domain.restore(&self.core.registry)
    }

    /// Frees all vectors and detaches the device. Unlike a drop, this reports whether the store
    /// could be turned off.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The store refused a write because the device is gone or broken. Handlers, vectors and the
    /// attachment were freed nevertheless.
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

    /// Returns the message stored at `slot`. Returns `None` if the slot has no vector, and for
    /// every vector in a group except the first.
    ///
    /// Context: task; may sleep.
    pub fn message(&self, slot: u16) -> Option<MsiMessage> {
        self.domain.with_table(self.core.host(), |table| {
            table.vectors.get(slot).and_then(DeviceVector::message)
        })
    }

    /// Returns the message that the device sends for the vector at `slot`: either the stored
    /// message, or the one that the device derives from its group's message. The message changes
    /// when the interrupt moves, so drivers of devices that keep copies of it must use
    /// [`MsiDeviceConfig::with_copy`] instead.
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

    /// Returns a proof that the device cannot trigger other devices' interrupts, or the reason why
    /// it can. Passthrough requires this proof.
    ///
    /// Context: any.
    pub fn prove_isolated(&self) -> Result<InterruptIsolated<'_>, NotIsolated> {
        self.domain.attachment.prove_isolated()
    }

    /// Returns a proof that the device cannot access memory that does not belong to it, or the
    /// reason why it can. Passthrough requires this proof, too.
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

/// Lists the device's vectors if the caller [may wait](crate::TaskContext::may_wait) for the
/// device's lock.
impl fmt::Debug for MsiDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("MsiDevice");
        out.field("name", &&*self.domain.name)
            .field("requester", &self.domain.attachment.requester);
        if !self.core.host().may_wait() {
            return out.finish_non_exhaustive();
        }
        self.domain.with_table(self.core.host(), |table| out.field("vectors", table).finish())
    }
}

/// A device with several message stores, e.g. an MSI-X table and IMS. The device has a single
/// attachment at the controller (for an ITS, this means one DeviceID and one EventID space).
/// Domains can be created and dropped at any time.
///
/// The device is detached once the `SharedDevice` and all its domains have been dropped. If the
/// caller of the last drop [may not wait](crate::TaskContext::may_wait), a later task operation
/// detaches the device.
#[must_use = "dropping it, and all its domains, detaches the device"]
pub struct SharedDevice {
    core: Shared<IrqCore>,
    attachment: Shared<SharedAttachment>,
    /// The device itself, as a user of the attachment.
    _owner: Owner,
}

impl SharedDevice {
    /// Attaches a device to `parent`, the controller that serves it, including the layers in
    /// between, and reserves room for at most `vectors` vectors in all its domains together.
    ///
    /// Context: task; may sleep.
    pub fn attach(
        interrupts: &Interrupts,
        requester: RequesterId,
        parent: Arc<dyn MsiParent>,
        vectors: u32,
    ) -> Result<Self, MsiDeviceError> {
        let core = &interrupts.core;
        core.reclaim();
        let attachment = SharedAttachment::try_new(parent, requester)?;
        let left = attachment.clone();
        let owner = Owner::try_new(core, move |registry| {
            left.leave(registry.host(), &mut core::iter::empty());
        })?;
        attachment.attach(core.host(), vectors)?;
        Ok(Self { core: core.clone(), attachment, _owner: owner })
    }

    /// Creates a domain for one of the device's stores.
    ///
    /// Context: task; may sleep.
    pub fn domain(
        &self,
        name: &str,
        store: Arc<dyn MessageStore>,
    ) -> Result<MsiDevice, MsiDeviceError> {
        self.core.reclaim();
        let endpoint = Endpoint::new(store, None);
        check_store(&*self.attachment.parent, self.attachment.requester, &endpoint)?;
        self.attachment.join(self.core.host())?;
        let domain = MsiDevice::on_attachment(&self.core, name, self.attachment.clone(), endpoint);
        Ok(domain
            .inspect_err(|_| self.attachment.leave(self.core.host(), &mut core::iter::empty()))?)
    }

    /// Returns whether the device is prevented from triggering other devices' interrupts.
    ///
    /// Context: any.
    pub fn isolation(&self) -> Isolation {
        self.attachment.isolation()
    }
}

msi_types::debug_by!(SharedDevice as "SharedDevice", |it| {requester: it.attachment.requester});
