//! Tests that the tree grows and shrinks as devices are mapped and unmapped.

use super::{DeviceTable, NODE_BITS};
use crate::lpi::mapping::MappedDevice;
use crate::sync::Ordering;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use proptest::prelude::*;

const MAPPED: MappedDevice = MappedDevice { event_bits: 3, itt: 0x100 };

fn devices() -> impl Strategy<Value = BTreeSet<u32>> {
    let device = prop_oneof![any::<u32>(), 0..2000u32, (0..4u32).prop_map(|high| high << 24)];
    proptest::collection::btree_set(device, 0..40)
}

proptest! {
    #[test]
    fn the_tree_has_as_many_nodes_as_its_devices_need(
        bits in 1u8..=32,
        before in devices(),
        devices in devices(),
    ) {
        let within = |device: &u32| u64::from(*device) >> bits == 0;
        let [before, devices] =
            [before, devices].map(|all| all.into_iter().filter(within).collect::<Vec<_>>());
        let device_table = DeviceTable::new(bits).unwrap();
        let mut mapped_devices = device_table.no_devices().unwrap();
        for devices in [before, devices] {
            for device in &devices {
                let mapped = device_table.map(*device, MAPPED, &mut mapped_devices).unwrap();
                mapped.store(u64::from(*device) + 1, Ordering::SeqCst);
            }
            let first = device_table.mapped_from(0, &mapped_devices);
            let mapped = core::iter::successors(first, |(device, _)| {
                device_table.mapped_from(device.checked_add(1)?, &mapped_devices)
            });
            prop_assert!(mapped.eq(devices.iter().map(|device| (*device, MAPPED))));
            prop_assert_eq!(mapped_devices.devices(), devices.len());
            let nodes = (1..=device_table.height)
                .map(|height| devices.iter().map(move |device| device >> (height * NODE_BITS)))
                .map(|nodes| nodes.collect::<BTreeSet<_>>().len());
            prop_assert_eq!(mapped_devices.in_use(), nodes.sum::<usize>());
            for device in &devices {
                let dte = device_table.get(*device).unwrap();
                prop_assert!(device_table.leads_to(*device, dte));
                prop_assert_eq!(dte.swap(0, Ordering::SeqCst), u64::from(*device) + 1);
            }
            for device in &devices {
                device_table.unmap(*device, &mut mapped_devices);
            }
            prop_assert_eq!(mapped_devices.in_use(), 0);
        }
    }
}

#[test]
fn a_device_beyond_the_budget_leaves_the_tree_as_it_was() {
    let device_table = DeviceTable::new(32).unwrap();
    let mut mapped_devices = device_table.no_devices().unwrap();
    let far_apart = |device: u32| device << 16;
    let mapped = (0..8192)
        .take_while(|device| {
            device_table.map(far_apart(*device), MAPPED, &mut mapped_devices).is_ok()
        })
        .count();
    let used = mapped_devices.in_use();
    assert!(mapped > 2000);

    assert!(device_table.map(u32::MAX, MAPPED, &mut mapped_devices).is_err());

    assert_eq!(mapped_devices.in_use(), used);
    (0..mapped).for_each(|device| {
        device_table.unmap(far_apart(u32::try_from(device).unwrap()), &mut mapped_devices);
    });
    assert_eq!(mapped_devices.in_use(), 0);
}
