//! DeviceIDs that follow the guest's bus numbers.

use crate::controller::{Controller, Heard};
use irq_routing::msi::{MsiCapability, MsiLayout};
use irq_routing::msix::MsixTable;
use irq_routing::{GsiSpace, Router, SecondaryBus, Sender};
use msi_types::DeviceId;
use msi_types::pci::msix::Control;
use std::sync::Arc;

/// Offset of the DeviceIDs of this machine's `msi-map`.
const BASE: u32 = 0x1_0000;

struct Machine {
    controller: Arc<Controller>,
    bus: SecondaryBus,
    table: Arc<MsixTable>,
    msi: Arc<MsiCapability>,
}

fn machine() -> Machine {
    let controller = Arc::new(Controller::default());
    let router = Arc::new(Router::new(GsiSpace::default(), controller.inputs()).unwrap());
    let bus = SecondaryBus::new(|id| Sender::Device(DeviceId::new(BASE + id.get())));
    let table = Arc::new(MsixTable::new(2, Sender::Anonymous, router.clone()).unwrap());
    let layout = MsiLayout { log2_vectors: 0, address_64: true, per_vector_masking: false };
    let msi = Arc::new(MsiCapability::new(layout, 0, Sender::Anonymous, router).unwrap());
    bus.add(3, 0, &table);
    bus.add(3, 1, &msi);
    for entry in [0, 16] {
        table.write(entry, &Controller::ITS.to_le_bytes());
        table.write(entry + 8, &7u64.to_le_bytes());
    }
    table.write_control(Control::new().with_enable(true));
    msi.write(4, &Controller::ITS.to_le_bytes());
    msi.write(2, &[1]);
    Machine { controller, bus, table, msi }
}

fn event(device: u32, data: u32) -> Heard {
    Heard::Event(DeviceId::new(device), data)
}

#[test]
fn changing_the_bus_number_updates_open_vectors() {
    let Machine { controller, bus, table, msi } = machine();
    for (number, device) in [(None, 0x1_0018), (Some(2), 0x1_0218), (Some(255), 0x1_ff18)] {
        if let Some(number) = number {
            bus.set_number(number);
            assert_eq!(bus.number(), number);
        }
        table.signal(1);
        msi.signal(0);
        assert_eq!(controller.heard(), [event(device, 7), event(device + 1, 0)]);
    }
}

#[test]
fn held_message_is_sent_with_the_new_device_id() {
    let Machine { controller, bus, table, .. } = machine();
    table.write(12, &1u32.to_le_bytes());
    table.signal(0);
    bus.set_number(9);
    table.write(12, &0u32.to_le_bytes());
    assert_eq!(controller.heard(), [event(0x1_0918, 7)]);
}

#[test]
fn the_bus_does_not_keep_a_dropped_function_alive() {
    let Machine { bus, table, msi, .. } = machine();
    let weak = Arc::downgrade(&table);
    drop(table);
    assert!(weak.upgrade().is_none());
    bus.set_number(1);
    bus.add(4, 0, &msi);
    assert!(format!("{bus:?}").contains("functions: 2"), "{bus:?}");
}
