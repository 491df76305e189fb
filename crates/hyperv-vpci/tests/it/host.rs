//! A host facing a guest that can send arbitrary messages.

use crate::asleep::full_once;
use crate::board::{ADDRESS, OTHER, SLOT, channel, channel_with, function, host_config};
use crate::gic::Gic;
use crate::peer::{Peer, create};
use crate::signals::Bell;
use hyperv_vpci::channel::{Channel, ChannelError, PacketKind};
use hyperv_vpci::host::{Host, HostError, Injection, Served};
use hyperv_vpci::protocol::reply::Status;
use hyperv_vpci::protocol::{
    AssignedResources, Delivery, InterruptDescriptor, InterruptForm, Notice, Processors, Request,
    ResourcesForm, Slot, TranslatedInterrupt, Version,
};
use msi_types::MsiMessage;
use proptest::prelude::*;
use std::sync::Arc;

fn delete(slot: Slot, data: u32, count: u16) -> Request {
    let message = MsiMessage { address: ADDRESS, data };
    Request::DeleteInterrupt { slot, interrupt: TranslatedInterrupt { count, message } }
}

#[test]
fn a_vector_can_be_mapped_only_once() {
    let mut peer = Peer::on(Version::V1_4);
    assert_eq!(peer.ask(&create(SLOT, 64, 4)), Ok(Status::SUCCESS));
    for (slot, vector, count) in [(SLOT, 64, 4), (SLOT, 66, 1), (OTHER, 67, 1), (OTHER, 64, 8)] {
        assert_eq!(peer.ask(&create(slot, vector, count)), Ok(Status::BAD_DATA));
    }
    assert_eq!(peer.ask(&create(OTHER, 68, 4)), Ok(Status::SUCCESS));
    assert_eq!(peer.ask(&delete(SLOT, 64, 4)), Ok(Status::SUCCESS));
    assert_eq!(peer.ask(&delete(SLOT, 64, 4)), Ok(Status::BAD_DATA));
    assert_eq!(peer.ask(&create(OTHER, 64, 4)), Ok(Status::SUCCESS));
}

#[test]
fn a_deletion_names_its_message_by_address_and_data_alone() {
    let mut peer = Peer::on(Version::V1_4);
    let elsewhere = MsiMessage { address: ADDRESS + 8, data: 64 };
    let elsewhere = TranslatedInterrupt { count: 4, message: elsewhere };
    let elsewhere = Request::DeleteInterrupt { slot: SLOT, interrupt: elsewhere };
    // OpenVMM's client does not remember the number of vectors and sends 0.
    for count in [0, 1, 4, u16::MAX] {
        assert_eq!(peer.ask(&create(SLOT, 64, 4)), Ok(Status::SUCCESS));
        let others = [delete(SLOT, 65, count), delete(OTHER, 64, count), elsewhere];
        for other in others {
            assert_eq!(peer.ask(&other), Ok(Status::BAD_DATA));
            assert_eq!(peer.host.vectors(SLOT), 4);
        }
        assert_eq!(peer.ask(&delete(SLOT, 64, count)), Ok(Status::SUCCESS));
        assert_eq!(peer.host.vectors(SLOT), 0);
    }
}

#[test]
fn functions_are_listed_before_the_answer_to_d0_entry() {
    let mut peer = Peer::new(Version::V1_4);
    assert_eq!(peer.ask(&Request::QueryVersion(0x1_0004)), Ok(Status::SUCCESS));
    for _ in 0..2 {
        let entry = peer.send(&Peer::emit(&Request::D0Entry { window: 0x2000 }));
        assert_eq!(peer.host.serve(&mut peer.far), Ok(Served::All));
        let mut buffer = [0; 256];
        let list = peer.near.receive(&mut buffer).unwrap().expect("the host sends the list");
        assert_eq!(list.kind, PacketKind::Notice);
        let Ok(Notice::Relations(list)) = Notice::parse(&buffer[..list.length]) else {
            panic!("the list precedes the answer")
        };
        assert!(list.functions().map(|function| function.slot).eq([SLOT, OTHER]));
        let answer = peer.near.receive(&mut buffer).unwrap().expect("the host sends the answer");
        assert_eq!(answer.kind, PacketKind::Completion(entry));
        assert_eq!(peer.near.receive(&mut buffer), Ok(None));
        assert_eq!(peer.ask(&Request::D0Exit), Ok(Status::SUCCESS));
    }
}

