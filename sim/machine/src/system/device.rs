//! A device as the workload sees it: the hardware that sends messages, the driver that handles
//! them, and the records of both.

use super::System;
use super::hardware::{DeviceHardware, Removal};
use crate::cpu::{Timing, looked_at};
use crate::fault::{FaultInjector, Handler};
use crate::latency::{Latency, LatencyCounts, Stopwatch};
use crate::ledger::{SendOutcome, VectorRecord};
use crate::report::DeviceKind;
use crate::trace::{Occurrence, Recorder, Subject};
use doorbell_hardware::lock::lock;
use doorbell_hardware::pci::{Signaled, StoreConfig};
use doorbell_hardware::platform_device::Line;
use gic_firmware::ControllerIndex;
use irq_domain::pci::FunctionStore;
use irq_domain::{IrqContext, IrqHandle, MsiDevice, MsiDeviceConfig, MsiVector};
use msi_types::{Cpu, DeviceId, HwIrq, MsiParent, RequesterId, Shape};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// One in this many handler runs of a vector takes a long time.
const LONG_RUNS: u64 = 5;

/// A device that isn't set up yet.
pub(crate) struct DiscoveredDevice {
    pub(crate) name: String,
    pub(crate) hardware: DeviceHardware,
    pub(crate) requester: RequesterId,
    pub(crate) controller: ControllerIndex,
    pub(crate) device_id: DeviceId,
}

/// A vector and its records, which span all requests for the vector.
pub(crate) struct DeviceVector {
    pub(crate) slot: u16,
    pub(crate) record: VectorRecord,
    runs: AtomicU64,
    /// Set if the device's last attempt to send failed.
    is_off: AtomicBool,
    /// Number of redeliveries that the interrupt core counted for handles that have since been
    /// dropped.
    redelivered: AtomicU64,
    stopwatch: Option<Stopwatch>,
    /// Recorder, and the index that it assigned to the device.
    recorder: Option<(Arc<Recorder>, u32)>,
}

/// A device.
pub(crate) struct Device {
    pub(crate) config: DiscoveredDevice,
    parent: Result<Arc<dyn MsiParent>, String>,
    vectors: OnceLock<Vec<Arc<DeviceVector>>>,
    driver: Mutex<Driver>,
    /// Lock held while the device sends a message and counts it.
    sending: Mutex<()>,
    /// Set while the whole machine is suspended. The device must not send while this flag is set.
    asleep: AtomicBool,
    latencies: Arc<LatencyCounts>,
    faults: Arc<FaultInjector>,
}

/// The driver's state.
pub(crate) enum Driver {
    /// The device was denied vectors; the text states the reason.
    Refused(String),
    /// The device is attached to its controller and has no vectors.
    Attached(MsiDevice, Shape),
    /// The driver is in use, and has vectors.
    Active(MsiDevice, Vec<IrqHandle>),
    /// The device has been removed.
    Gone,
}

impl Device {
    pub(crate) fn new(
        config: DiscoveredDevice,
        parent: Result<Arc<dyn MsiParent>, String>,
        faults: &Arc<FaultInjector>,
    ) -> Self {
        let driver = Mutex::new(Driver::Gone);
        let (sending, asleep) = (Mutex::new(()), AtomicBool::new(false));
        let (vectors, latencies) = (OnceLock::new(), Arc::new(LatencyCounts::new()));
        let faults = Arc::clone(faults);
        Self { config, parent, vectors, driver, sending, asleep, latencies, faults }
    }

    /// Makes the driver find the message store and attach the device to its controller.
    pub(crate) fn attach(&self, system: &System) {
        let attached = self.try_attach(system);
        *lock(&self.driver) = attached
            .map_or_else(Driver::Refused, |(device, shape)| Driver::Attached(device, shape));
    }

    fn try_attach(&self, system: &System) -> Result<(MsiDevice, Shape), String> {
        let parent = self.watched_parent(system)?;
        system.faults.admit()?;
        let host = Arc::clone(&system.platform) as _;
        let FunctionStore { store, shape } = self.config.hardware.store(host)?;
        let config = MsiDeviceConfig::new(&self.config.name, self.config.requester, parent, store);
        let copy = self.config.hardware.copier();
        let config = copy.into_iter().fold(config, MsiDeviceConfig::with_copy);
        let device =
            MsiDevice::attach(&system.interrupts, config).map_err(|error| error.to_string())?;
        Ok((device, shape))
    }

    /// Returns the device's parent, wrapped so that all calls to the parent are recorded.
    fn watched_parent(&self, system: &System) -> Result<Arc<dyn MsiParent>, String> {
        let parent = Arc::clone(self.parent.as_ref().map_err(Clone::clone)?);
        let pending = system.pending_at(self.config.controller);
        Ok(system.records.routes.watch(parent, pending, system.faults.astray()))
    }

