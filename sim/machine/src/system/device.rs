//! A device as the workload sees it: the hardware that sends, the driver that handles, and the
//! records about both.

use super::{System, VirtualFunction};
use crate::cpu::looked_at;
use crate::fault::Handler;
use crate::oracle::{SendOutcome, VectorRecord};
use crate::report::DeviceKind;
use doorbell_hardware::lock::lock;
use doorbell_hardware::pci::enumerate::FoundFunction;
use doorbell_hardware::pci::{Function, Signalled, StoreConfig};
use doorbell_hardware::platform_device::{Line, PlatformDevice, PlatformStore};
use gic_firmware::ControllerIndex;
use irq_domain::pci::FunctionStore;
use irq_domain::{IrqContext, IrqHandle, MsiDevice, MsiDeviceConfig, MsiVector};
use msi_types::{DeviceId, HwIrq, MsiParent, RequesterId, Shape};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// One run in so many takes long.
const LONG_RUNS: u64 = 5;

/// The hardware that sends.
pub(crate) enum DeviceHardware {
    Function(Arc<Function>),
    /// On a virtual bus.
    Virtual(VirtualFunction),
    Platform(Arc<PlatformDevice>),
}

impl DeviceHardware {
    pub(crate) fn signal(&self, slot: u16) -> Signalled {
        match self {
            Self::Function(function) => function.signal(slot),
            Self::Virtual(on_bus) => on_bus.function.signal(slot),
            Self::Platform(device) => device.signal(slot),
        }
    }

    /// Its driver is about to be asked to let it go.
    fn begin_removal(&self, removal: Removal) {
        match (self, removal) {
            (_, Removal::Surprise) => self.unplug(),
            (Self::Virtual(on_bus), Removal::Orderly) => on_bus.eject(),
            (Self::Function(_) | Self::Platform(_), Removal::Orderly) => {}
        }
    }

    fn unplug(&self) {
        match self {
            Self::Function(function) => function.unplug(),
            Self::Virtual(on_bus) => on_bus.unplug(),
            Self::Platform(device) => device.unplug(),
        }
    }

    fn plug(&self) {
        match self {
            Self::Function(function) => function.plug(),
            Self::Virtual(on_bus) => on_bus.plug(),
            Self::Platform(device) => device.plug(),
        }
    }

    /// `None` if it is no PCI function.
    fn pci_store(&self) -> Option<StoreConfig> {
        match self {
            Self::Function(function) => Some(function.store()),
            Self::Virtual(on_bus) => Some(on_bus.function.store()),
            Self::Platform(_) => None,
        }
    }
}

/// The way in which a driver finds the message store.
pub(crate) enum Probe {
    Pci(Box<FoundFunction>),
    Platform { base: u64 },
}

/// A device before it is set up.
pub(crate) struct DiscoveredDevice {
    pub(crate) name: String,
    pub(crate) hardware: DeviceHardware,
    pub(crate) probe: Probe,
    pub(crate) requester: RequesterId,
    pub(crate) controller: ControllerIndex,
    pub(crate) device_id: DeviceId,
}

/// A vector: its records, over all the times that it was requested.
pub(crate) struct DeviceVector {
    pub(crate) slot: u16,
    pub(crate) record: VectorRecord,
    runs: AtomicU64,
    /// The device could not send when it tried to the last time.
    is_off: AtomicBool,
    /// Redeliveries that the interrupt core counted under handles that are gone.
    redelivered: AtomicU64,
}

/// A device.
pub(crate) struct Device {
    pub(crate) config: DiscoveredDevice,
    parent: Result<Arc<dyn MsiParent>, String>,
    vectors: OnceLock<Vec<Arc<DeviceVector>>>,
    driver: Mutex<Driver>,
    /// Held while the device sends one message and counts it.
    sending: Mutex<()>,
    /// Whether the device sleeps with the machine, and sends nothing.
    asleep: AtomicBool,
}

/// The driver's side.
pub(crate) enum Driver {
    /// There is none, for this reason.
    Refused(String),
    /// The device is known, and has no vectors.
    Attached(MsiDevice, Shape),
    /// At work.
    Active(MsiDevice, Vec<IrqHandle>),
    /// The device was taken away.
    Gone,
}