#[test]
fn interrupt_requests_with_invalid_fields_are_refused() {
    let mut peer = Peer::on(Version::V1_4);
    let strange = |vector, count, processor| {
        let processors = Processors::one(processor);
        let delivery = Delivery::Fixed;
        let interrupt = InterruptDescriptor { vector, delivery, count, processors };
        Request::CreateInterrupt { slot: SLOT, form: InterruptForm::V3, interrupt }
    };
    for request in [
        strange(31, 1, 0),
        strange(1020, 1, 0),
        strange(1016, 8, 0),
        strange(66, 4, 0),
        strange(u32::MAX, 1, 0),
        strange(64, 1, 4),
        create(Slot::new(9, 0), 64, 1),
    ] {
        let before = peer.host.save();
        assert_eq!(peer.ask(&request), Ok(Status::BAD_DATA), "{request:?}");
        assert_eq!(peer.host.save(), before);
    }
}

#[test]
fn vector_quotas_are_enforced_per_function() {
    let mut peer = Peer::on(Version::V1_4);
    assert_eq!(peer.ask(&create(SLOT, 64, 32)), Ok(Status::SUCCESS));
    assert_eq!(peer.ask(&create(SLOT, 96, 32)), Ok(Status::SUCCESS));
    assert_eq!(peer.ask(&create(SLOT, 200, 1)), Ok(Status::BAD_DATA));
    // The other function has its own quota.
    assert_eq!(peer.ask(&create(OTHER, 200, 1)), Ok(Status::SUCCESS));
    assert_eq!((peer.host.vectors(SLOT), peer.host.vectors(OTHER)), (64, 1));
}

#[test]
fn interrupt_forms_newer_than_the_version_are_refused() {
    let mut peer = Peer::on(Version::V1_3);
    let Request::CreateInterrupt { slot, interrupt, .. } = create(SLOT, 64, 1) else {
        unreachable!("the request was created with this type")
    };
    for (form, status) in
        [(InterruptForm::V3, Status::BAD_DATA), (InterruptForm::V2, Status::SUCCESS)]
    {
        assert_eq!(peer.ask(&Request::CreateInterrupt { slot, form, interrupt }), Ok(status));
    }
}

#[test]
fn a_guest_of_version_1_1_is_refused() {
    let mut peer = Peer::new(Version::V1_4);
    assert_eq!(peer.ask(&Request::QueryVersion(0x1_0001)), Ok(Status::REVISION_MISMATCH));
}

#[test]
fn requests_out_of_order_are_refused() {
    let mut peer = Peer::new(Version::V1_4);
    assert_eq!(peer.ask(&Request::QueryVersion(0x1_0009)), Ok(Status::REVISION_MISMATCH));
    assert_eq!(peer.ask(&Request::QueryVersion(0x1_0004)), Ok(Status::SUCCESS));
    let assign = Request::AssignResources(AssignedResources::new(SLOT, ResourcesForm::V2));
    // The bus is off, and the functions have no resources.
    for early in [Request::D0Exit, assign, create(SLOT, 64, 1), Request::ReleaseResources(SLOT)] {
        assert_eq!(peer.ask(&early), Ok(Status::BAD_DATA));
    }
    assert_eq!(peer.ask(&Request::D0Entry { window: 0x1800 }), Ok(Status::BAD_DATA));
    assert_eq!(peer.ask(&Request::D0Entry { window: 0x2000 }), Ok(Status::SUCCESS));
    assert_eq!(peer.ask(&Request::D0Entry { window: 0x4000 }), Ok(Status::BAD_DATA));
    assert_eq!(peer.host.window(), Some(0x2000));
    assert_eq!(peer.ask(&create(SLOT, 64, 1)), Ok(Status::BAD_DATA));
    assert_eq!(peer.ask(&assign), Ok(Status::SUCCESS));
    // A second assignment replaces the first one and keeps the messages.
    assert_eq!(peer.ask(&create(SLOT, 64, 1)), Ok(Status::SUCCESS));
    assert_eq!(peer.ask(&assign), Ok(Status::SUCCESS));
    assert_eq!(peer.host.vectors(SLOT), 1);
    assert_eq!(peer.ask(&Request::EjectionComplete(SLOT)), Ok(Status::BAD_DATA));
    let AssignedResources { slot, form, .. } = AssignedResources::new(OTHER, ResourcesForm::V2);
    let all = Request::AssignResources(AssignedResources { slot, form, interrupts: 1 });
    assert_eq!(peer.ask(&all), Ok(Status::NOT_SUPPORTED));
}

