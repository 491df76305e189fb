//! Checks that encoding and decoding are inverses over the whole space.

use msi_types::MsiMessage;
use proptest::prelude::*;
use x86_irq::message::{
    ApicMessage, DeliveryMode, DestinationFormat, DestinationMode, MessageError, Redirection,
    Signal,
};
use x86_irq::remapping::{RemappableMessage, Source, SourceCheck, TableSize};
use x86_irq::{ApicId, ApicVector};

fn vectors() -> impl Strategy<Value = ApicVector> {
    (0x10..=0xfe_u8).prop_map(|number| ApicVector::new(number).unwrap())
}

fn formats() -> impl Strategy<Value = DestinationFormat> {
    prop_oneof![
        Just(DestinationFormat::Xapic),
        Just(DestinationFormat::Extended15),
        Just(DestinationFormat::Kvm32)
    ]
}

fn messages() -> impl Strategy<Value = ApicMessage> {
    let delivery = prop_oneof![
        vectors().prop_map(DeliveryMode::Fixed),
        vectors().prop_map(DeliveryMode::LowestPriority),
        Just(DeliveryMode::Smi),
        Just(DeliveryMode::Nmi),
        Just(DeliveryMode::Init),
        Just(DeliveryMode::ExtInt),
    ];
    let modes = prop_oneof![Just(DestinationMode::Physical), Just(DestinationMode::Logical)];
    let redirections = prop_oneof![Just(Redirection::Directed), Just(Redirection::Hint)];
    let signals = prop_oneof![Just(Signal::Edge), Just(Signal::Assert), Just(Signal::Deassert)];
    let ids = prop_oneof![0..0x100_u32, 0..0x8000_u32, any::<u32>()];
    (ids, modes, redirections, delivery, signals).prop_map(
        |(id, mode, redirection, delivery, signal)| ApicMessage {
            destination: ApicId::new(id),
            mode,
            redirection,
            delivery,
            signal,
        },
    )
}

#[test]
fn a_format_reaches_ids_up_to_its_limit() {
    let reached = |format: DestinationFormat| {
        [0, 0xfe, 0xff, 0x100, 0x7fff, 0x8000, u32::MAX - 1, u32::MAX]
            .map(|id| format.reaches(ApicId::new(id)))
    };
    let [yes, no] = [true, false];
    assert_eq!(reached(DestinationFormat::Xapic), [yes, yes, no, no, no, no, no, no]);
    assert_eq!(reached(DestinationFormat::Extended15), [yes, yes, no, yes, yes, no, no, no]);
    assert_eq!(reached(DestinationFormat::Kvm32), [yes, yes, yes, yes, yes, yes, yes, no]);
}

#[test]
fn a_table_has_2_to_65536_entries() {
    let entries = |log2| TableSize::from_log2(log2).map(TableSize::entries);
    assert_eq!([0, 1, 16, 17].map(entries), [None, Some(2), Some(1 << 16), None]);
}

#[test]
fn handles_round_trip_with_any_subhandle() {
    for handle in 0..=u16::MAX {
        for subhandle in [None, Some(0), Some(handle.reverse_bits())] {
            let named = RemappableMessage { handle, subhandle };
            assert_eq!(RemappableMessage::decode(named.encode()), Ok(named));
            let decoded = ApicMessage::decode(named.encode(), DestinationFormat::Extended15);
            assert_eq!(decoded, Err(MessageError::Remappable));
        }
    }
}

proptest! {
    #[test]
    fn encoding_is_undone_by_decoding(message in messages(), format in formats()) {
        let most = match format {
            DestinationFormat::Xapic => 0xff,
            DestinationFormat::Extended15 => 0x7fff,
            DestinationFormat::Kvm32 => u32::MAX,
        };
        if let Ok(wire) = message.encode(format) {
            prop_assert_eq!(ApicMessage::decode(wire, format), Ok(message));
        } else {
            prop_assert!(message.destination.get() > most);
        }
    }

    #[test]
    fn decoding_is_undone_by_encoding(
        low in any::<u32>(),
        high in any::<u32>(),
        data in any::<u32>(),
        format in formats(),
    ) {
        // Generate mostly doorbell addresses with few stray bits, because almost no other message
        // can be decoded.
        let address = u64::from(high) << 32 | u64::from(0xfee0_0000 | low & 0xf_ffff);
        let short = address & 0xff_ffff_ffff | 0xfee0_0000;
        for address in [address, short, address & 0xffff_ff00_ffff_f00c] {
            for data in [data, data & 0xffff, data & 0x87ff] {
                let wire = MsiMessage { address, data };
                let Ok(decoded) = ApicMessage::decode(wire, format) else { continue };
                let ignored = if decoded.signal == Signal::Edge { 0x4000 } else { 0 };
                let canonical = MsiMessage { data: data & !ignored, ..wire };
                prop_assert_eq!(decoded.encode(format), Ok(canonical));
            }
        }
    }

    #[test]
    fn remappable_messages_round_trip(low in any::<u32>(), data in any::<u32>()) {
        let address = u64::from(0xfee0_0010 | low & 0xf_ffff);
        let wire = MsiMessage { address, data };
        if let Ok(named) = RemappableMessage::decode(wire) {
            let data = if named.subhandle.is_some() { data } else { 0 };
            prop_assert_eq!(named.encode(), MsiMessage { address: address & !0b11, data });
        } else {
            prop_assert!(data > 0xffff);
        }
    }

    #[test]
    fn a_source_admits_only_matching_requesters(id in any::<u16>(), requester in any::<u16>()) {
        let admits = |check| Source { id, check }.admits(requester);
        prop_assert!(admits(SourceCheck::None));
        prop_assert_eq!(admits(SourceCheck::Exact), id == requester);
        prop_assert_eq!(admits(SourceCheck::IgnoreBit2), id | 4 == requester | 4);
        prop_assert_eq!(admits(SourceCheck::IgnoreBits2To1), id | 6 == requester | 6);
        prop_assert_eq!(admits(SourceCheck::IgnoreFunction), id >> 3 == requester >> 3);
        let buses = id >> 8..=id & 0xff;
        prop_assert_eq!(admits(SourceCheck::BusRange), buses.contains(&(requester >> 8)));
    }
}
