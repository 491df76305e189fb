//! Laws for all messages: an emitted message parses back to itself, even with a ring's padding, and
//! a parsed message emits bytes that parse to the same message.

use hyperv_vpci::protocol::reply::{InterruptReply, Status};
use hyperv_vpci::protocol::{
    AssignedResources, Delivery, DeviceDescription, InterruptDescriptor, InterruptForm,
    MAX_MESSAGE, Notice, PowerState, Processors, Relations, RelationsForm, Request, ResourcesForm,
    Retarget, Slot, TranslatedInterrupt, Version,
};
use msi_types::MsiMessage;
use proptest::prelude::*;

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