#[test]
fn a_guest_that_breaks_the_negotiation_loses_its_channel() {
    let lost = Err(HostError::OutOfOrder);
    assert_eq!(Peer::new(Version::V1_4).ask(&Request::QueryRelations), lost);
    assert_eq!(Peer::new(Version::V1_4).exchange(&[0; 8]).map(|_| ()), Err(HostError::OutOfOrder));
    let mut peer = Peer::on(Version::V1_4);
    assert_eq!(peer.ask(&create(SLOT, 64, 1)), Ok(Status::SUCCESS));
    assert_eq!(peer.ask(&Request::QueryVersion(0x1_0004)), lost);
    peer.host.reset();
    assert_eq!((peer.host.version(), peer.host.vectors(SLOT)), (None, 0));
}

#[test]
fn completions_of_a_guest_break_the_channel() {
    let mut peer = Peer::on(Version::V1_4);
    peer.near.send(PacketKind::Completion(1), &[0; 8]).unwrap();
    assert_eq!(peer.host.serve(&mut peer.far), Err(HostError::OutOfOrder));
}

#[test]
fn unknown_messages_are_answered_not_supported() {
    let mut peer = Peer::on(Version::V1_4);
    for kind in [0x4249_0006u32, 0x4249_0009, 0x4249_00ff, 0] {
        let answer = peer.exchange(&[kind.to_le_bytes(), [0; 4]].concat()).unwrap();
        assert_eq!(Status::parse(&answer), Ok(Status::NOT_SUPPORTED));
    }
    let short = peer.exchange(&0x4249_001bu32.to_le_bytes()).unwrap();
    assert_eq!(Status::parse(&short), Ok(Status::BAD_DATA));
}

#[test]
fn a_guest_that_does_not_drain_its_ring_is_not_served() {
    let mut peer = Peer::on(Version::V1_4);
    let query = Peer::emit(&Request::QueryResources(SLOT));
    // Completions of 56 bytes each fill the 16 KiB of the ring.
    let mut sent = 0;
    loop {
        peer.next += 1;
        match peer.near.send(PacketKind::Request(peer.next), &query) {
            Ok(()) => sent += 1,
            Err(ChannelError::Full) => break,
            Err(other) => panic!("{other}"),
        }
        if peer.host.serve(&mut peer.far).unwrap() == Served::Blocked && sent > 1000 {
            break;
        }
    }
    assert_eq!(peer.host.serve(&mut peer.far), Ok(Served::Blocked));
    let mut buffer = [0; 64];
    let mut answered = 0;
    while answered < sent {
        while let Some(received) = peer.near.receive(&mut buffer).unwrap() {
            answered += u32::from(matches!(received.kind, PacketKind::Completion(_)));
        }
        peer.host.serve(&mut peer.far).unwrap();
    }
    assert_eq!(answered, sent);
}

#[test]
fn a_slot_holds_at_most_one_function() {
    let mut peer = Peer::new(Version::V1_4);
    let twice = peer.host.offer(function(SLOT)).map(|_| ());
    assert_eq!(twice, Err(HostError::SlotInUse(SLOT)));
    peer.host.remove(SLOT).unwrap();
    assert_eq!(peer.host.remove(SLOT), Err(HostError::NoFunction(SLOT)));
    assert_eq!(peer.host.eject(SLOT), Err(HostError::NoFunction(SLOT)));
    assert!(peer.host.offer(function(SLOT)).is_ok());
}

