//! Tests which messages a kernel may store, given the surroundings that it states and the signs of
//! a hypervisor in firmware's description.

use crate::machine::{FUNCTION, Machine, function};
use crate::messages::Messages;
use gic_bringup::Options;
use gic_firmware::Fact;
use irq_domain::{MsiDevice, MsiDeviceConfig};
use msi_types::{Hypervisor, Shape, Storage, Surroundings};
use std::sync::{Arc, Mutex};

/// Returns whether the irqchip accepts IMS. A store that the bus defines always works.
fn accepts_ims(options: &Options<'_>, is_named: bool) -> bool {
    let machine = Machine::new().described(|machine| {
        machine.hypervisor = is_named.then(|| Fact::stated("xen,xen".into()));
    });
    let chip = machine.boot_with(options);
    let (nic, _) = function(&chip);
    assert_eq!(nic.allocate(Shape::Independent, 2..=2).unwrap().len(), 2);
    drop(nic);
    let store = Messages(Mutex::default(), Storage::Device);
    let parent = chip.pci_parent(&chip.description().hosts[0], FUNCTION).unwrap();
    let config = MsiDeviceConfig::new("ims", FUNCTION, parent, Arc::new(store));
    let ims = MsiDevice::attach(chip.interrupts(), config);
    if let Err(refused) = &ims {
        assert!(refused.to_string().contains("Surroundings::BareMetal"), "{refused}");
    }
    assert_eq!(chip.surroundings() == Surroundings::BareMetal, ims.is_ok());
    ims.is_ok()
}

#[test]
fn only_stated_bare_metal_without_hypervisor_accepts_ims() {
    let traps = Options::default().with_surroundings(Surroundings::Guest(Hypervisor::Traps));
    for (options, is_named, expected) in [
        (Options::default(), false, false),
        (traps, false, false),
        (Options::bare_metal(), false, true),
        (Options::bare_metal(), true, false),
    ] {
        assert_eq!(accepts_ims(&options, is_named), expected, "{options:?}, {is_named}");
    }
}