impl Device {
    pub(crate) fn new(
        config: DiscoveredDevice,
        parent: Result<Arc<dyn MsiParent>, String>,
    ) -> Self {
        let driver = Mutex::new(Driver::Gone);
        let (sending, asleep) = (Mutex::new(()), AtomicBool::new(false));
        Self { config, parent, vectors: OnceLock::new(), driver, sending, asleep }
    }

    /// The driver finds the message store and makes the device known to its controller.
    pub(crate) fn attach(&self, system: &System) {
        let attached = self.try_attach(system);
        *lock(&self.driver) = attached
            .map_or_else(Driver::Refused, |(device, shape)| Driver::Attached(device, shape));
    }

    fn try_attach(&self, system: &System) -> Result<(MsiDevice, Shape), String> {
        let parent = self.watched_parent(system)?;
        system.faults.admit()?;
        let FunctionStore { store, shape } = self.store(system)?;
        let store = system.faults.store(store);
        let config = MsiDeviceConfig::new(&self.config.name, self.config.requester, parent, store);
        let device =
            MsiDevice::attach(&system.interrupts, config).map_err(|error| error.to_string())?;
        Ok((device, shape))
    }

    /// The device's parent, with the records kept about it.
    fn watched_parent(&self, system: &System) -> Result<Arc<dyn MsiParent>, String> {
        let parent = Arc::clone(self.parent.as_ref().map_err(Clone::clone)?);
        Ok(system.records.routes.watch(parent, system.pending_at(self.config.controller)))
    }

    fn store(&self, system: &System) -> Result<FunctionStore, String> {
        match &self.config.probe {
            Probe::Pci(found) => {
                found.store(Arc::clone(&system.platform) as _).map_err(|error| error.to_string())
            }
            Probe::Platform { base } => {
                let store = PlatformStore::new(system.platform.cpu_bus(), *base);
                Ok(FunctionStore { store: Arc::new(store), shape: Shape::Independent })
            }
        }
    }

    /// Returns the register by which the handler ends the device's level, if it holds one.
    fn line(&self, system: &System, slot: u16) -> Option<Line> {
        match &self.config.probe {
            Probe::Pci(_) => None,
            Probe::Platform { base } => {
                PlatformStore::new(system.platform.cpu_bus(), *base).line(slot)
            }
        }
    }

    /// The driver gets as many vectors as the device has, or as it may take, and handles them.
    pub(crate) fn activate(&self, system: &System) {
        let mut driver = lock(&self.driver);
        *driver = match std::mem::replace(&mut *driver, Driver::Gone) {
            Driver::Attached(device, shape) => {
                self.try_activate(system, device, shape).unwrap_or_else(Driver::Refused)
            }
            other => other,
        };
    }

    fn try_activate(
        &self,
        system: &System,
        device: MsiDevice,
        shape: Shape,
    ) -> Result<Driver, String> {
        for vector in self.vectors() {
            vector.record.begin_operation();
        }
        let most = system.faults.limit(system.fair_share(self.config.controller));
        let granted = device.allocate(shape, 1..=most).map_err(|error| error.to_string())?;
        let vectors = self.vectors.get_or_init(|| {
            granted.iter().filter_map(|vector| DeviceVector::new(system, vector.slot)).collect()
        });
        self.follow(system, vectors, &granted);
        let mut handles = Vec::new();
        for vector in vectors {
            let name = format!("{}#{}", self.config.name, vector.slot);
            let request = device.request(vector.slot, &name, self.handler(system, vector)?);
            let handle = request.map_err(|error| error.to_string())?;
            vector.record.end_operation();
            handles.push(handle);
        }
        Ok(Driver::Active(device, handles))
    }