    /// Makes the driver allocate as many of the device's vectors as it may use, and install their
    /// handlers.
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
        let most = system.faults.limit(system.fair_share(self.config.controller));
        let granted = device.allocate(shape, 1..=most).map_err(|error| error.to_string())?;
        let vectors = self.vectors.get_or_init(|| {
            let name = &self.config.name;
            granted.iter().filter_map(|it| DeviceVector::new(system, name, it.slot)).collect()
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

    /// Returns the handler for a vector. The handler records each of its runs.
    fn handler(&self, system: &System, vector: &Arc<DeviceVector>) -> Result<Handler, String> {
        let theirs = Arc::clone(vector);
        let platform = Arc::clone(&system.platform);
        let latencies = Arc::clone(&self.latencies);
        let line = self.config.hardware.line(vector.slot);
        let handler = move |context: &IrqContext<'_>| {
            // Deassert the level before reading the records, so that a level asserted afterwards is
            // signaled again.
            line.iter().for_each(Line::lower);
            let messages = theirs.record.handle(context.cpu(), looked_at());
            theirs.handled(context.cpu(), messages, &latencies);
            if theirs.takes_long() {
                platform.linger();
            }
        };
        Ok(system.faults.handler(self.watched_parent(system)?, Box::new(handler)))
    }

    /// Makes the records use the routes of the newly granted vectors.
    fn follow(&self, system: &System, vectors: &[Arc<DeviceVector>], granted: &[MsiVector]) {
        let _sending = lock(&self.sending);
        for vector in vectors {
            let now = granted.iter().find(|now| now.slot == vector.slot);
            let Some(now) = now else { continue };
            let routes = &system.records.routes;
            if let Some(route) = routes.get(now.hwirq) {
                if route.is_chained() {
                    let target = || system.interrupts.effective_affinity(now.irq);
                    routes.settle_line(&route, target);
                }
                vector.record.follow(route);
            }
        }
    }

    /// Sends the next message on `vector`. Returns `false` if the device could not send it.
    pub(crate) fn send(&self, vector: &DeviceVector) -> bool {
        let _sending = lock(&self.sending);
        if self.asleep.load(Ordering::Relaxed) || !vector.record.may_send() {
            return false;
        }
        vector.begins();
        vector.record.send(|| {
            let is_on = self.faults.is_on(self.kind() == DeviceKind::PciMsix);
            let signal = || self.config.hardware.signal(vector.slot);
            let left = match vector.fire(|| if is_on { signal() } else { Signaled::Off }) {
                Signaled::Sent(_) => SendOutcome::Sent,
                Signaled::Held => SendOutcome::Held,
                Signaled::Off => SendOutcome::NotSent,
            };
            vector.is_off.store(left == SendOutcome::NotSent, Ordering::Relaxed);
            left
        })
    }

    /// Makes the device sleep after its current message has been sent, or wakes it up.
    pub(super) fn set_asleep(&self, asleep: bool) {
        let _sending = lock(&self.sending);
        self.asleep.store(asleep, Ordering::Relaxed);
    }

    /// Discards all device state that a power loss would discard. The bus driver then restores the
    /// device's configuration header, and the interrupt core restores its message store.
    ///
    /// # Errors
    /// Returns an error if the device's messages cannot be restored.
    pub(super) fn lose_power_and_restore(&self) -> Result<(), String> {
        let DeviceHardware::Function { function, slot: None, .. } = &self.config.hardware else {
            return Ok(());
        };
        self.with_driver(|driver| {
            let Driver::Active(device, _) = driver else { return Ok(()) };
            function.reset();
            device.restore().map_err(|error| format!("{}: {error}", self.config.name))
        })
    }

    /// Removes the device under load, either with its driver's cooperation or by surprise.
    pub(crate) fn remove(&self, system: &System, removal: Removal) {
        let mut driver = lock(&self.driver);
        let Driver::Active(device, handles) = std::mem::replace(&mut *driver, Driver::Gone) else {
            return;
        };
        // The operations end when the device has been added again.
        for vector in self.vectors() {
            vector.record.begin_operation();
        }
        let interrupts: Vec<HwIrq> = handles.iter().map(IrqHandle::hwirq).collect();
        for interrupt in &interrupts {
            system.records.unhandled.going(*interrupt);
        }
        if removal == Removal::Surprise {
            system.surprises.fetch_add(1, Ordering::SeqCst);
        }
        self.config.hardware.begin_removal(removal);
        for (vector, handle) in self.vectors().iter().zip(handles) {
            let irq = handle.irq();
            drop(handle);
            // The handler cannot run any more, so its count is final, and the interrupt's number
            // hasn't been reused yet.
            let info = system.interrupts.irq_info(irq).ok().flatten();
            let redelivered = info.map_or(0, |info| info.redelivered);
            vector.redelivered.fetch_add(redelivered, Ordering::Relaxed);
        }
        // After a surprise removal, the device's message store cannot be shut down.
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
        self.vectors().iter().for_each(|vector| vector.record.abandon());
    }

    /// Resets the device, adds it again and sets it up again.
    ///
    /// # Errors
    /// Returns an error if the driver cannot set up the device.
    pub(crate) fn add(&self, system: &System) -> Result<(), String> {
        self.config.hardware.plug()?;
        self.attach(system);
        self.activate(system);
        self.refused().map_or(Ok(()), Err)
    }

    /// Returns the vectors. The slice is empty until the device is activated.
    pub(crate) fn vectors(&self) -> &[Arc<DeviceVector>] {
        self.vectors.get().map_or(&[], Vec::as_slice)
    }

    /// Calls `act` with the driver's state.
    pub(crate) fn with_driver<R>(&self, act: impl FnOnce(&Driver) -> R) -> R {
        act(&lock(&self.driver))
    }

    /// Returns the reason why the driver failed, if it did.
    pub(crate) fn refused(&self) -> Option<String> {
        self.with_driver(|driver| match driver {
            Driver::Refused(reason) => Some(reason.clone()),
            Driver::Attached(..) | Driver::Active(..) | Driver::Gone => None,
        })
    }

    /// Returns `true` if the device's last attempt to send failed.
    pub(crate) fn is_off(&self) -> bool {
        self.vectors().iter().any(|vector| vector.is_off.load(Ordering::Relaxed))
    }

    /// Returns the minimum number of vectors that the device needs. A function that has only one
    /// MSI message uses it for all its interrupts. A driver of an MSI-X function needs one vector
    /// for control and one for work. Each vector of a platform device signals a separate cause.
    pub(crate) fn useful_minimum(&self) -> u16 {
        match &self.config.hardware {
            DeviceHardware::Platform { device, .. } => device.config().slots,
            DeviceHardware::Function { function, .. } => match function.store() {
                StoreConfig::Msix { vectors, .. } => vectors.min(2),
                StoreConfig::Msi { .. } => 1,
                StoreConfig::None => 0,
            },
        }
    }

    /// Returns the number of times that the interrupt core resent this vector's interrupt.
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

    /// Returns the latencies of the device's messages, if they are measured.
    pub(crate) fn latency(&self) -> Option<Latency> {
        self.latencies.latency()
    }

    pub(crate) fn is_pci(&self) -> bool {
        self.config.hardware.pci_store().is_some()
    }

    pub(crate) fn isolation(&self) -> Option<msi_types::Isolation> {
        let parent = self.parent.as_ref().ok()?;
        Some(parent.isolation(self.config.requester))
    }
}

impl DeviceVector {
    /// Creates a vector. Returns `None` if memory for its mailbox cannot be allocated.
    fn new(system: &System, device: &str, slot: u16) -> Option<Arc<Self>> {
        let mailbox = system.ram.allocate(8, 8)?;
        let (clock, ram) = (Arc::clone(&system.records.clock), Arc::clone(&system.ram));
        let record = VectorRecord::new(clock, ram, mailbox, system.cpus);
        let measured = system.records.timing == Timing::Measured;
        let recorder = system.records.recorder.as_ref();
        // The record starts as if an operation were in progress. The subsequent request for the
        // interrupt ends the operation.
        record.begin_operation();
        Some(Arc::new(Self {
            slot,
            record,
            runs: AtomicU64::new(0),
            is_off: AtomicBool::new(false),
            redelivered: AtomicU64::new(0),
            stopwatch: measured.then(Stopwatch::new),
            recorder: recorder.map(|recorder| (Arc::clone(recorder), recorder.device(device))),
        }))
    }

