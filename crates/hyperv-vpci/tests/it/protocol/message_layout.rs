//! Bytes typed by hand from two independent implementations: the structures of Linux's
//! `pci-hyperv.c` and of OpenVMM's `vpci_protocol`. Each field has a distinct value.

use hyperv_vpci::protocol::reply::{AssignedReply, BarsReply, InterruptReply, VersionReply};
use hyperv_vpci::protocol::{
    AssignedResources, Delivery, DeviceDescription, DeviceKey, InterruptDescriptor, InterruptForm,
    Notice, PowerState, Processors, ProtocolError, Relations, RelationsForm, Request,
    ResourcesForm, Retarget, RetargetInput, Slot, Status, TranslatedInterrupt,
};
use msi_types::MsiMessage;

/// Device 3, function 5: 0b101_00011.
const SLOT: Slot = Slot::new(3, 5);
const SLOT_BYTES: [u8; 4] = [0xa3, 0, 0, 0];

fn emitted(request: Request) -> Vec<u8> {
    let mut out = [0xee; 512];
    let length = request.emit(&mut out).expect("the buffer has room");
    assert_eq!(Request::parse(&out[..length]), Ok(request));
    out[..length].to_vec()
}

/// Builds a message of this type with fields at the given offsets and zeros elsewhere.
fn message(kind: u32, length: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    for (offset, field) in fields {
        bytes[*offset..offset + field.len()].copy_from_slice(field);
    }
    bytes
}

#[test]
fn short_requests_are_emitted_in_their_wire_layouts() {
    let version = emitted(Request::QueryVersion(0x1_0004));
    assert_eq!(version, message(0x4249_0013, 8, &[(4, &[4, 0, 1, 0])]));
    assert_eq!(emitted(Request::QueryRelations), message(0x4249_0001, 4, &[]));
    assert_eq!(emitted(Request::D0Exit), message(0x4249_0008, 4, &[]));
    let entry = emitted(Request::D0Entry { window: 0x0123_4567_89ab_cdef });
    let window = [0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01];
    assert_eq!(entry, message(0x4249_0007, 16, &[(8, &window)]));
    let power = emitted(Request::PowerChange { slot: SLOT, state: PowerState::D3 });
    assert_eq!(power, message(0x4249_0004, 12, &[(4, &SLOT_BYTES), (8, &[4])]));
    for (request, kind) in [
        (Request::QueryResources(SLOT), 0x4249_0005),
        (Request::ReleaseResources(SLOT), 0x4249_0011),
        (Request::EjectionComplete(SLOT), 0x4249_000f),
    ] {
        assert_eq!(emitted(request), message(kind, 8, &[(4, &SLOT_BYTES)]));
    }
}

#[test]
fn resource_assignments_are_emitted_in_their_wire_layouts() {
    for (form, kind, interrupt) in [
        (ResourcesForm::V1, 0x4249_0010, 16),
        (ResourcesForm::V2, 0x4249_0016, 72),
        (ResourcesForm::V3, 0x4249_001a, 80),
    ] {
        let assigned = AssignedResources { slot: SLOT, form, interrupts: 2 };
        let bytes = emitted(Request::AssignResources(assigned));
        let fields: &[(usize, &[u8])] = &[(4, &SLOT_BYTES), (128, &[2])];
        assert_eq!(bytes, message(kind, 136 + 2 * interrupt, fields));
    }
}

/// Linux writes 148 bytes of the first form and 202 of the second, which a ring rounds up to 152
/// and 208. OpenVMM's client writes 216 bytes of the first form.
#[test]
fn a_resource_assignment_without_interrupts_has_room_for_one() {
    for (form, kind, length) in [
        (ResourcesForm::V1, 0x4249_0010, 152),
        (ResourcesForm::V2, 0x4249_0016, 208),
        (ResourcesForm::V3, 0x4249_001a, 216),
    ] {
        let bytes = emitted(Request::AssignResources(AssignedResources::new(SLOT, form)));
        assert_eq!(bytes, message(kind, length, &[(4, &SLOT_BYTES)]));
    }
}

#[test]
fn the_second_interrupt_form_is_emitted_in_its_wire_layout() {
    let processors = Processors::new(&[0x102, 7]).unwrap();
    let delivery = Delivery::Fixed;
    let interrupt = InterruptDescriptor { vector: 0x51, delivery, count: 2, processors };
    let request = Request::CreateInterrupt { slot: SLOT, form: InterruptForm::V2, interrupt };
    let fields: &[(usize, &[u8])] =
        &[(4, &SLOT_BYTES), (8, &[0x51, 0, 2, 0]), (12, &[2, 0, 2, 1, 7, 0])];
    // Linux writes 78 bytes; the ring and OpenVMM's structure round them up to 80.
    assert_eq!(emitted(request), message(0x4249_0017, 80, fields));
}