/// OpenVMM's longest message has 39,656 bytes.
#[test]
fn requests_longer_than_any_message_are_not_supported() {
    let mut peer = Peer::new(Version::V1_4);
    (peer.near, peer.far) = channel_with(32, Bell::Nobody, Bell::Nobody);
    let long = |length: usize| [&0x4249_001du32.to_le_bytes()[..], &vec![0; length - 4]].concat();
    peer.ask(&Request::QueryVersion(0x1_0004)).unwrap();
    for length in [14_352, 14_360, 20_000, 39_656, 65_000] {
        let answer = peer.exchange(&long(length)).unwrap();
        assert_eq!(Status::parse(&answer), Ok(Status::NOT_SUPPORTED));
        peer.near.send(PacketKind::Notice, &long(length)).unwrap();
        assert_eq!(peer.ask(&Request::QueryRelations), Ok(Status::SUCCESS));
    }
    assert_eq!(peer.far.skipped(), 8);
    peer.host.reset();
    assert_eq!(peer.exchange(&long(20_000)), Err(HostError::OutOfOrder));
}

#[test]
fn a_function_list_longer_than_the_ring_is_refused() {
    for (version, fits) in [(Version::V1_4, 144), (Version::V1_3, 144), (Version::V1_2, 202)] {
        let mut peer = Peer::new(version);
        (peer.near, peer.far) = channel_with(1, Bell::Nobody, Bell::Nobody);
        let slot = |number: u8| Slot::new(number & 0x1f, number >> 5);
        let free = (0..=255).map(slot).filter(|slot| ![SLOT, OTHER].contains(slot));
        let mut free: Vec<_> = free.collect();
        for slot in free.drain(..fits - 2) {
            peer.host.offer(function(slot)).unwrap();
        }
        let hello = Request::QueryVersion(version.to_wire());
        assert_eq!(peer.ask(&hello), Ok(Status::SUCCESS));
        assert_eq!(peer.ask(&Request::D0Entry { window: 0x2000 }), Ok(Status::SUCCESS));
        // A function that does not fit is refused, and the guest goes on.
        let length = version.relations().description_length();
        let (needed, room) = (8 + (fits + 1) * length, 4096 - 32);
        let refused = Err(HostError::RingTooSmall { needed, room });
        assert_eq!(peer.host.offer(function(free[0])).map(|_| ()), refused);
        assert_eq!(peer.ask(&Request::QueryRelations), Ok(Status::SUCCESS));
        // Without a guest, every function can be offered, but the next guest may be refused.
        peer.host.reset();
        peer.host.offer(function(free[0])).unwrap();
        assert_eq!(peer.ask(&hello), refused.map(|()| Status::SUCCESS));
        peer.host.reset();
        (peer.near, peer.far) = channel_with(2, Bell::Nobody, Bell::Nobody);
        for slot in free.drain(1..) {
            peer.host.offer(function(slot)).unwrap();
        }
        assert_eq!(peer.ask(&hello), Ok(Status::SUCCESS));
        assert_eq!(peer.ask(&Request::QueryRelations), Ok(Status::SUCCESS));
    }
}

/// Returns the types of the packets that a guest receives when it turns the bus on, after `early`
/// changed the host before the guest was answered.
fn packets_until_on(early: impl FnOnce(&mut Host), between: impl FnOnce(&mut Host)) -> Vec<u32> {
    let mut peer = Peer::new(Version::V1_4);
    peer.send(&Peer::emit(&Request::QueryVersion(0x1_0004)));
    early(&mut peer.host);
    let inner = std::mem::replace(&mut peer.far, channel().1);
    let mut full = full_once(inner, Arc::new(true.into()));
    assert_eq!(peer.host.serve(&mut full), Ok(Served::Blocked));
    between(&mut peer.host);
    assert_eq!(peer.host.serve(&mut full), Ok(Served::All));
    peer.send(&Peer::emit(&Request::D0Entry { window: 0x2000 }));
    assert_eq!(peer.host.serve(&mut full), Ok(Served::All));
    peer.packets()
}

#[test]
fn notices_wait_until_the_bus_is_on() {
    let expected = [0, 0x19, 0, 0x0b];
    assert_eq!(packets_until_on(|host| host.eject(SLOT).unwrap(), |_| {}), expected);
    // The version's answer is under way.
    assert_eq!(packets_until_on(|_| {}, |host| host.eject(SLOT).unwrap()), expected);
    let offer = |host: &mut Host| _ = host.offer(function(Slot::new(2, 0))).unwrap();
    assert_eq!(packets_until_on(offer, |host| host.remove(OTHER).unwrap()), expected[..3]);
}

