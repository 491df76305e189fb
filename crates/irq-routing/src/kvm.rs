//! Routes and eventfds in Linux's KVM, for VMs with an in-kernel interrupt controller.
//!
//! Anything that implements [`AsFd`] can represent a VM or an eventfd. A [`KvmRouter`] doesn't open
//! or duplicate descriptors, so it can coexist with other users of the VM. With the feature
//! `rust-vmm`, [`RustVmm`] implements `AsFd` for rust-vmm's types.
//!
//! The kernel accepts only whole tables (`KVM_SET_GSI_ROUTING`), at a cost that grows with the
//! table. The router therefore keeps its own copy:
//!
//! - A [`commit`](Routing::commit) makes one system call, or none if all changes are redundant.
//! - A release makes no system call unless an eventfd is bound to the GSI. The next table just
//!   omits the GSI.
//! - A message from user space needs no route ([`MessageSink`]). [`MsiIrqfdSet`] only sets routes
//!   for eventfds that belong to devices in the kernel and in other processes, many at a time.
//!
//! Sending a message takes no lock; pulsing a pin takes one. As with [`Router`](crate::Router),
//! each GSI is routed to the pin with the same number until the first table is set; on x86, these
//! are the pins of the kernel's I/O APIC. With a split irqchip, the VMM emulates the I/O APIC. No
//! GSI is routed initially in this case, and the VMM must set all routes.
//!
//! On Arm, a VMM can drive inputs without a GSI through `KVM_IRQ_LINE`; [`IrqLine`](crate::IrqLine)
//! encodes the number.
//!
//! On Arm, ITSs are the kernel's only doorbells, and a message to an ITS needs a DeviceID
//! ([`Sender::Device`](crate::Sender)). On x86, APIC IDs wider than 8 bits need
//! [`ApicIds::Extended`].

mod apic_ids;
pub(crate) mod batch;
mod ioctl;
mod msi_irqfds;
#[cfg(feature = "rust-vmm")]
mod rust_vmm;

pub use apic_ids::ApicIds;
pub use msi_irqfds::{MsiIrqfd, MsiIrqfdSet};
#[cfg(feature = "rust-vmm")]
pub use rust_vmm::{FdOwner, RustVmm};

use crate::SignalError;
use crate::explainer::Explainer;
use crate::gsis::Gsis;
use crate::lock::Mutex;
use crate::table::Table;
use crate::translation::Translations;
use crate::{
    Attachments, Change, ChangeCount, Invalidation, MessageSink, Pin, Route, RouteError,
    RoutedMessage, Routing, TranslateMsi,
};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use msi_types::explain::{ExplainInput, Explanation};
use msi_types::{Delivery, Gsi};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use std::io;

/// Options for a [`KvmRouter`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct KvmConfig {
    /// First GSI that [`Routing::allocate`] returns. The VMM itself assigns the GSIs below it.
    pub(crate) first_allocated: u32,
    /// Width of APIC IDs in messages, on x86.
    pub(crate) apic_ids: ApicIds,
}

impl KvmConfig {
    /// Creates a configuration with this `first_allocated` and 8-bit APIC IDs.
    pub const fn new(first_allocated: u32) -> Self {
        Self { first_allocated, apic_ids: ApicIds::Bits8 }
    }

    /// Sets the width of APIC IDs in messages, on x86.
    #[must_use]
    pub const fn with_apic_ids(self, apic_ids: ApicIds) -> Self {
        Self { apic_ids, ..self }
    }
}

