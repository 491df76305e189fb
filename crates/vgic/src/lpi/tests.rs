//! Tests of the tree of senders. Here, as the model check compiles its source.

use super::mappings::MappedDevice;
use super::senders::{NODE_LIMIT, Senders};
use crate::atomic::Ordering;
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
        let (before, devices): (Vec<_>, Vec<_>) =
            (before.into_iter().filter(within).collect(), devices.into_iter().filter(within).collect());
        let senders = Senders::new(bits).unwrap();
        let mut growth = senders.growth().unwrap();
        for devices in [before, devices] {
            for device in &devices {
                let mapped = senders.map(*device, MAPPED, &mut growth).unwrap();
                mapped.store(u64::from(*device) + 1, Ordering::SeqCst);
            }
            let mapped = core::iter::successors(senders.mapped_from(0, &growth), |(device, _)| {
                senders.mapped_from(device.checked_add(1)?, &growth)
            });
            prop_assert!(mapped.eq(devices.iter().map(|device| (*device, MAPPED))));
            prop_assert_eq!(growth.devices(), devices.len());
            prop_assert_eq!(growth.in_use(), senders.nodes_of(devices.iter().copied()) as usize);
            for device in &devices {
                let sender = senders.get(*device).unwrap();
                prop_assert!(senders.leads_to(*device, sender));
                prop_assert_eq!(sender.swap(0, Ordering::SeqCst), u64::from(*device) + 1);
            }
            for device in &devices {
                senders.unmap(*device, &mut growth);
            }
            prop_assert_eq!(growth.in_use(), 0);
        }
    }
}

#[test]
fn a_device_beyond_the_budget_leaves_the_tree_as_it_was() {
    let senders = Senders::new(32).unwrap();
    let mut growth = senders.growth().unwrap();
    let far_apart = |device: u32| device << 16;
    let mapped = (0..8192)
        .take_while(|device| senders.map(far_apart(*device), MAPPED, &mut growth).is_ok())
        .count();
    let used = growth.in_use();
    assert!(mapped > 2000 && growth.allows(NODE_LIMIT) && !growth.allows(NODE_LIMIT + 1));

    assert!(senders.map(u32::MAX, MAPPED, &mut growth).is_err());

    assert_eq!(growth.in_use(), used);
    (0..mapped)
        .for_each(|device| senders.unmap(far_apart(u32::try_from(device).unwrap()), &mut growth));
    assert_eq!(growth.in_use(), 0);
}
