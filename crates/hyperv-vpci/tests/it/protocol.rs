//! Compares messages with layouts that were typed by hand, and tests refusals and round trips.
//!
//! Version negotiation, until the bus is on.

mod message_layout;

use crate::board::{OTHER, SLOT, open, spis};
use crate::tamper::{Fate, Tamper};
use hyperv_vpci::guest::VpciError;
use hyperv_vpci::host::Injection;
use hyperv_vpci::protocol::reply::{InterruptReply, Status};
use hyperv_vpci::protocol::{
    AssignedResources, Delivery, DeviceDescription, InterruptDescriptor, InterruptForm,
    MAX_MESSAGE, Notice, PowerState, Processors, ProtocolError, Relations, RelationsForm, Request,
    ResourcesForm, Retarget, Slot, TranslatedInterrupt, Version,
};
use msi_types::MsiMessage;
use proptest::prelude::*;

fn create(form: InterruptForm, vector: u32, count: u16) -> Request {
    let processors = Processors::one(0);
    let interrupt = InterruptDescriptor { vector, delivery: Delivery::Fixed, count, processors };
    Request::CreateInterrupt { slot: Slot::default(), form, interrupt }
}

#[test]
fn vectors_above_255_need_the_third_interrupt_form() {
    let mut out = [0; 128];
    let form = InterruptForm::V2;
    assert!(create(form, 255, 1).emit(&mut out).is_ok());
    let too_wide = |vector| Err(ProtocolError::VectorTooWide { vector });
    assert_eq!(create(form, 256, 1).emit(&mut out), too_wide(256));
    // The group's last vector is 256.
    assert_eq!(create(form, 249, 8).emit(&mut out), too_wide(249));
    assert!(create(form, 248, 8).emit(&mut out).is_ok());
    assert!(create(InterruptForm::V3, 1019, 1).emit(&mut out).is_ok());
}

#[test]
fn a_request_whose_group_ends_above_255_is_refused() {
    // A create request of the second form: slot 9, four vectors from 255 on, one processor.
    let mut request = [0; 80];
    request[..16].copy_from_slice(&[0x17, 0, 0x49, 0x42, 9, 0, 0, 0, 0xff, 0, 4, 0, 1, 0, 0, 0]);
    assert_eq!(Request::parse(&request), Err(ProtocolError::VectorTooWide { vector: 255 }));
    request[8] = 252;
    assert!(Request::parse(&request).is_ok());
    // The first form belongs to version 1.1.
    request[0] = 0x14;
    assert_eq!(Request::parse(&request), Err(ProtocolError::UnknownType(0x4249_0014)));
}

#[test]
fn group_sizes_other_than_powers_of_two_up_to_32_are_refused() {
    let mut out = [0; 128];
    for count in [0, 3, 33, 64, u16::MAX] {
        let refused = Err(ProtocolError::BadGroup(count));
        assert_eq!(create(InterruptForm::V3, 64, count).emit(&mut out), refused);
        create(InterruptForm::V3, 64, 1).emit(&mut out).unwrap();
        out[14..16].copy_from_slice(&count.to_le_bytes());
        assert_eq!(Request::parse(&out), Err(ProtocolError::BadGroup(count)));
    }
}

#[test]
fn processor_lists_outside_1_to_32_entries_are_refused() {
    let mut out = [0; 128];
    let length = create(InterruptForm::V3, 64, 1).emit(&mut out).unwrap();
    for count in [0, 33, u16::MAX] {
        out[16..18].copy_from_slice(&count.to_le_bytes());
        assert_eq!(Request::parse(&out[..length]), Err(ProtocolError::BadProcessors));
    }
    assert_eq!(Processors::new(&[0; 33]), Err(ProtocolError::BadProcessors));
    assert_eq!(Processors::new(&[]), Err(ProtocolError::BadProcessors));
}

#[test]
fn relations_with_too_high_a_count_are_refused() {
    let announced = |count: u32| {
        let mut bytes = 0x4249_0000u32.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        bytes.extend([0; 20]);
        Notice::parse(&bytes).map(|_| ())
    };
    assert_eq!(announced(1), Ok(()));
    assert_eq!(announced(2), Err(ProtocolError::Truncated { needed: 40, have: 20 }));
    for count in [257, 0x0ccc_cccd, u32::MAX] {
        assert_eq!(announced(count), Err(ProtocolError::BadCount { count, limit: 256 }));
    }
}

#[test]
fn slots_with_reserved_bits_are_refused() {
    for wire in [0x100, 0x8000_0000, u32::MAX] {
        assert_eq!(Slot::from_wire(wire), Err(ProtocolError::BadSlot(wire)));
    }
}

#[test]
fn every_truncation_is_an_error() {
    let mut out = [0; 128];
    let length = create(InterruptForm::V3, 64, 1).emit(&mut out).unwrap();
    // The last field is reserved.
    for short in 0..length - 2 {
        let parsed = Request::parse(&out[..short]);
        assert!(matches!(parsed, Err(ProtocolError::Truncated { .. })), "{short}: {parsed:?}");
    }
}