    /// Records that the device starts to send the next message, and starts to measure the latency.
    /// Must be called before the handler can see the message.
    fn begins(&self) {
        let message = self.record.sent() + 1;
        if let Some(stopwatch) = &self.stopwatch {
            stopwatch.sending(message);
        }
        if let Some((recorder, _)) = &self.recorder {
            recorder.record_of(self.subject(message), Occurrence::Sends);
        }
    }

    /// Sends the next message by calling `send`, and records the events on the message's path.
    fn fire(&self, send: impl FnOnce() -> Signaled) -> Signaled {
        match &self.recorder {
            Some((recorder, _)) => recorder.sending(self.subject(self.record.sent() + 1), send),
            None => send(),
        }
    }

    /// Records a handler run that found `messages`, and the latencies of these messages.
    fn handled(&self, cpu: Cpu, messages: Range<u64>, latencies: &LatencyCounts) {
        if let Some((recorder, _)) = &self.recorder {
            let (last, count) = (messages.end - 1, messages.end - messages.start);
            recorder.record_of(self.subject(last), Occurrence::Handles { cpu, messages: count });
        }
        if let Some(stopwatch) = &self.stopwatch {
            stopwatch.handling(messages, latencies);
        }
    }

    /// Records an occurrence that concerns the vector or its device.
    pub(super) fn note(&self, what: Occurrence) {
        if let Some((recorder, _)) = &self.recorder {
            recorder.record_of(self.subject(0), what);
        }
    }

    fn subject(&self, message: u64) -> Option<Subject> {
        let (_, device) = self.recorder.as_ref()?;
        Some(Subject { device: *device, vector: self.slot, message })
    }

    /// Returns `true` if this handler run is one of the long ones, during which further messages
    /// can arrive.
    fn takes_long(&self) -> bool {
        self.runs.fetch_add(1, Ordering::Relaxed).is_multiple_of(LONG_RUNS)
    }
}