/// A KVM virtual machine's GSIs and their routes.
///
/// ```no_run
/// use irq_routing::kvm::{KvmConfig, KvmRouter};
/// use irq_routing::{Change, Route, Routing};
/// use msi_types::{DeviceId, MsiMessage};
/// # use std::os::fd::OwnedFd;
/// # fn route(vm: OwnedFd, eventfd: OwnedFd) -> Result<(), Box<dyn std::error::Error>> {
///
/// // `vm` is a KVM virtual machine with an ITS, and `eventfd` belongs to a device.
/// let router = KvmRouter::new(vm, KvmConfig::new(32))?;
/// let gsi = router.allocate()?;
/// let message = MsiMessage { address: 0x0809_0040, data: 2 };
/// router.commit(&[Change::Set(gsi, Route::to_its(DeviceId::new(8), message))])?;
/// println!("{:?}", router.signal(gsi)?);
///
/// let bound = router.bind(eventfd, gsi)?; // The kernel sends the message for each signal.
/// # drop(bound);
/// # Ok(())
/// # }
/// ```
pub struct KvmRouter {
    machine: Arc<Machine>,
    limit: u32,
    apic_ids: ApicIds,
    /// User space's copy of the routes.
    routes: Table,
    /// The kernel's table. The lock is held during route changes.
    kernel: Mutex<KvmTable>,
    pulses: Pulses,
    explainer: Explainer,
    translations: Option<Translations>,
    /// Sets whose eventfds are served by user space or the kernel, depending on translations.
    irqfds: Mutex<Vec<Weak<Follower>>>,
    attachments: Attachments,
}

/// Moves eventfds between the kernel and user space after an invalidation.
type Follower = dyn Fn(&Invalidation) + Send + Sync;

/// The kernel's table and the allocated GSIs.
struct KvmTable {
    /// The table that was set last, or `None` before the first one. Released GSIs keep their routes
    /// in this table until the next table is set. Addresses are translated, and GSIs whose messages
    /// the IOMMU blocks have no routes.
    table: Option<BTreeMap<Gsi, Route>>,
    /// Number of tables that were set.
    updates: u64,
    gsis: Gsis,
}

/// The VM, and the number of eventfds bound to each GSI.
struct Machine {
    vm: Box<dyn AsFd + Send + Sync>,
    bound: Mutex<BTreeMap<Gsi, usize>>,
}

