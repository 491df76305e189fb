//! Tests for bugs found in other models, except those that programs show
//! (`proof/support/programs`).

use super::rig::*;
use crate::monitor::events::{FaultDetail, FaultReason};
use alloc::vec;
use alloc::vec::Vec;
use msi_types::{Delivery, DeviceId, EventId};

#[test]
fn a_dropped_message_is_recorded_with_its_reason() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0), mapti(1, 1, 8201, 3)]);
    for (device, event) in [(7, 0), (1, 4), (2, 0), (1, 1)] {
        rig.run(if device == 2 { vec![mapd(2, 1)] } else { Vec::new() });
        rig.send(device, event);
    }
    rig.set_enabled(false);
    rig.send(1, 0);
    rig.set_enabled(true);
    rig.disable_lpis(0);
    rig.send(1, 0);

    let mut dropped = Vec::new();
    rig.events.drain(|fault| dropped.push((fault.reason, fault.address, fault.detail)));
    let message = |(reason, device, event)| {
        let (device, event) = (DeviceId::new(device), EventId::new(event));
        (reason, rig.its.config.doorbell(), FaultDetail::Message { device, event })
    };
    let expected = [
        (FaultReason::UnmappedDevice, 7, 0),
        (FaultReason::EventOutOfRange, 1, 4),
        (FaultReason::UnmappedEvent, 2, 0),
        (FaultReason::UnmappedCollection, 1, 1),
        (FaultReason::ItsDisabled, 1, 0),
        (FaultReason::LpisDisabled, 1, 0),
    ];
    assert_eq!(dropped, expected.map(message));
}

#[test]
fn thousands_of_its_vectors_are_each_delivered_once() {
    const VECTORS: u32 = 2048;
    let rig = Rig::running(2);
    for device in 0..3 {
        rig.run([mapd(device, 11)]);
        for event in 0..VECTORS {
            let lpi = 8192 + device * VECTORS + event;
            rig.configure(lpi, true, 0xa0);
            rig.run([mapti(device, event, lpi, u16::from(event % 2 == 1))]);
        }
    }

    for device in 0..3 {
        for event in 0..VECTORS {
            assert_eq!(
                rig.send(device, event),
                Delivery::Pending,
                "device {device}, event {event}"
            );
        }
    }

    for vcpu in [0, 1] {
        let mut taken = drain(&mut rig.vcpu(vcpu));
        taken.sort_unstable();
        let all: Vec<u32> =
            (8192..8192 + 3 * VECTORS).filter(|lpi| lpi % 2 == u32::from(vcpu)).collect();
        assert_eq!(taken, all);
    }
}
