//! Messages behind an IOMMU, on a router.

use crate::controller::{Controller, Heard};
use irq_routing::msix::{MsixTable, Signaled};
use irq_routing::{
    Access, Change, GsiSpace, Invalidation, MessageSink, Route, RoutedMessage, Router, Routing,
    Sender, TranslateMsi,
};
use msi_types::explain::Obstacle;
use msi_types::pci::msix::Control;
use msi_types::{Delivery, DeviceId, MsiMessage};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const DEVICE: DeviceId = DeviceId::new(0);
const OTHER: DeviceId = DeviceId::new(9);
/// A device that bypasses the IOMMU.
const BYPASS: DeviceId = DeviceId::new(10);
const IOVA: u64 = 0xffff_f040;

/// An IOMMU with pages of 4 KiB.
#[derive(Default)]
struct Iommu(Mutex<State>);

#[derive(Default)]
struct State {
    pages: BTreeMap<(DeviceId, u64), u64>,
    events: Vec<(DeviceId, u64)>,
    lookups: usize,
}

impl Iommu {
    fn map(&self, device: DeviceId, iova: u64, address: u64) {
        self.0.lock().unwrap().pages.insert((device, iova >> 12), address & !0xfff);
    }

    fn unmap(&self, device: DeviceId, iova: u64) {
        self.0.lock().unwrap().pages.remove(&(device, iova >> 12));
    }

    fn take_events(&self) -> Vec<(DeviceId, u64)> {
        std::mem::take(&mut self.0.lock().unwrap().events)
    }

    fn take_lookups(&self) -> usize {
        std::mem::take(&mut self.0.lock().unwrap().lookups)
    }
}

impl TranslateMsi for Iommu {
    fn translate(&self, device: DeviceId, iova: u64, access: Access) -> Option<u64> {
        let mut state = self.0.lock().unwrap();
        state.lookups += 1;
        if device == BYPASS {
            return Some(iova);
        }
        let page = state.pages.get(&(device, iova >> 12)).copied();
        if page.is_none() && access == Access::Message {
            state.events.push((device, iova));
        }
        Some(page? | iova & 0xfff)
    }
}

struct Rig {
    iommu: Arc<Iommu>,
    controller: Arc<Controller>,
    router: Arc<Router>,
}

impl Rig {
    fn new() -> Self {
        let (iommu, controller) = (Arc::new(Iommu::default()), Arc::new(Controller::default()));
        let inputs = controller.inputs().with_translator(iommu.clone());
        let router = Arc::new(Router::new(GsiSpace::default(), inputs).unwrap());
        Self { iommu, controller, router }
    }

    /// Creates a rig in which [`IOVA`] is mapped to the ITS's doorbell for the device.
    fn mapped() -> Self {
        let rig = Self::new();
        rig.iommu.map(DEVICE, IOVA, Controller::ITS);
        rig
    }

    fn send(&self, sender: Sender, address: u64, data: u32) -> Delivery {
        let message = MsiMessage { address, data };
        self.router.signal_msi(RoutedMessage { sender, message }).unwrap()
    }

    fn write(&self, device: DeviceId, address: u64) -> Delivery {
        self.send(Sender::Device(device), address, 7)
    }

    fn invalidate(&self, invalidation: &Invalidation) {
        self.router.invalidate(invalidation).unwrap();
    }
}

fn of(device: DeviceId) -> Invalidation {
    Invalidation::all().with_devices(device..=device)
}

/// Creates an MSI-X table whose vector 0 sends this message.
fn table(rig: &Rig, address: u64, control: u32) -> MsixTable {
    let table = MsixTable::new(1, Sender::Device(DEVICE), rig.router.clone()).unwrap();
    table.write(0, &address.to_le_bytes());
    table.write(8, &7u32.to_le_bytes());
    table.write(12, &control.to_le_bytes());
    table.write_control(Control::new().with_enable(true));
    table
}

#[test]
fn a_message_reaches_the_doorbell_mapped_at_its_iova() {
    let rig = Rig::mapped();
    let gsi = rig.router.allocate().unwrap();
    let message = MsiMessage { address: IOVA, data: 7 };
    rig.router.commit(&[Change::Set(gsi, Route::to_its(DEVICE, message))]).unwrap();

    assert_eq!(rig.router.signal(gsi), Ok(Delivery::Pending));
    assert_eq!(table(&rig, IOVA, 0).signal(0), Signaled::Sent(Delivery::Pending));
    assert_eq!(rig.write(DEVICE, IOVA), Delivery::Pending);
    assert_eq!(rig.controller.heard(), [Heard::Event(DEVICE, 7); 3]);
    assert_eq!((rig.iommu.take_lookups(), rig.router.dropped()), (1, 0));
}