impl KvmRouter {
    /// Creates a router for a VM. The in-kernel interrupt controller must be initialized before the
    /// first change of routes, because its initialization makes the kernel set a default table.
    /// From then on, only this router may set a table. The kernel defines the number of GSIs
    /// (`KVM_CAP_IRQ_ROUTING`).
    ///
    /// # Errors
    /// Returns [`io::ErrorKind::Unsupported`] if the kernel has no GSI routing, or the kernel's
    /// error if `vm` is not a KVM virtual machine.
    pub fn new(vm: impl AsFd + Send + Sync + 'static, config: KvmConfig) -> io::Result<Self> {
        let limit = ioctl::gsis(vm.as_fd())?;
        if limit == 0 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this KVM has no GSI routing"));
        }
        let routes = Table::new(limit, pins(vm.as_fd())?);
        let gsis = Gsis::new(config.first_allocated..limit);
        let machine = Arc::new(Machine { vm: Box::new(vm), bound: Mutex::default() });
        let kernel = Mutex::new(KvmTable { table: None, updates: 0, gsis });
        let (apic_ids, pulses) = (config.apic_ids, Pulses::default());
        let (explainer, irqfds, translations, attachments) = Default::default();
        Ok(Self {
            machine,
            limit,
            apic_ids,
            routes,
            kernel,
            pulses,
            explainer,
            translations,
            irqfds,
            attachments,
        })
    }

    /// Sets the controller whose explanations are appended to those of routes, vectors and MSI
    /// capabilities. Without it, an explanation ends at the message. On arm64, `KvmExplainer` in
    /// the crate `vgic-kvm` reads KVM's controller while all vCPUs are stopped.
    #[must_use]
    pub fn with_explainer(mut self, controller: Arc<dyn ExplainInput>) -> Self {
        self.explainer.controller = Some(controller);
        self
    }

    /// Sets the IOMMU that translates messages from devices to the kernel's controller. The
    /// kernel's table then holds translated addresses. A GSI whose message the IOMMU blocks has no
    /// route there, so the kernel drops the signals of an eventfd that was bound with
    /// [`bind`](Self::bind), and no event is recorded. An [`MsiIrqfdSet`] serves such eventfds in
    /// user space instead, where each signal asks the IOMMU again.
    ///
    /// The router owns the IOMMU, so an IOMMU that invalidates must hold its routers weakly.
    #[must_use]
    pub fn with_translator(mut self, iommu: Arc<dyn TranslateMsi>) -> Self {
        self.translations = Some(Translations::new(iommu.clone()));
        self.explainer.iommu = Some(iommu);
        self
    }

    /// Returns the number of messages from user space that the IOMMU has blocked. The kernel does
    /// not count those that it drops.
    pub fn dropped(&self) -> u64 {
        self.translations.as_ref().map_or(0, Translations::dropped)
    }

    /// Returns the limit: all GSIs are less than this.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Returns a GSI's route. Acquires no lock.
    ///
    /// Context: any.
    pub fn route(&self, gsi: Gsi) -> Option<Route> {
        self.routes.route(gsi)
    }

    /// Explains why signaling a GSI does not interrupt a CPU, like
    /// [`Router::explain`](crate::Router::explain).
    pub fn explain(&self, gsi: Gsi) -> Explanation {
        self.explainer.explain_route(gsi, self.route(gsi))
    }

    /// Returns the number of `KVM_SET_GSI_ROUTING` calls so far.
    pub fn updates(&self) -> u64 {
        self.kernel.lock().updates
    }

    /// Replaces the whole table. GSIs that are missing from `routes` lose their routes.
    ///
    /// # Errors
    /// Returns an error if a GSI does not exist or has two routes, or if the kernel refuses the
    /// table. In that case, no route has changed.
    pub fn replace(&self, routes: &[(Gsi, Route)]) -> Result<ChangeCount, RouteError> {
        let mut table = BTreeMap::new();
        for (gsi, route) in routes {
            self.check_gsi(*gsi)?;
            if table.insert(*gsi, *route).is_some() {
                return Err(RouteError::DuplicateGsi(*gsi));
            }
        }
        let mut kernel = self.kernel.lock();
        let mut changes: BTreeMap<_, _> =
            self.routes.routed().map(|(gsi, _)| (gsi, None)).collect();
        changes.extend(table.iter().map(|(gsi, route)| (*gsi, Some(*route))));
        let table = self.translated(table);
        if kernel.table.as_ref() != Some(&table) {
            self.give(&mut kernel, table).map_err(refused)?;
        }
        for (gsi, _) in routes {
            kernel.gsis.take(*gsi);
        }
        Ok(self.routes.set_table(changes.into_iter()))
    }

    /// Binds an eventfd to a GSI. Until the result is dropped, each signal of `trigger` is an edge,
    /// which is lost if the GSI has no route at that time. A changed route applies from the next
    /// signal on. A signal that the eventfd already holds is also delivered.
    ///
    /// # Errors
    /// Returns the kernel's error, e.g. if the eventfd is already bound or the VM has no interrupt
    /// controller yet. `trigger` is then dropped, so pass a reference or an `Arc` if you need it
    /// afterwards.
    pub fn bind<E: AsFd>(&self, trigger: E, gsi: Gsi) -> io::Result<KvmIrqfd<E>> {
        self.enter(trigger, None, gsi)
    }

    /// Binds an eventfd to a GSI's level: a signal of `trigger` raises the pin. When the interrupt
    /// ends, the kernel lowers the pin and signals `resample`. The device must then signal again if
    /// the cause of the interrupt persists.
    ///
    /// # Errors
    /// Returns an error under the same conditions as [`bind`](Self::bind).
    pub fn bind_level<E: AsFd>(
        &self,
        trigger: E,
        resample: impl AsFd,
        gsi: Gsi,
    ) -> io::Result<KvmIrqfd<E>> {
        self.enter(trigger, Some(resample.as_fd()), gsi)
    }

    fn enter<E: AsFd>(
        &self,
        trigger: E,
        resample: Option<BorrowedFd<'_>>,
        gsi: Gsi,
    ) -> io::Result<KvmIrqfd<E>> {
        let mut kernel = self.kernel.lock();
        let has = |table: &BTreeMap<_, _>| {
            table.get(&gsi).copied() == self.routes.look(gsi).and_then(|it| self.translate(it))
        };
        if !kernel.table.as_ref().is_none_or(has) {
            // The kernel still has the previous owner's route for this GSI, or the guest has mapped
            // the message's address in the meantime.
            let table = self.translated(self.routes.routed());
            self.give(&mut kernel, table)?;
        }
        ioctl::bind(self.vm(), trigger.as_fd(), resample, gsi)?;
        *self.machine.bound.lock().entry(gsi).or_default() += 1;
        let is_level = resample.is_some();
        Ok(KvmIrqfd { machine: self.machine.clone(), trigger, gsi, is_level })
    }

    fn check_gsi(&self, gsi: Gsi) -> Result<(), RouteError> {
        let limit = self.limit;
        if gsi.get() < limit { Ok(()) } else { Err(RouteError::NoSuchGsi { gsi, limit }) }
    }

    /// Returns a route as the IOMMU forwards its message, or `None` if it blocks the message. A
    /// guest may also map a page to an address for which KVM would refuse the whole table.
    fn translate(&self, route: Route) -> Option<Route> {
        match (route, &self.translations) {
            (Route::Message(message), Some(_)) => self.forwarded(message).map(Route::Message),
            _ => Some(route),
        }
    }

    /// Returns routes as the kernel must have them.
    fn translated(&self, routes: impl IntoIterator<Item = (Gsi, Route)>) -> BTreeMap<Gsi, Route> {
        let routes = routes.into_iter();
        routes.filter_map(|(gsi, route)| Some((gsi, self.translate(route)?))).collect()
    }

    /// Sets a new table in the kernel. If the kernel refuses the new table, the old table stays in
    /// effect.
    fn give(&self, kernel: &mut KvmTable, table: BTreeMap<Gsi, Route>) -> Result<(), Errno> {
        let converted = table.iter().map(|(gsi, route)| (*gsi, self.apic_ids.route(*route)));
        kernel.updates += 1;
        ioctl::set_gsi_routing(self.vm(), converted)?;
        kernel.table = Some(table);
        Ok(())
    }

    fn pulse(&self, gsi: Gsi, pin: Pin) -> Result<Delivery, Errno> {
        let line = line(gsi, pin);
        self.pulses.pulse(|high| ioctl::irq_line(self.vm(), line, high))?;
        Ok(Delivery::Pending)
    }

    /// Returns the message that the IOMMU forwards, or `None` if it blocks the message or KVM would
    /// not accept a route to it.
    fn forwarded(&self, message: RoutedMessage) -> Option<RoutedMessage> {
        let message = match &self.translations {
            Some(iommu) => iommu.prefetch(message)?,
            None => message,
        };
        self.apic_ids.takes(self.apic_ids.message(message)).then_some(message)
    }

    /// Calls `follower` at each invalidation, for a set of eventfds, as long as it exists.
    fn add_follower(&self, follower: &Arc<Follower>) {
        let mut sets = self.irqfds.lock();
        sets.retain(|set| set.strong_count() > 0);
        sets.push(Arc::downgrade(follower));
    }

    fn send(&self, message: RoutedMessage) -> Result<Delivery, SignalError> {
        match ioctl::signal_msi(self.vm(), self.apic_ids.message(message)) {
            // EBUSY: the ITS or the target's LPIs are disabled.
            Ok(0) | Err(Errno::BUSY) => Ok(Delivery::Blocked),
            Ok(_) => Ok(Delivery::Pending),
            Err(error) => Err(unsent(error)),
        }
    }

    fn vm(&self) -> BorrowedFd<'_> {
        self.machine.vm.as_fd()
    }
}

