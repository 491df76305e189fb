//! Tests that every bit in a table entry belongs to its documented field and to no other field.

use doorbell_test_support::{EntryField, check_entry};
use proptest::prelude::*;
use vgic_kvm::abi::{CollectionEntry, DeviceEntry, TranslationEntry};

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
