//! Guest accesses to the capability, as PCI describes them.

use super::rig::{NARROW, NEXT, Rig, WIDE};
use crate::controller::Controller;
use irq_routing::msi::{BadVectorCount, MsiCapability, MsiLayout};
use irq_routing::{GsiSpace, Router, Sender};
use std::sync::Arc;

/// Layout of PCI Local Bus 3.0, figure 6-9: 64-bit address and per-vector masking.
#[test]
fn the_64_bit_msi_capability_matches_the_specified_layout() {
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
fn the_32_bit_msi_capability_matches_the_specified_layout() {
    let rig = Rig::new(NARROW);
    assert_eq!(rig.msi.length(), 10);
    rig.msi.write(0, &[0xff; 10]);
    let all: [u8; 12] = rig.read(0);
    assert_eq!(all, [5, NEXT, 0x5b, 0, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xa5, 0xa5]);
}

#[test]
fn more_than_32_vectors_are_refused() {
    let inputs = Arc::new(Controller::default()).inputs();
    let router = Router::new(GsiSpace::default(), inputs).unwrap();
    let layout = MsiLayout { log2_vectors: 6, ..WIDE };
    let made = MsiCapability::new(layout, 0, Sender::Anonymous, Arc::new(router));
    assert_eq!(made.map(|_| ()), Err(BadVectorCount(6)));
}