#[test]
fn a_failed_completion_is_parsed_as_its_status() {
    let failed = Status::BAD_DATA.get().to_le_bytes();
    assert_eq!(InterruptReply::parse(&failed), Ok(Err(Status::BAD_DATA)));
    let short = InterruptReply::parse(&[0; 23]);
    assert_eq!(short, Err(ProtocolError::Truncated { needed: 8, have: 7 }));
}

fn slots() -> impl Strategy<Value = Slot> {
    (0..32u8, 0..8u8).prop_map(|(device, function)| Slot::new(device, function))
}

fn translated() -> impl Strategy<Value = TranslatedInterrupt> {
    any::<(u16, u64, u32)>().prop_map(|(count, address, data)| TranslatedInterrupt {
        count,
        message: MsiMessage { address, data },
    })
}

fn created() -> impl Strategy<Value = Request> {
    let forms = prop_oneof![
        (Just(InterruptForm::V2), 0..224u32, prop::collection::btree_set(any::<u16>(), 1..=32)),
        (Just(InterruptForm::V3), any::<u32>(), prop::collection::btree_set(any::<u16>(), 1..=32)),
    ];
    let modes = prop_oneof![Just(Delivery::Fixed), Just(Delivery::LowestPriority)];
    (slots(), forms, modes, 0..=5u32).prop_map(|(slot, (form, vector, list), delivery, log)| {
        let processors = Processors::new(&Vec::from_iter(list)).expect("1 to 32 processors");
        let interrupt = InterruptDescriptor { vector, delivery, count: 1 << log, processors };
        Request::CreateInterrupt { slot, form, interrupt }
    })
}

fn requests() -> impl Strategy<Value = Request> {
    let forms =
        prop_oneof![Just(ResourcesForm::V1), Just(ResourcesForm::V2), Just(ResourcesForm::V3)];
    prop_oneof![
        any::<u32>().prop_map(Request::QueryVersion),
        Just(Request::QueryRelations),
        Just(Request::D0Exit),
        any::<u64>().prop_map(|window| Request::D0Entry { window }),
        slots().prop_map(Request::QueryResources),
        slots().prop_map(Request::ReleaseResources),
        slots().prop_map(Request::EjectionComplete),
        (slots(), prop_oneof![Just(PowerState::D0), Just(PowerState::D3)])
            .prop_map(|(slot, state)| Request::PowerChange { slot, state }),
        (slots(), forms, 0..5u32).prop_map(|(slot, form, interrupts)| {
            Request::AssignResources(AssignedResources { slot, form, interrupts })
        }),
        created(),
        (slots(), translated())
            .prop_map(|(slot, interrupt)| Request::DeleteInterrupt { slot, interrupt }),
    ]
}

fn descriptions() -> impl Strategy<Value = DeviceDescription> {
    (any::<[u16; 4]>(), any::<[u8; 4]>(), slots(), any::<u32>(), any::<Option<u16>>()).prop_map(
        |([vendor, device, subsystem_vendor, subsystem], bytes, slot, serial, node)| {
            let [revision, interface, subclass, class] = bytes;
            DeviceDescription {
                vendor,
                device,
                revision,
                interface,
                subclass,
                class,
                subsystem_vendor,
                subsystem,
                slot,
                serial,
                node,
            }
        },
    )
}

proptest! {
    #[test]
    fn emitted_requests_parse_to_the_same_request(request in requests(), padding in 0..16usize) {
        let mut out = [0xa5; 1024];
        let length = request.emit(&mut out).unwrap();
        prop_assert_eq!(Request::parse(&out[..length + padding]), Ok(request));
        // A buffer that is one byte short must cause an error, and must not be written past its
        // end.
        prop_assert!(request.emit(&mut out[..length - 1]).is_err());
    }

    #[test]
    fn emitted_relations_parse_to_the_functions_they_list(
        functions in prop::collection::vec(descriptions(), 0..=256),
        second in any::<bool>(),
    ) {
        let form = if second { RelationsForm::V2 } else { RelationsForm::V1 };
        let (mut room, mut out) = (vec![0; MAX_MESSAGE], vec![0; MAX_MESSAGE]);
        let relations = Relations::new(form, functions.iter().copied(), &mut room).unwrap();
        let length = Notice::Relations(relations).emit(&mut out).unwrap();
        let Ok(Notice::Relations(parsed)) = Notice::parse(&out[..length]) else {
            panic!("a list parses as a list")
        };
        let expected = functions.into_iter().map(|function| DeviceDescription {
            node: function.node.filter(|_| second),
            ..function
        });
        prop_assert!(parsed.functions().eq(expected));
    }

    #[test]
    fn messages_parsed_from_arbitrary_bytes_round_trip(
        kind in 0x4249_0000..0x4249_0020u32,
        mut bytes in prop::collection::vec(any::<u8>(), 4..400),
    ) {
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        let mut out = vec![0; MAX_MESSAGE];
        if let Ok(request) = Request::parse(&bytes) {
            let length = request.emit(&mut out).unwrap();
            prop_assert_eq!(Request::parse(&out[..length]), Ok(request));
        }
        if let Ok(notice) = Notice::parse(&bytes) {
            let length = notice.emit(&mut out).unwrap();
            prop_assert_eq!(Notice::parse(&out[..length]), Ok(notice));
        }
        let _ = Retarget::parse(&bytes);
    }

    #[test]
    fn emitted_answers_parse_to_the_same_answer(interrupt in translated(), number in any::<u32>()) {
        let mut out = [0; 24];
        prop_assert_eq!(InterruptReply(interrupt).emit(&mut out), Ok(24));
        prop_assert_eq!(InterruptReply::parse(&out), Ok(Ok(InterruptReply(interrupt))));
        let status = Status::new(number);
        prop_assert_eq!(status.emit(&mut out), Ok(4));
        prop_assert_eq!(Status::parse(&out), Ok(status));
        prop_assert_eq!(status.is_success(), number < 0x8000_0000);
    }
}

