//! Tests for KVM's device attribute numbers and table entry layouts. The expected values are typed
//! by hand from Linux's documentation and cover every attribute group and entry field.

use doorbell_test_support::{EntryField, check_entry};
use gic_arch::Affinity;
use gic_arch::icc;
use proptest::prelude::*;
use vgic_kvm::abi::{
    Attribute, CollectionEntry, DeviceEntry, Errno, LINE_LEVEL, RedistributorRegion,
    TranslationEntry, UnknownGroup, control, frame,
};

/// Aff3.Aff2.Aff1.Aff0 = 1.2.3.4.
const CPU: Affinity = Affinity::new(1, 2, 3, 4);

#[test]
fn attributes_have_the_documented_numbers() {
    let numbers = |attribute: Attribute| (attribute.group(), attribute.number(), attribute.bytes());
    assert_eq!(numbers(Attribute::Address(frame::REDISTRIBUTOR_REGION)), (0, 5, 8));
    assert_eq!(numbers(Attribute::Distributor { offset: 0x6100 }), (1, 0x6100, 4));
    assert_eq!(numbers(Attribute::InterruptCount), (3, 0, 4));
    assert_eq!(numbers(Attribute::Control(control::SAVE_PENDING_TABLES)), (4, 3, 0));
    let redistributor = Attribute::Redistributor { cpu: CPU, offset: 0x1_0080 };
    assert_eq!(numbers(redistributor), (5, 0x0102_0304_0001_0080, 4));
    let mask = Attribute::SystemRegister { cpu: CPU, register: icc::PMR.encoding() };
    assert_eq!(numbers(mask), (6, 0x0102_0304_0000_c230, 8));
    let levels = Attribute::Levels { cpu: CPU, info: LINE_LEVEL, first: 64 };
    assert_eq!(numbers(levels), (7, 0x0102_0304_0000_0040, 4));
    assert_eq!(numbers(Attribute::Its { offset: 0x100 }), (8, 0x100, 8));
    assert_eq!(numbers(Attribute::MaintenanceInterrupt), (9, 0, 4));
}

#[test]
fn redistributor_region_matches_its_layout() {
    let region =
        RedistributorRegion::new().with_index(3).with_base(0x4_5678_9abc_0000).with_count(0x123);
    assert_eq!(region.into_bits(), 0x1234_5678_9abc_0003);
    assert_eq!(region.base(), 0x4_5678_9abc_0000);
    assert_eq!(RedistributorRegion::from(0xf000).flags(), 0xf);
}

#[test]
fn an_unknown_attribute_group_is_refused() {
    for group in [2, 10, 11, u32::MAX] {
        assert_eq!(Attribute::decode(group, 0), Err(UnknownGroup(group)));
    }
}

#[test]
fn error_numbers_match_linux() {
    let numbers = Errno::ALL.map(Errno::number);
    assert_eq!(numbers, [2, 6, 7, 12, 13, 14, 16, 17, 19, 22]);
    for errno in Errno::ALL {
        assert_eq!(Errno::from_number(errno.number()), Some(errno));
    }
    assert_eq!(Errno::from_number(0), None);
}

proptest! {
    #[test]
    fn decoded_attributes_round_trip(group in 0u32..10, number: u64) {
        if let Ok(attribute) = Attribute::decode(group, number) {
            prop_assert_eq!(attribute.group(), group);
            prop_assert_eq!(Attribute::decode(group, attribute.number()), Ok(attribute));
        }
    }

    #[test]
    fn line_level_attributes_round_trip(number: u64) {
        let levels = Attribute::decode(7, number).unwrap();
        prop_assert_eq!(levels.number(), number);
    }
}

fn low<const N: u32>(value: u64) -> u64 {
    value & (u64::MAX >> (64 - N))
}

#[test]
fn device_entry_bits_match_the_layout() {
    let fields = [
        EntryField::<DeviceEntry> {
            high: 4,
            low: 0,
            read: |entry| entry.event_bits_minus_one().into(),
            write: |entry, value| entry.with_event_bits_minus_one(low::<5>(value).to_le_bytes()[0]),
        },
        EntryField {
            high: 48,
            low: 5,
            read: |entry| entry.itt_address() >> 8,
            write: |entry, value| entry.with_itt_address(value << 8),
        },
        EntryField {
            high: 62,
            low: 49,
            read: |entry| entry.next().into(),
            write: |entry, value| entry.with_next(u16::try_from(low::<14>(value)).unwrap()),
        },
        EntryField {
            high: 63,
            low: 63,
            read: |entry| entry.valid().into(),
            write: |e, v| e.with_valid(v != 0),
        },
    ];
    check_entry(DeviceEntry::from_bits, DeviceEntry::into_bits, &fields);
}

#[test]
fn translation_entry_bits_match_the_layout() {
    let fields = [
        EntryField::<TranslationEntry> {
            high: 15,
            low: 0,
            read: |entry| entry.collection().into(),
            write: |entry, value| entry.with_collection(u16::try_from(value).unwrap()),
        },
        EntryField {
            high: 47,
            low: 16,
            read: |entry| entry.intid().into(),
            write: |entry, value| entry.with_intid(u32::try_from(value).unwrap()),
        },
        EntryField {
            high: 63,
            low: 48,
            read: |entry| entry.next().into(),
            write: |entry, value| entry.with_next(u16::try_from(value).unwrap()),
        },
    ];
    check_entry(TranslationEntry::from_bits, TranslationEntry::into_bits, &fields);
}

#[test]
fn collection_entry_bits_match_the_layout() {
    let fields = [
        EntryField::<CollectionEntry> {
            high: 15,
            low: 0,
            read: |entry| entry.collection().into(),
            write: |entry, value| entry.with_collection(u16::try_from(value).unwrap()),
        },
        EntryField {
            high: 51,
            low: 16,
            read: |entry| entry.target(),
            write: |entry, value| entry.with_target(value),
        },
        EntryField {
            high: 63,
            low: 63,
            read: |entry| entry.valid().into(),
            write: |e, v| e.with_valid(v != 0),
        },
    ];
    check_entry(CollectionEntry::from_bits, CollectionEntry::into_bits, &fields);
}

proptest! {
    #[test]
    fn table_entries_round_trip_every_bit(raw: u64) {
        prop_assert_eq!(u64::from(DeviceEntry::from(raw)), raw);
        prop_assert_eq!(u64::from(TranslationEntry::from(raw)), raw);
        prop_assert_eq!(u64::from(CollectionEntry::from(raw)), raw);
    }

    #[test]
    fn setting_the_itt_address_changes_no_other_bits(address: u64, raw: u64) {
        let entry = DeviceEntry::from(raw).with_itt_address(address);
        prop_assert_eq!(entry.itt_address(), address & 0xf_ffff_ffff_ff00);
        prop_assert_eq!(entry.with_itt_address(0), DeviceEntry::from(raw).with_itt_address(0));
    }
}