fn refused(error: Errno) -> RouteError {
    RouteError::Refused { errno: error.raw_os_error() }
}

fn unsent(error: Errno) -> SignalError {
    SignalError::Refused { errno: error.raw_os_error() }
}

/// Returns the number of pins in the kernel's default table.
#[cfg(target_arch = "aarch64")]
#[expect(clippy::unnecessary_wraps, reason = "the x86 version can fail")]
fn pins(_: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(Pin::COUNT)
}

/// Returns the number of pins in the kernel's default table.
#[cfg(target_arch = "x86_64")]
fn pins(vm: BorrowedFd<'_>) -> io::Result<u32> {
    /// Pins of the I/O APIC.
    const PINS: u32 = 24;
    Ok(if ioctl::has_ioapic(vm)? { PINS } else { 0 })
}

impl MessageSink for KvmRouter {
    fn signal_msi(&self, message: RoutedMessage) -> Result<Delivery, SignalError> {
        match &self.translations {
            Some(iommu) => {
                let sent = iommu.send(message, |message| self.send(message));
                sent.unwrap_or(Ok(Delivery::Blocked))
            }
            None => self.send(message),
        }
    }

    fn explain_message(&self, message: RoutedMessage) -> Explanation {
        self.explainer.explain_message(message)
    }

