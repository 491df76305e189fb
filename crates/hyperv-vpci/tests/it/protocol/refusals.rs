//! Messages that both ends refuse.

use hyperv_vpci::protocol::reply::{InterruptReply, Status};
use hyperv_vpci::protocol::{
    Delivery, InterruptDescriptor, InterruptForm, Notice, Processors, ProtocolError, Request, Slot,
};

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