#[test]
fn slots_and_requesters_round_trip() {
    for wire in 0..256 {
        let slot = Slot::from_wire(wire).unwrap();
        assert_eq!(slot.to_wire(), wire);
        assert_eq!(Slot::of(slot.requester(7)), slot);
    }
}

#[test]
fn versions_round_trip_and_are_offered_in_descending_order() {
    for pair in Version::OFFERED.windows(2) {
        assert!(pair[0] > pair[1]);
    }
    for wire in 0x1_0000..0x1_0008 {
        assert!(Version::from_wire(wire).is_none_or(|version| version.to_wire() == wire));
    }
    assert_eq!(Version::V1_4.to_string(), "1.4");
}

fn opened(highest: Version, fate: Fate) -> (Vec<Request>, Result<Version, VpciError>) {
    let (gic, vectors) = spis();
    let tamper = Tamper::default();
    tamper.set(fate);
    let (_, _, bus) = open(highest, Injection::Spi(gic), vectors, &tamper);
    let heard = tamper.heard().into_iter();
    let requests = heard.map(|(_, message)| Request::parse(&message).unwrap()).collect();
    (requests, bus.map(|bus| bus.version()))
}

#[test]
fn the_highest_common_version_is_negotiated() {
    for highest in Version::OFFERED {
        let (requests, version) = opened(highest, Fate::Sent);
        assert_eq!(version, Ok(highest));
        let asked = requests.iter().filter_map(|request| match request {
            Request::QueryVersion(version) => Some(*version),
            _ => None,
        });
        let above = Version::OFFERED.into_iter().filter(|version| *version >= highest);
        assert!(above.map(Version::to_wire).eq(asked));
    }
}

#[test]
fn resources_are_assigned_in_the_second_form() {
    let (requests, _) = opened(Version::V1_4, Fate::Sent);
    let assigned = requests.iter().filter_map(|request| match request {
        Request::AssignResources(assigned) => Some((assigned.slot, assigned.form)),
        _ => None,
    });
    assert!(assigned.eq([(SLOT, ResourcesForm::V2), (OTHER, ResourcesForm::V2)]));
}

#[test]
fn a_failed_version_query_ends_the_negotiation() {
    let refuse: fn(&mut Vec<u8>) =
        |answer| answer[..4].copy_from_slice(&Status::BAD_DATA.get().to_le_bytes());
    let operation = "query version";
    let refused = VpciError::Refused { operation, status: Status::BAD_DATA };
    assert_eq!(opened(Version::V1_4, Fate::Changed(refuse)).1, Err(refused));
    let mismatch: fn(&mut Vec<u8>) =
        |answer| answer[..4].copy_from_slice(&Status::REVISION_MISMATCH.get().to_le_bytes());
    let (requests, result) = opened(Version::V1_2, Fate::Changed(mismatch));
    // The host accepted the last proposal, but the guest does not learn this.
    assert_eq!((requests.len(), result), (3, Err(VpciError::NoVersion)));
    assert_eq!(opened(Version::V1_4, Fate::Lost).1, Err(VpciError::Silent(operation)));
}

#[test]
fn opening_a_bus_that_is_still_on_turns_it_off_first() {
    let (requests, version) = opened(Version::V1_4, Fate::FirstEntryRefused);
    assert_eq!(version, Ok(Version::V1_4));
    let entry = Request::D0Entry { window: 0x1000_0000 };
    let release = Request::ReleaseResources;
    let power = requests.into_iter().filter(|request| {
        matches!(request, Request::D0Entry { .. } | Request::D0Exit | Request::ReleaseResources(_))
    });
    assert!(power.eq([entry, release(SLOT), release(OTHER), Request::D0Exit, entry]));
}