#[test]
fn the_third_interrupt_form_is_emitted_in_its_wire_layout() {
    let processors = Processors::one(0x102);
    let delivery = Delivery::Fixed;
    let interrupt = InterruptDescriptor { vector: 0x3fa, delivery, count: 32, processors };
    let request = Request::CreateInterrupt { slot: SLOT, form: InterruptForm::V3, interrupt };
    let fields: &[(usize, &[u8])] =
        &[(4, &SLOT_BYTES), (8, &[0xfa, 3, 0, 0, 0, 0, 32, 0]), (16, &[1, 0, 2, 1])];
    // Linux writes 82 bytes; OpenVMM's structure has 84.
    assert_eq!(emitted(request), message(0x4249_001b, 84, fields));
}

/// The 82 bytes that Linux writes end before OpenVMM's reserved field.
#[test]
fn interrupts_without_tail_padding_are_parsed() {
    for (kind, length, count) in [(0x4249_0017, 78, 12), (0x4249_001b, 82, 16)] {
        let group = if kind == 0x4249_0017 { 10 } else { 14 };
        let bytes = message(kind, length, &[(group, &[1]), (count, &[1])]);
        assert!(matches!(Request::parse(&bytes), Ok(Request::CreateInterrupt { .. })));
    }
}

const TRANSLATED: TranslatedInterrupt = TranslatedInterrupt {
    count: 4,
    message: MsiMessage { address: 0x0123_4567_89ab_cdef, data: 0x2468_ace0 },
};
const TRANSLATED_BYTES: [u8; 16] =
    [0, 0, 4, 0, 0xe0, 0xac, 0x68, 0x24, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01];

#[test]
fn a_delete_request_repeats_the_creation_reply() {
    let request = Request::DeleteInterrupt { slot: SLOT, interrupt: TRANSLATED };
    let bytes = message(0x4249_0015, 24, &[(4, &SLOT_BYTES), (8, &TRANSLATED_BYTES)]);
    assert_eq!(emitted(request), bytes);
    let second = message(0x4249_0018, 24, &[(4, &SLOT_BYTES), (8, &TRANSLATED_BYTES)]);
    assert_eq!(Request::parse(&second), Ok(request));
}

#[test]
fn completions_are_emitted_in_their_wire_layouts() {
    let mut out = [0xee; 256];
    let length = InterruptReply(TRANSLATED).emit(&mut out).unwrap();
    assert_eq!(out[..length], message(0, 24, &[(8, &TRANSLATED_BYTES)]));
    let bars = [0x1111_1111, 2, 3, 4, 5, 0x6666_6666];
    let length = BarsReply(bars).emit(&mut out).unwrap();
    let words: Vec<u8> = bars.into_iter().flat_map(u32::to_le_bytes).collect();
    assert_eq!(out[..length], message(0, 28, &[(4, &words)]));
    let reply = VersionReply { status: Status::REVISION_MISMATCH, version: 0x1_0003 };
    let length = reply.emit(&mut out).unwrap();
    assert_eq!(out[..length], [0x59, 0, 0, 0xc0, 3, 0, 1, 0]);
    let length = AssignedReply(SLOT).emit(&mut out).unwrap();
    assert_eq!(out[..length], message(0, 136, &[(4, &SLOT_BYTES)]));
}

const FUNCTION: DeviceDescription = DeviceDescription {
    vendor: 0x1414,
    device: 0xb111,
    revision: 1,
    interface: 2,
    subclass: 8,
    class: 1,
    subsystem_vendor: 0x5555,
    subsystem: 0x6666,
    slot: SLOT,
    serial: 0x7788_99aa,
    node: Some(0x0203),
};
const FUNCTION_BYTES: [u8; 28] = [
    0x14, 0x14, 0x11, 0xb1, 1, 2, 8, 1, 0x55, 0x55, 0x66, 0x66, 0xa3, 0, 0, 0, 0xaa, 0x99, 0x88,
    0x77, 1, 0, 0, 0, 3, 2, 0, 0,
];

#[test]
fn bus_relations_are_emitted_in_their_wire_layouts() {
    for (form, kind, length) in
        [(RelationsForm::V1, 0x4249_0000, 20), (RelationsForm::V2, 0x4249_0019, 28)]
    {
        let mut room = [0; 64];
        let relations = Relations::new(form, [FUNCTION, FUNCTION], &mut room).unwrap();
        let mut out = [0xee; 128];
        let emitted = Notice::Relations(relations).emit(&mut out).unwrap();
        let one = &FUNCTION_BYTES[..length];
        let bytes = message(kind, 8 + 2 * length, &[(4, &[2]), (8, one), (8 + length, one)]);
        assert_eq!(out[..emitted], bytes);
    }
}