#[test]
fn an_ejection_is_requested_again_after_a_reset() {
    for is_reset in [false, true] {
        let mut peer = Peer::on(Version::V1_4);
        peer.host.eject(SLOT).unwrap();
        assert_eq!(peer.ask(&Request::D0Exit), Ok(Status::SUCCESS));
        if is_reset {
            peer.host.reset();
            assert_eq!(peer.ask(&Request::QueryVersion(0x1_0004)), Ok(Status::SUCCESS));
        }
        peer.send(&Peer::emit(&Request::D0Entry { window: 0x2000 }));
        assert_eq!(peer.host.serve(&mut peer.far), Ok(Served::All));
        assert_eq!(peer.packets(), [0x19, 0, 0x0b], "{is_reset}");
        assert_eq!(peer.ask(&Request::EjectionComplete(SLOT)), Ok(Status::SUCCESS));
    }
}

#[test]
fn the_config_window_address_drops_the_vtom_bit() {
    let mut peer = Peer::new(Version::V1_4);
    let config = host_config(Version::V1_4).with_vtom(1 << 39);
    peer.host = Host::new(config, Injection::Spi(Arc::new(Gic::new(1020, 4)))).unwrap();
    assert_eq!(peer.ask(&Request::QueryVersion(0x1_0004)), Ok(Status::SUCCESS));
    for window in [0x2000, 1 << 39 | 0x2000] {
        assert_eq!(peer.ask(&Request::D0Entry { window }), Ok(Status::SUCCESS));
        assert_eq!(peer.host.window(), Some(0x2000));
        assert_eq!(peer.ask(&Request::D0Exit), Ok(Status::SUCCESS));
    }
}

fn slots() -> impl Strategy<Value = Slot> {
    prop_oneof![Just(SLOT), Just(OTHER), Just(Slot::new(2, 0))]
}

fn messages() -> impl Strategy<Value = Vec<u8>> {
    let sound = prop_oneof![
        (slots(), 30..100u32, 0..6u32).prop_map(|(slot, vector, log)| Peer::emit(&create(
            slot,
            vector,
            1 << log
        ))),
        (slots(), 30..100u32, 0..6u32).prop_map(|(slot, data, log)| Peer::emit(&delete(
            slot,
            data,
            1 << log
        ))),
        slots().prop_map(|slot| Peer::emit(&Request::ReleaseResources(slot))),
        slots().prop_map(|slot| {
            let assigned = AssignedResources::new(slot, ResourcesForm::V2);
            Peer::emit(&Request::AssignResources(assigned))
        }),
        Just(Peer::emit(&Request::D0Exit)),
        Just(Peer::emit(&Request::D0Entry { window: 0x1000 })),
        Just(Peer::emit(&Request::QueryRelations)),
        slots().prop_map(|slot| Peer::emit(&Request::EjectionComplete(slot))),
    ];
    let broken = (0x4249_0000..0x4249_0020u32, prop::collection::vec(any::<u8>(), 0..200))
        .prop_map(|(kind, rest)| [&kind.to_le_bytes()[..], &rest].concat())
        .prop_filter("a version ends it", |message| message[0] != 0x13);
    prop_oneof![4 => sound, 1 => broken]
}

proptest! {
    /// Refused requests must have no effect, and no sequence may exceed a quota or map a vector
    /// twice.
    #[test]
    fn refused_requests_change_nothing(messages in prop::collection::vec(messages(), 0..60)) {
        let mut peer = Peer::on(Version::V1_4);
        for message in messages {
            let before = peer.host.save();
            let status = Status::parse(&peer.exchange(&message).unwrap()).unwrap();
            let after = peer.host.save();
            if !status.is_success() {
                prop_assert_eq!(&after, &before);
            }
            let mut data: Vec<u32> = Vec::new();
            for function in &after.functions {
                let of = function.mappings.iter().flat_map(|mapping| {
                    (0..).zip(&mapping.targets).map(|(index, _)| mapping.data + index)
                });
                let of: Vec<u32> = of.collect();
                prop_assert!(of.len() <= 64);
                prop_assert!(function.is_assigned || of.is_empty());
                data.extend(of);
            }
            let all = data.len();
            data.sort_unstable();
            data.dedup();
            prop_assert_eq!(data.len(), all);
            prop_assert!(data.iter().all(|spi| (32..1020).contains(spi)));
            prop_assert!(after.window.is_some() || data.is_empty());
        }
    }
}