    fn attachments(&self) -> Attachments {
        self.attachments.clone()
    }
}

impl Routing for KvmRouter {
    fn allocate(&self) -> Result<Gsi, RouteError> {
        self.kernel.lock().gsis.allocate()
    }

    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError> {
        let mut kernel = self.kernel.lock();
        kernel.gsis.release_all(gsis)?;
        if gsis.iter().any(|gsi| self.machine.is_bound(*gsi) && self.routes.look(*gsi).is_some()) {
            let mut table: BTreeMap<_, _> = self.routes.routed().collect();
            for gsi in gsis {
                table.remove(gsi);
            }
            let table = self.translated(table);
            if let Err(error) = self.give(&mut kernel, table) {
                for gsi in gsis {
                    kernel.gsis.take(*gsi);
                }
                return Err(refused(error));
            }
        }
        self.routes.set(gsis.iter().map(|gsi| (*gsi, None)));
        Ok(())
    }

    fn commit(&self, changes: &[Change]) -> Result<ChangeCount, RouteError> {
        changes.iter().try_for_each(|change| self.check_gsi(change.gsi()))?;
        if changes.is_empty() {
            return Ok(ChangeCount::default());
        }
        let mut kernel = self.kernel.lock();
        let mut table: BTreeMap<_, _> = self.routes.routed().collect();
        for change in changes {
            match change.route() {
                Some(route) => table.insert(change.gsi(), route),
                None => table.remove(&change.gsi()),
            };
        }
        let table = self.translated(table);
        let has = |before: &BTreeMap<_, _>| {
            changes.iter().all(|change| before.get(&change.gsi()) == table.get(&change.gsi()))
        };
        if !kernel.table.as_ref().is_some_and(has) {
            self.give(&mut kernel, table).map_err(refused)?;
        }
        for change in changes.iter().filter(|change| change.route().is_some()) {
            kernel.gsis.take(change.gsi());
        }
        Ok(self.routes.set_table(changes.iter().map(|change| (change.gsi(), change.route()))))
    }

    fn invalidate(&self, invalidation: &Invalidation) -> Result<(), RouteError> {
        let Some(translations) = &self.translations else { return Ok(()) };
        translations.invalidate(invalidation);
        let irqfds: Vec<_> = self.irqfds.lock().iter().filter_map(Weak::upgrade).collect();
        // An eventfd must be polled before its route is removed, otherwise the kernel would drop
        // signals that no event records.
        for retranslate in irqfds {
            retranslate(invalidation);
        }
        let mut kernel = self.kernel.lock();
        let differs = |table: &BTreeMap<_, _>| {
            let concerned = |route: &_| match route {
                Route::Message(message) => invalidation.concerns_message(*message),
                Route::Pin(_) => false,
            };
            let mut routes = self.routes.routed().filter(|(_, route)| concerned(route));
            routes.any(|(gsi, route)| table.get(&gsi).copied() != self.translate(route))
        };
        if kernel.table.as_ref().is_some_and(differs) {
            let table = self.translated(self.routes.routed());
            self.give(&mut kernel, table).map_err(refused)?;
        }
        Ok(())
    }

    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError> {
        match self.route(gsi).ok_or(SignalError::Unrouted(gsi))? {
            Route::Message(message) => self.signal_msi(message),
            Route::Pin(pin) => self.pulse(gsi, pin).map_err(unsent),
        }
    }
}