    /// Returns the handler of a vector, which records each run.
    fn handler(&self, system: &System, vector: &Arc<DeviceVector>) -> Result<Handler, String> {
        let theirs = Arc::clone(vector);
        let platform = Arc::clone(&system.platform);
        let line = self.line(system, vector.slot);
        let handler = move |context: &IrqContext<'_>| {
            // Before the records are read: what rises afterwards is told again.
            line.iter().for_each(Line::lower);
            theirs.record.handle(context.cpu(), looked_at());
            if theirs.takes_long() {
                platform.linger();
            }
        };
        Ok(system.faults.handler(self.watched_parent(system)?, Box::new(handler)))
    }

    /// The records follow the vectors to where they are now.
    fn follow(&self, system: &System, vectors: &[Arc<DeviceVector>], granted: &[MsiVector]) {
        let _sending = lock(&self.sending);
        for vector in vectors {
            let now = granted.iter().find(|now| now.slot == vector.slot);
            if let Some(route) = now.and_then(|now| system.records.routes.get(now.hwirq)) {
                vector.record.follow(route);
            }
        }
    }

    /// The device sends its next message on `vector`. False if it could not.
    pub(crate) fn send(&self, vector: &DeviceVector) -> bool {
        let _sending = lock(&self.sending);
        if self.asleep.load(Ordering::Relaxed) {
            return false;
        }
        vector.record.send(|| {
            let left = match self.config.hardware.signal(vector.slot) {
                Signalled::Sent(_) => SendOutcome::Sent,
                Signalled::Held => SendOutcome::Held,
                Signalled::Off => SendOutcome::NotSent,
            };
            vector.is_off.store(left == SendOutcome::NotSent, Ordering::Relaxed);
            left
        })
    }

    /// Puts the device to sleep, after its messages were sent, or wakes it.
    pub(super) fn set_asleep(&self, asleep: bool) {
        let _sending = lock(&self.sending);
        self.asleep.store(asleep, Ordering::Relaxed);
    }

    /// Makes the device lose the state that a power-down loses. Its bus driver then restores its
    /// header, and the interrupt core its message store.
    ///
    /// # Errors
    /// The reason why the device's messages could not be restored.
    pub(super) fn lose_power_and_restore(&self) -> Result<(), String> {
        let DeviceHardware::Function(function) = &self.config.hardware else { return Ok(()) };
        self.with_driver(|driver| {
            let Driver::Active(device, _) = driver else { return Ok(()) };
            function.reset();
            device.restore().map_err(|error| format!("{}: {error}", self.config.name))
        })
    }

    /// The device goes, under load: in an orderly way, or by surprise.
    pub(crate) fn remove(&self, system: &System, removal: Removal) {
        let mut driver = lock(&self.driver);
        let Driver::Active(device, handles) = std::mem::replace(&mut *driver, Driver::Gone) else {
            return;
        };
        let interrupts: Vec<HwIrq> = handles.iter().map(IrqHandle::hwirq).collect();
        for interrupt in &interrupts {
            system.records.unhandled.going(*interrupt);
        }
        if removal == Removal::Surprise {
            system.surprises.fetch_add(1, Ordering::SeqCst);
        }
        self.config.hardware.begin_removal(removal);
        for (vector, handle) in self.vectors().iter().zip(handles) {
            vector.record.begin_operation();
            let irq = handle.irq();
            drop(handle);
            // No handler runs any more: the count is final, and the number not yet another's.
            let info = system.interrupts.irq_info(irq).ok().flatten();
            let redelivered = info.map_or(0, |info| info.redelivered);
            vector.redelivered.fetch_add(redelivered, Ordering::Relaxed);
        }
        // A device that is gone does not take its store's shutdown.
        let _ = device.tear_down();
        if removal == Removal::Surprise {
            system.surprises.fetch_add(1, Ordering::SeqCst);
        }
        self.config.hardware.unplug();
        let now = system.records.clock.tick();
        for interrupt in &interrupts {
            system.records.unhandled.gone(*interrupt, now);
        }
        let _sending = lock(&self.sending);
        for vector in self.vectors() {
            vector.record.end_operation();
            vector.record.abandon();
        }
    }

    /// It comes back, reset, and is set up anew.
    ///
    /// # Errors
    /// The driver's reason, if it has vectors no more.
    pub(crate) fn add(&self, system: &System) -> Result<(), String> {
        self.config.hardware.plug();
        if let Probe::Pci(found) = &self.config.probe {
            found.configure().map_err(|error| error.to_string())?;
        }
        self.attach(system);
        self.activate(system);
        self.refused().map_or(Ok(()), Err)
    }

    /// Its vectors; none before it was activated.
    pub(crate) fn vectors(&self) -> &[Arc<DeviceVector>] {
        self.vectors.get().map_or(&[], Vec::as_slice)
    }

    /// Looks at the driver's side, or has it do something.
    pub(crate) fn with_driver<R>(&self, act: impl FnOnce(&Driver) -> R) -> R {
        act(&lock(&self.driver))
    }

    /// The reason for which its driver failed.
    pub(crate) fn refused(&self) -> Option<String> {
        self.with_driver(|driver| match driver {
            Driver::Refused(reason) => Some(reason.clone()),
            Driver::Attached(..) | Driver::Active(..) | Driver::Gone => None,
        })
    }

    /// Could it not send when it tried to the last time?
    pub(crate) fn is_off(&self) -> bool {
        self.vectors().iter().any(|vector| vector.is_off.load(Ordering::Relaxed))
    }

    /// The smallest number of vectors with which the device is of use. A function sends all its
    /// causes by one MSI message if it gets no more. A driver of MSI-X wants one vector for control
    /// and one for work. Each vector of a platform device is a cause of its own.
    pub(crate) fn useful_minimum(&self) -> u16 {
        match &self.config.hardware {
            DeviceHardware::Platform(device) => device.config().slots,
            DeviceHardware::Function(_) | DeviceHardware::Virtual(_) => {
                match self.config.hardware.pci_store() {
                    Some(StoreConfig::Msix { vectors, .. }) => vectors.min(2),
                    Some(StoreConfig::Msi { .. }) => 1,
                    Some(StoreConfig::None) | None => 0,
                }
            }
        }
    }

    /// The number of resends of this vector by the interrupt core.
    pub(crate) fn redelivered(&self, index: usize) -> u64 {
        let before = self
            .vectors()
            .get(index)
            .map_or(0, |vector| vector.redelivered.load(Ordering::Relaxed));
        let now = self.with_driver(|driver| match driver {
            Driver::Active(_, handles) => handles.get(index).map_or(0, IrqHandle::redelivered),
            Driver::Refused(_) | Driver::Attached(..) | Driver::Gone => 0,
        });
        before + now
    }

    pub(crate) fn kind(&self) -> DeviceKind {
        match self.config.hardware.pci_store() {
            None => DeviceKind::Platform,
            Some(StoreConfig::Msix { .. }) => DeviceKind::PciMsix,
            Some(StoreConfig::Msi { .. } | StoreConfig::None) => DeviceKind::PciMsi,
        }
    }

    pub(crate) fn is_pci(&self) -> bool {
        self.config.hardware.pci_store().is_some()
    }

    pub(crate) fn isolation(&self) -> Option<msi_types::Isolation> {
        let parent = self.parent.as_ref().ok()?;
        Some(parent.isolation(self.config.requester))
    }
}

/// The way in which a device is removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Removal {
    /// Its driver lets it go first.
    Orderly,
    /// It is pulled out.
    Surprise,
}

impl DeviceVector {
    /// `None` if there is no memory for its mailbox.
    fn new(system: &System, slot: u16) -> Option<Arc<Self>> {
        let mailbox = system.ram.allocate(8, 8)?;
        let (clock, ram) = (Arc::clone(&system.records.clock), Arc::clone(&system.ram));
        let record = VectorRecord::new(clock, ram, mailbox, system.cpus);
        // As after an operation that was begun: the request that follows ends it.
        record.begin_operation();
        Some(Arc::new(Self {
            slot,
            record,
            runs: AtomicU64::new(0),
            is_off: AtomicBool::new(false),
            redelivered: AtomicU64::new(0),
        }))
    }

    /// Is this one of the handler's long runs? While it lasts, messages arrive for a handler that
    /// runs already.
    fn takes_long(&self) -> bool {
        self.runs.fetch_add(1, Ordering::Relaxed).is_multiple_of(LONG_RUNS)
    }
}
