//! Tests for functions behind a conventional PCI bridge. To the ITS, these functions are a single
//! device.

use crate::choices::Messages;
use crate::machine::{Chip, Machine};
use irq_domain::{MsiDevice, MsiDeviceConfig};
use msi_types::pci::PciRequester;
use msi_types::{RequesterId, Shape};
use std::sync::Arc;

const ALIAS: RequesterId = RequesterId::pci(1, 0, 0);
/// Number of devices; with four vectors each, the devices have more events than the smallest
/// interrupt translation table holds.
const DEVICES: u8 = 20;

fn attach(chip: &Chip, device: u8) -> (MsiDevice, Arc<Messages>) {
    let function = RequesterId::pci(1, device, 0);
    let requester = PciRequester::new(function).with_alias(Some(ALIAS));
    let host = chip.description().hosts.first().unwrap();
    let parent = chip.pci_parent(host, requester).unwrap();
    let store = Arc::new(Messages::default());
    let config = MsiDeviceConfig::new("behind", function, parent, store.clone());
    (MsiDevice::attach(chip.interrupts(), config).unwrap(), store)
}

#[test]
fn each_function_behind_a_bridge_gets_vectors() {
    let machine = Machine::new();
    let chip = machine.boot();
    let devices: Vec<_> = (0..DEVICES).map(|device| attach(&chip, device)).collect();
    for (device, messages) in &devices {
        assert_eq!(device.allocate(Shape::Independent, 4..=4).unwrap().len(), 4);
        let handle = device.request(3, "fourth", |_| ()).unwrap();
        machine.send_from(ALIAS, messages, 3);
        machine.settle(&chip);
        assert_eq!(handle.count(), 1);
    }
}