/// Returns a pin's number for `KVM_IRQ_LINE`. On Arm, it encodes the SPI.
#[cfg(target_arch = "aarch64")]
fn line(_: Gsi, pin: Pin) -> u32 {
    crate::IrqLine::Line(pin.line()).encode().unwrap_or(0)
}

/// Returns a pin's number for `KVM_IRQ_LINE`. On x86, it is the GSI.
#[cfg(target_arch = "x86_64")]
fn line(gsi: Gsi, _: Pin) -> u32 {
    gsi.get()
}

msi_types::debug_by!(
    KvmRouter as "KvmRouter",
    |it| {limit: it.limit, routes: it.routes.routed().count()}
);

impl Machine {
    fn is_bound(&self, gsi: Gsi) -> bool {
        self.bound.lock().get(&gsi).is_some_and(|count| *count > 0)
    }
}

/// An eventfd bound in the kernel. Dropping it unbinds the eventfd: the drop waits until the kernel
/// has served earlier signals, and later ones stay in the eventfd. It owns the value that was
/// passed to [`KvmRouter::bind`], and does not duplicate the descriptor.
#[must_use = "dropping it ends the bind"]
pub struct KvmIrqfd<E: AsFd> {
    machine: Arc<Machine>,
    trigger: E,
    gsi: Gsi,
    is_level: bool,
}

impl<E: AsFd> KvmIrqfd<E> {
    /// Waits until every signal from before this call is in the kernel's interrupt controller. Call
    /// this once the devices have stopped, and before the controller is saved. Unbinds the eventfd,
    /// which waits for earlier signals, and binds it again.
    ///
    /// Has no effect on an eventfd that is bound to a level, because unbinding it would lower the
    /// pin. After the restore, the resample eventfd makes the device signal again.
    ///
    /// # Errors
    /// Returns the kernel's error if it does not bind the eventfd again. Later signals then stay in
    /// the eventfd.
    pub fn settle(&self) -> io::Result<()> {
        if self.is_level {
            return Ok(());
        }
        ioctl::unbind(self.machine.vm.as_fd(), self.trigger.as_fd(), self.gsi)?;
        Ok(ioctl::bind(self.machine.vm.as_fd(), self.trigger.as_fd(), None, self.gsi)?)
    }
}

impl<E: AsFd> Drop for KvmIrqfd<E> {
    fn drop(&mut self) {
        // This can only fail if the eventfd isn't bound.
        let _ = ioctl::unbind(self.machine.vm.as_fd(), self.trigger.as_fd(), self.gsi);
        self.machine.bound.lock().entry(self.gsi).and_modify(|count| *count -= 1);
    }
}

msi_types::debug_by!([E: AsFd] KvmIrqfd<E> as "KvmIrqfd", |it| {gsi: it.gsi});

/// Serializes edges. The I/O APIC ignores an edge if the pin is already high, so concurrent pulses
/// on one pin would merge. (The GIC in KVM latches an edge each time the level is set to 1.)
#[derive(Default)]
pub(crate) struct Pulses(Mutex<()>);

impl Pulses {
    /// Raises and lowers a pin with `drive`.
    pub(crate) fn pulse<E>(&self, drive: impl FnMut(bool) -> Result<(), E>) -> Result<(), E> {
        let _pulse = self.0.lock();
        [true, false].map(drive).into_iter().collect()
    }
}
