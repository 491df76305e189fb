//! Guest accesses to the capability, as PCI describes them.

use super::rig::{NARROW, NEXT, Rig, WIDE, event};
use crate::controller::Controller;
use irq_routing::msi::{BadVectorCount, MsiCapability, MsiLayout};
use irq_routing::msix::Signalled;
use irq_routing::{GsiSpace, Router, Sender};
use msi_types::Delivery;
use std::sync::Arc;

/// Layout of PCI Local Bus 3.0, figure 6-9: 64-bit address and per-vector masking.
#[test]
fn wide_capability_has_the_layout_of_the_specification() {
    let rig = Rig::new(WIDE);
    assert_eq!(rig.msi.length(), 24);
    assert_eq!(rig.read(0), [0x05, NEXT, 0x84, 0x01]);
    rig.msi.write(0, &[0xff; 24]);
    let all: [u8; 24] = rig.read(0);
    let control = [0x05, NEXT, 0xa5, 0x01];
    let (low, high) = ([0xfc, 0xff, 0xff, 0xff], [0xff; 4]);
    let (data, masks, pending) = ([0xff, 0xff, 0, 0], [0x0f, 0, 0, 0], [0; 4]);
    assert_eq!(all, [control, low, high, data, masks, pending].concat()[..]);
}

#[test]
fn narrow_capability_has_the_layout_of_the_specification() {
    let rig = Rig::new(NARROW);
    assert_eq!(rig.msi.length(), 10);
    rig.msi.write(0, &[0xff; 10]);
    let all: [u8; 12] = rig.read(0);
    assert_eq!(all, [5, NEXT, 0x5b, 0, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xa5, 0xa5]);
}

#[test]
fn bytes_outside_stay_as_they_are() {
    let rig = Rig::new(NARROW);
    let far: [u8; 4] = rig.read(u16::MAX);
    let across: [u8; 4] = rig.read(8);
    assert_eq!((far, across), ([0xa5; 4], [0, 0, 0xa5, 0xa5]));
    rig.msi.write(u16::MAX, &[0xff; 4]);
    rig.msi.write(9, &[0xff; 64]);
    let data: [u8; 2] = rig.read(8);
    assert_eq!(data, [0, 0xff]);
}

#[test]
fn one_byte_enables() {
    let rig = Rig::new(WIDE);
    let address = u32::try_from(Controller::ITS).unwrap();
    rig.msi.write(4, &address.to_le_bytes());
    rig.msi.write(12, &[0x41]);
    assert_eq!((rig.msi.signal(0), rig.msi.is_enabled()), (Signalled::Disabled, false));
    rig.msi.write(2, &[1]);
    assert_eq!(rig.msi.signal(0), Signalled::Sent(Delivery::Pending));
    assert_eq!((rig.controller.heard(), rig.msi.granted()), (vec![event(0x41)], 1));
    assert_eq!(rig.msi.signal(1), Signalled::NoSuchVector);
}

#[test]
fn masked_message_is_pending_until_unmasked() {
    let rig = Rig::new(WIDE);
    rig.msi.write(4, &Controller::ITS.to_le_bytes());
    rig.msi.write(16, &[0b10]);
    rig.msi.write(2, &[0x11]);
    assert_eq!(rig.msi.signal(1), Signalled::Held);
    assert_eq!((rig.read(20), rig.controller.heard()), ([0b10, 0, 0, 0], vec![]));
    rig.msi.write(16, &[0]);
    assert_eq!((rig.read(20), rig.controller.heard()), ([0; 4], vec![event(1)]));
}

#[test]
fn withdrawn_message_is_not_sent() {
    let rig = Rig::new(WIDE);
    rig.msi.write(4, &Controller::ITS.to_le_bytes());
    rig.msi.write(16, &[1]);
    rig.msi.write(2, &[1]);
    rig.msi.signal(0);
    rig.msi.withdraw(0);
    rig.msi.write(16, &[0]);
    assert_eq!(rig.controller.heard(), []);
}

#[test]
fn reset_forgets_everything() {
    let rig = Rig::new(WIDE);
    let before: [u8; 24] = rig.read(0);
    rig.msi.write(0, &[0xff; 24]);
    assert_eq!(rig.msi.signal(3), Signalled::Held);
    rig.msi.reset();
    assert_eq!((rig.read(0), rig.msi.granted()), (before, 0));
}

#[test]
fn more_than_32_vectors_are_refused() {
    let inputs = Arc::new(Controller::default()).inputs();
    let router = Router::new(GsiSpace::default(), inputs).unwrap();
    let layout = MsiLayout { log2_vectors: 6, ..WIDE };
    let made = MsiCapability::new(layout, 0, Sender::Anonymous, Arc::new(router));
    assert_eq!(made.map(|_| ()), Err(BadVectorCount(6)));
}

#[test]
fn vector_that_is_not_granted_any_more_stays_pending() {
    let rig = Rig::new(WIDE);
    rig.msi.write(4, &Controller::ITS.to_le_bytes());
    rig.msi.write(16, &[0b1000]);
    rig.msi.write(2, &[0x21]);
    assert_eq!(rig.msi.signal(3), Signalled::Held);
    rig.msi.write(2, &[0x11]);
    rig.msi.write(16, &[0]);
    assert_eq!((rig.read(20), rig.controller.heard()), ([0b1000, 0, 0, 0], vec![]));
}
