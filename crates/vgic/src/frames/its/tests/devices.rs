//! Tests for 32-bit DeviceIDs and the node budget of the device tree.

use super::rig::*;
use crate::AccessWidth::Double;
use crate::frames::its::ItsConfig;
use crate::lpi::{Control, MappedDevice};
use gic_arch::gits;

fn rig() -> Rig {
    Rig::new(1, ItsConfig::new(BASE).with_device_id_bits(32))
}

fn control<R>(rig: &Rig, change: impl FnOnce(&mut Control) -> R) -> R {
    rig.lpis.with_kicks_deferred(change)
}

fn map(rig: &Rig, device: u32) -> bool {
    let mapped = MappedDevice { event_bits: 1, itt: 0 };
    control(rig, |control| control.map_device(rig.its.index(), device, mapped).is_ok())
}

/// Maps as many devices as fit, starting at `first`. Returns how many were mapped.
fn map_far_apart(rig: &Rig, first: u32) -> u32 {
    let mapped = (0..8192).find(|number| !map(rig, first + (number << 16)));
    mapped.expect("a budget must limit the number of devices")
}

#[test]
fn a_reset_reclaims_the_device_id_budget() {
    let rig = rig();
    let mapped = map_far_apart(&rig, 0);
    assert!(mapped > 2000);

    rig.its.reset();

    assert_eq!(map_far_apart(&rig, 1 << 31), mapped);
}

#[test]
fn removing_the_device_table_reclaims_the_device_id_budget() {
    let rig = rig();
    rig.provide_tables();
    let mapped = map_far_apart(&rig, 0);

    rig.its.write(gits::BASER.offset_of(0), Double, 0);
    rig.finish_sweeps();

    assert_eq!(map_far_apart(&rig, 1 << 31), mapped);
}

#[test]
fn unmapping_a_device_reclaims_its_budget() {
    let rig = rig();
    for number in 0..10_000 {
        assert!(map(&rig, number << 16), "device {number}");
        control(&rig, |control| control.unmap_device(rig.its.index(), number << 16));
        rig.finish_sweeps();
    }
}