#[test]
fn ejections_are_emitted_in_their_wire_layout() {
    let mut out = [0; 8];
    assert_eq!(Notice::Eject(SLOT).emit(&mut out), Ok(8));
    assert_eq!(out[..], message(0x4249_000b, 8, &[(4, &SLOT_BYTES)]));
}

const INSTANCE: [u8; 16] = [
    0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f,
];

const RETARGET: Retarget = Retarget {
    device: DeviceKey::new(INSTANCE, SLOT),
    message: MsiMessage { address: 0xfee0_1000, data: 0x4321 },
    vector: 0x51,
    processor: 9,
};

/// Returns the input of a retarget hypercall with these fields from byte 44 on.
fn retarget_bytes(target: &[(usize, &[u8])], length: usize) -> Vec<u8> {
    let mut bytes = message(u32::MAX, length, &[(4, &[0xff; 4])]);
    // GUID bytes 5, 4, 7, 6 from the top; the function number in the low bits of byte 6.
    bytes[8..16].copy_from_slice(&[0x15, 0x17, 0x14, 0x15, 0, 0, 0, 0]);
    bytes[16] = 1;
    bytes[24..32].copy_from_slice(&[0x00, 0x10, 0xe0, 0xfe, 0x21, 0x43, 0, 0]);
    bytes[40] = 0x51;
    for (offset, field) in target {
        bytes[*offset..offset + field.len()].copy_from_slice(field);
    }
    bytes
}

/// Linux sets flag 2 and counts the bank mask and each bank as the variable header.
#[test]
fn the_retarget_hypercall_uses_a_sparse_set() {
    for (processor, bank, bit) in [
        (9, (56, &[1]), (65, &[2])),
        (65, (56, &[2]), (64, &[2])),
        // Bit 7 of bank 60.
        (3847, (63, &[0x10]), (64, &[0x80])),
    ] {
        let retarget = Retarget { processor, ..RETARGET };
        let input = RetargetInput::new(&retarget).unwrap();
        let fields: [(usize, &[u8]); 3] = [(44, &[2]), (bank.0, bank.1), (bit.0, bit.1)];
        assert_eq!(input.bytes(), retarget_bytes(&fields, 72));
        assert_eq!((input.control(), Retarget::input_length(input.control())), (0x4_007e, 72));
        assert_eq!(Retarget::parse(input.bytes()), Ok(retarget));
    }
    let beyond = Retarget { processor: 4096, ..RETARGET };
    assert_eq!(RetargetInput::new(&beyond), Err(ProtocolError::BadProcessors));
}

#[test]
fn a_processor_set_is_parsed_as_its_lowest_member() {
    let parsed = |target: &[(usize, &[u8])], length| {
        Retarget::parse(&retarget_bytes(target, length)).map(|retarget| retarget.processor)
    };
    let sparse: (usize, &[u8]) = (44, &[2]);
    // Two banks, the first of which is empty.
    assert_eq!(parsed(&[sparse, (56, &[5]), (72, &[0x30])], 80), Ok(132));
    assert_eq!(parsed(&[sparse, (56, &[3]), (67, &[0xff]), (72, &[1])], 80), Ok(24));
    assert_eq!(parsed(&[sparse, (48, &[1])], 56), Ok(0));
    // A mask instead of a set.
    assert_eq!(parsed(&[(48, &[0x30])], 56), Ok(4));
    let bad = Err(ProtocolError::BadRetarget);
    // Refused inputs: no bank, no processor, an unknown format, an unknown flag, and delivery to
    // each of two processors.
    assert_eq!(parsed(&[sparse], 64), bad);
    assert_eq!(parsed(&[sparse, (56, &[1])], 72), bad);
    assert_eq!(parsed(&[], 56), bad);
    assert_eq!(parsed(&[sparse, (48, &[2]), (64, &[1])], 72), bad);
    assert_eq!(parsed(&[(44, &[4]), (48, &[1])], 56), bad);
    assert_eq!(parsed(&[(44, &[1]), (48, &[3])], 56), bad);
    assert_eq!(parsed(&[(44, &[1]), (48, &[2])], 56), Ok(1));
    // The bank mask announces more banks than the input has.
    let truncated = Err(ProtocolError::Truncated { needed: 8, have: 0 });
    assert_eq!(parsed(&[sparse, (56, &[3]), (64, &[1])], 72), truncated);
    assert_eq!(parsed(&[sparse], 56), truncated);
}