#[test]
fn each_blocked_message_records_an_iommu_event() {
    let rig = Rig::mapped();
    let table = table(&rig, IOVA, 0);
    assert_eq!(rig.write(OTHER, IOVA), Delivery::Blocked);
    rig.iommu.unmap(DEVICE, IOVA);
    rig.invalidate(&of(DEVICE));
    assert_eq!(rig.iommu.take_events(), [(OTHER, IOVA)], "an invalidation sends no message");

    assert_eq!(table.signal(0), Signaled::Sent(Delivery::Blocked));
    assert_eq!(table.signal(0), Signaled::Sent(Delivery::Blocked));
    assert_eq!(table.explain(0).obstacle(), Some(Obstacle::NotMapped { iova: IOVA }));
    assert_eq!(rig.iommu.take_events(), [(DEVICE, IOVA); 2], "an explanation sends no message");
    assert_eq!((rig.controller.heard(), rig.router.dropped()), (vec![], 3));
}

#[test]
fn a_vector_uses_its_current_address_and_iova_mapping() {
    let rig = Rig::mapped();
    let table = table(&rig, IOVA, 0);
    assert_eq!(table.signal(0), Signaled::Sent(Delivery::Pending));
    table.write(12, &1u32.to_le_bytes());
    assert_eq!(table.signal(0), Signaled::Held);
    rig.iommu.map(DEVICE, IOVA, Controller::FRAME);
    rig.invalidate(&of(DEVICE));
    table.write(12, &0u32.to_le_bytes());
    assert_eq!(rig.controller.heard(), [Heard::Event(DEVICE, 7), Heard::Rung(7)]);

    rig.iommu.map(DEVICE, 0x5040, Controller::ITS);
    table.write(0, &0x5040u64.to_le_bytes());
    assert_eq!(table.signal(0), Signaled::Sent(Delivery::Pending));
    assert_eq!(rig.controller.heard(), [Heard::Event(DEVICE, 7)]);
}

#[test]
fn an_invalidation_retranslates_only_matching_mappings() {
    let rig = Rig::mapped();
    let page = |first| Invalidation::all().with_addresses(first..=first | 0xfff);
    rig.iommu.map(DEVICE, 0x5040, Controller::ITS);
    rig.iommu.map(OTHER, IOVA, Controller::ITS);
    for (device, iova) in [(DEVICE, IOVA), (DEVICE, 0x5040), (OTHER, IOVA), (BYPASS, 0x40)] {
        rig.write(device, iova);
    }
    assert_eq!(rig.iommu.take_lookups(), 4);
    for (invalidation, lookups) in [
        (of(DEVICE), 2),
        (of(DEVICE).with_addresses(0x5000..=0x5fff), 1),
        (Invalidation::all().with_devices(OTHER..=BYPASS), 2),
        (page(0xffff_f000), 2),
        (page(0x6000), 0),
        (Invalidation::all(), 4),
        (of(DeviceId::new(1 << 20)), 0),
    ] {
        rig.invalidate(&invalidation);
        assert_eq!(rig.iommu.take_lookups(), lookups, "{invalidation:?}");
    }
    rig.write(DEVICE, IOVA);
    assert_eq!(rig.iommu.take_lookups(), 0, "the copies are still in use");
}

#[test]
fn an_invalidation_makes_a_bounded_number_of_lookups() {
    let rig = Rig::new();
    for page in 0..5000 {
        let (device, iova) = (DeviceId::new(page % 600), u64::from(page) << 12);
        rig.iommu.map(device, iova, Controller::ITS);
        rig.write(device, iova);
    }
    rig.iommu.take_lookups();
    rig.invalidate(&of(DEVICE));
    assert!((1..=4).contains(&rig.iommu.take_lookups()));
    rig.invalidate(&Invalidation::all());
    assert!((256..=1024).contains(&rig.iommu.take_lookups()));
}

#[test]
fn an_iova_equal_to_a_doorbell_is_translated() {
    let rig = Rig::new();
    // The guest has mapped the doorbells' own addresses elsewhere.
    rig.iommu.map(DEVICE, Controller::FRAME, 0x7000);
    rig.iommu.map(DEVICE, Controller::ITS, Controller::FRAME);
    assert_eq!(rig.write(DEVICE, Controller::FRAME), Delivery::NoDoorbell);
    assert_eq!(rig.write(DEVICE, Controller::ITS), Delivery::Pending);
    assert_eq!(rig.controller.heard(), [Heard::Rung(7)]);
    assert_eq!(rig.router.dropped(), 0);
}
