//! A virtual PCI bus, with both the host end and the guest end. The host end adds and removes the
//! bus's functions.

use crate::machine::VirtualBusHardware;
use doorbell_hardware::hyperv::HypervHost;
use doorbell_hardware::lock::lock;
use doorbell_hardware::platform::MachinePlatform;
use gic_firmware::ControllerIndex;
use hyperv_vpci::channel::Idle;
use hyperv_vpci::guest::{Bus, BusEvent, SpiDomain, Vectors};
use hyperv_vpci::protocol::Slot;
use msi_types::{MsiParent, RequesterId, WiredParent};
use std::sync::{Arc, Mutex};

/// Both ends of a virtual bus.
pub(crate) struct VirtualBus {
    /// Index in [`Description::controllers`](gic_firmware::Description::controllers).
    pub(crate) controller: ControllerIndex,
    host: Arc<HypervHost>,
    guest: Arc<Bus>,
    /// The first failure at either end of the bus.
    failure: Mutex<Option<String>>,
}

impl VirtualBus {
    /// Opens the guest end of the bus, and uses the SPIs of `wired` as the bus's vectors.
    ///
    /// # Errors
    /// Returns an error if the guest's driver fails to open the bus.
    pub(crate) fn open(
        hardware: &VirtualBusHardware,
        platform: &Arc<MachinePlatform>,
        wired: Arc<dyn WiredParent>,
    ) -> Result<Arc<Self>, String> {
        let domain = SpiDomain::new(wired, Arc::clone(platform) as _);
        let domain = Arc::new(domain.map_err(|error| error.to_string())?);
        let host = Arc::clone(&hardware.host);
        let guest = host.open(platform, Vectors::Spis(domain))?;
        while guest.next_event().is_some() {}
        let controller = hardware.controller;
        Ok(Arc::new(Self { controller, host, guest, failure: Mutex::default() }))
    }

    /// Returns the MSI parent of the bus's functions.
    pub(crate) fn parent(&self) -> Arc<dyn MsiParent> {
        Arc::clone(&self.guest) as _
    }

    /// Returns the number of migrations of the host end between a request and its reply.
    pub(crate) fn migrated_in_flight(&self) -> u64 {
        self.host.migrated_in_flight().unwrap_or(0)
    }

    /// Returns the first failure at either end of the bus, or a fault of the host that the guest
    /// detected.
    pub(crate) fn fault(&self) -> Option<String> {
        let faults = self.guest.faults();
        let noticed = (faults != hyperv_vpci::guest::Faults::default())
            .then(|| format!("the guest detected faults of its host: {faults:?}"));
        lock(&self.failure).clone().or(self.host.migrated_in_flight().err()).or(noticed)
    }

    fn note(&self, result: Result<(), String>) {
        if let Err(reason) = result {
            lock(&self.failure).get_or_insert(reason);
        }
    }

    /// Makes the guest handle all packets that the host has sent.
    fn poll(&self) -> Result<(), String> {
        while self.guest.poll().map_err(|error| error.to_string())? == Idle::Busy {}
        Ok(())
    }

    /// Checks that the guest's next event is `event`.
    fn hear(&self, event: BusEvent) -> Result<(), String> {
        self.poll()?;
        match self.guest.next_event() {
            Some(heard) if heard == event => Ok(()),
            other => Err(format!("the guest received {other:?} instead of {event:?}")),
        }
    }
}

/// The slot of a function on a virtual bus.
pub(crate) struct VirtualSlot {
    bus: Arc<VirtualBus>,
    requester: RequesterId,
    presence: Mutex<Presence>,
}

/// A function's presence on the bus, as the host sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Offered,
    /// The guest was asked to release the function.
    Ejecting,
    Gone,
}

impl VirtualSlot {
    pub(crate) fn new(requester: RequesterId, bus: &Arc<VirtualBus>) -> Self {
        Self { bus: Arc::clone(bus), requester, presence: Mutex::new(Presence::Offered) }
    }

    const fn slot(&self) -> Slot {
        Slot::of(self.requester)
    }

    /// Asks the guest to release the function. The function keeps working until its driver releases
    /// it.
    pub(super) fn eject(&self) {
        let asked = self.bus.host.eject(self.requester);
        self.bus.note(asked.and_then(|()| self.bus.hear(BusEvent::EjectRequested(self.slot()))));
        *lock(&self.presence) = Presence::Ejecting;
    }

    /// Removes the function. The removal is orderly if the host has asked the guest to release the
    /// function; otherwise, it is a surprise.
    pub(super) fn unplug(&self) {
        let presence = std::mem::replace(&mut *lock(&self.presence), Presence::Gone);
        self.bus.note(match presence {
            Presence::Gone => Ok(()),
            Presence::Ejecting => self.let_go(),
            Presence::Offered => {
                let removed = self.bus.host.remove(self.requester);
                removed.and_then(|()| self.bus.hear(BusEvent::Gone(self.slot())))
            }
        });
    }

    fn let_go(&self) -> Result<(), String> {
        let completed = self.bus.guest.eject_complete(self.slot());
        completed.map_err(|error| error.to_string())?;
        self.bus.host.forget(self.requester)?;
        self.bus.poll()
    }

    /// Offers the function and makes the guest discover it.
    pub(super) fn plug(&self) {
        let offered = self.bus.host.offer(self.requester);
        self.bus.note(offered.and_then(|()| self.bus.hear(BusEvent::Arrived(self.slot()))));
        *lock(&self.presence) = Presence::Offered;
    }
}
