//! Tests for bugs found in other models, one test per bug.

use super::rig::*;
use crate::frames::its::{ErrorPolicy, ItsConfig};
use crate::monitor::events::{FaultDetail, FaultReason};
use alloc::vec;
use alloc::vec::Vec;
use gic_arch::Priority;
use msi_types::{Delivery, DeviceId, EventId};

#[test]
fn a_message_that_arrives_while_the_previous_one_is_being_handled_is_delivered_again() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0)]);
    let mut queue = rig.vcpu(0);
    rig.send(1, 0);
    assert_eq!(take(&mut queue), Some(8200));

    assert_eq!(rig.send(1, 0), Delivery::Pending);

    assert_eq!(drain(&mut queue), [8200]);
}

#[test]
fn movi_takes_the_pending_state_along() {
    let rig = Rig::running(2);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0)]);
    rig.send(1, 0);

    rig.run([movi(1, 0, 1), sync(0)]);

    assert_eq!(drain(&mut rig.vcpu(0)), NO_LPIS);
    assert_eq!(drain(&mut rig.vcpu(1)), [8200]);
}

#[test]
fn discard_clears_the_pending_state() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0)]);
    rig.send(1, 0);

    rig.run([discard(1, 0), sync(0)]);

    assert_eq!(drain(&mut rig.vcpu(0)), NO_LPIS);
}

#[test]
fn discard_and_mapping_anew_do_not_bring_the_pending_state_back() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0)]);
    rig.send(1, 0);

    rig.run([discard(1, 0), mapti(1, 0, 8200, 0), sync(0)]);

    assert_eq!(drain(&mut rig.vcpu(0)), NO_LPIS);
}

#[test]
fn movall_moves_what_is_pending_and_the_queue_goes_on() {
    let rig = Rig::running(2);
    rig.run([mapd(1, 2), mapti(1, 0, 8200, 0), mapti(1, 1, 8201, 0), mapti(1, 2, 8202, 1)]);
    rig.send(1, 0);
    rig.send(1, 2);

    rig.run([movall(0, 1), sync(0)]);

    assert!(!rig.creadr().stalled());
    assert_eq!(rig.pending(0), NO_LPIS);
    assert_eq!(drain(&mut rig.vcpu(1)).len(), 2);
    rig.send(1, 1);
    assert_eq!(rig.pending(0), [8201], "events must stay with their collection");
}

#[test]
fn movall_touches_only_what_is_pending_at_the_first_redistributor() {
    let rig = Rig::running(3);
    rig.run([mapd(1, 2), mapti(1, 0, 8200, 0), mapti(1, 1, 8201, 2)]);
    rig.send(1, 0);
    rig.send(1, 1);

    rig.run([movall(0, 1)]);

    assert_eq!((rig.pending(0), rig.pending(1), rig.pending(2)), (vec![], vec![8200], vec![8201]));
}

#[test]
fn an_int_before_a_bad_command_of_the_same_batch_is_delivered() {
    for policy in [ErrorPolicy::Skip, ErrorPolicy::Stall] {
        let rig = Rig::running_with(1, ItsConfig::new(BASE).with_error_policy(policy));
        rig.run([mapd(1, 1), mapti(1, 0, 8200, 0)]);

        rig.queue_raw([int(1, 0).encode(), [0xff, 0, 0, 0], sync(0).encode()]);

        assert_eq!(drain(&mut rig.vcpu(0)), [8200]);
    }
}

#[test]
fn messages_are_dropped_while_the_its_is_disabled() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0)]);
    rig.set_enabled(false);

    assert_eq!(rig.send(1, 0), Delivery::Blocked);

    rig.set_enabled(true);
    assert_eq!(drain(&mut rig.vcpu(0)), NO_LPIS);
    assert_eq!(rig.send(1, 0), Delivery::Pending);
}

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
fn a_disabled_lpi_becomes_pending_but_is_not_delivered() {
    let rig = Rig::running(1);
    rig.configure(8200, false, 0xa0);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0)]);

    assert_eq!(rig.send(1, 0), Delivery::Pending);

    assert_eq!(drain(&mut rig.vcpu(0)), NO_LPIS);
    assert_eq!(rig.pending(0), [8200]);
}

#[test]
fn priorities_of_the_configuration_table_order_delivery() {
    let rig = Rig::running(1);
    rig.configure(8200, true, 0xb0);
    rig.configure(8201, true, 0x20);
    rig.configure(8202, true, 0x60);
    rig.run([mapd(1, 2), mapti(1, 0, 8200, 0), mapti(1, 1, 8201, 0), mapti(1, 2, 8202, 0)]);

    for event in 0..3 {
        rig.send(1, event);
    }

    assert_eq!(drain(&mut rig.vcpu(0)), [8201, 8202, 8200]);
}

#[test]
fn inv_reloads_enable_and_priority_of_a_pending_lpi() {
    let rig = Rig::running(1);
    rig.configure(8200, false, 0xa0);
    rig.run([mapd(1, 2), mapti(1, 0, 8200, 0), mapti(1, 1, 8201, 0)]);
    rig.send(1, 0);
    rig.send(1, 1);
    rig.configure(8200, true, 0x10);
    let mut queue = rig.vcpu(0);
    assert_eq!(queue.highest(Priority::IDLE).map(|ready| ready.lpi.get()), Some(8201));

    rig.run([inv(1, 0), sync(0)]);

    assert_eq!(drain(&mut queue), [8200, 8201]);
}

#[test]
fn inv_withholds_a_pending_lpi_that_was_disabled() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0)]);
    rig.send(1, 0);
    rig.configure(8200, false, 0xa0);

    rig.run([inv(1, 0), sync(0)]);

    assert_eq!(drain(&mut rig.vcpu(0)), NO_LPIS);
    assert_eq!(rig.pending(0), [8200]);
}

#[test]
fn invall_reloads_every_lpi_of_the_redistributor() {
    let rig = Rig::running(1);
    for lpi in 8200..8204 {
        rig.configure(lpi, false, 0xa0);
    }
    rig.run([mapd(1, 2)]);
    rig.run((0..4).map(|event| mapti(1, event, 8200 + event, 0)));
    for event in 0..4 {
        rig.send(1, event);
    }
    for lpi in 8200..8204 {
        rig.configure(lpi, true, 0xa0);
    }

    rig.run([invall(0), sync(0)]);

    assert_eq!(drain(&mut rig.vcpu(0)).len(), 4);
}

#[test]
fn mapping_a_device_anew_drops_its_translations() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 1), mapti(1, 0, 8200, 0)]);
    rig.send(1, 0);

    rig.run([mapd(1, 1), sync(0)]);

    assert_eq!(drain(&mut rig.vcpu(0)), NO_LPIS);
    assert_eq!(rig.send(1, 0), Delivery::Blocked);
}

#[test]
fn a_device_with_the_slots_of_a_removed_one_gets_only_its_own_messages() {
    let rig = Rig::running(1);
    rig.run([mapd(1, 2), mapti(1, 0, 8200, 0), unmapd(1), mapd(2, 2), mapti(2, 0, 8201, 0)]);

    assert_eq!(rig.send(1, 0), Delivery::Blocked);
    assert_eq!(rig.send(2, 0), Delivery::Pending);

    assert_eq!(drain(&mut rig.vcpu(0)), [8201]);
}

#[test]
fn vectors_by_the_thousand_need_no_route_each() {
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
