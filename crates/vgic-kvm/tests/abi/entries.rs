//! Table entries: every bit reaches its field and no other.

use proptest::prelude::*;
use vgic_kvm::abi::{CollectionEntry, DeviceEntry, TranslationEntry};

/// Fields of a 64-bit entry: highest and lowest bit, and how it is read and written.
struct Codec<T> {
    high: u32,
    low: u32,
    read: fn(T) -> u64,
    write: fn(T, u64) -> T,
}

/// Every bit reaches its field and no other, and every field's value goes into its bits and no
/// others.
fn check_entry<T: Copy>(from: fn(u64) -> T, into: fn(T) -> u64, fields: &[Codec<T>]) {
    for bit in 0..64 {
        for other in 0..64 {
            let raw = 1 << bit | 1 << other;
            for field in fields {
                let width = field.high - field.low + 1;
                let mask = u64::MAX >> (64 - width);
                let value = raw >> field.low & mask;
                assert_eq!((field.read)(from(raw)), value, "bits {bit} and {other}");
                let rewritten = into((field.write)(from(raw), !value & mask));
                assert_eq!(rewritten, raw ^ mask << field.low, "{}:{}", field.high, field.low);
            }
        }
    }
}

fn low<const N: u32>(value: u64) -> u64 {
    value & (u64::MAX >> (64 - N))
}

#[test]
fn device_entry_bits_match_the_layout() {
    let fields = [
        Codec::<DeviceEntry> {
            high: 4,
            low: 0,
            read: |entry| entry.event_bits_minus_one().into(),
            write: |entry, value| entry.with_event_bits_minus_one(low::<5>(value).to_le_bytes()[0]),
        },
        Codec {
            high: 48,
            low: 5,
            read: |entry| entry.itt_address() >> 8,
            write: |entry, value| entry.with_itt_address(value << 8),
        },
        Codec {
            high: 62,
            low: 49,
            read: |entry| entry.next().into(),
            write: |entry, value| entry.with_next(u16::try_from(low::<14>(value)).unwrap()),
        },
        Codec {
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
        Codec::<TranslationEntry> {
            high: 15,
            low: 0,
            read: |entry| entry.collection().into(),
            write: |entry, value| entry.with_collection(u16::try_from(value).unwrap()),
        },
        Codec {
            high: 47,
            low: 16,
            read: |entry| entry.intid().into(),
            write: |entry, value| entry.with_intid(u32::try_from(value).unwrap()),
        },
        Codec {
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
        Codec::<CollectionEntry> {
            high: 15,
            low: 0,
            read: |entry| entry.collection().into(),
            write: |entry, value| entry.with_collection(u16::try_from(value).unwrap()),
        },
        Codec {
            high: 51,
            low: 16,
            read: |entry| entry.target(),
            write: |entry, value| entry.with_target(value),
        },
        Codec {
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
    fn entries_keep_every_bit(raw: u64) {
        prop_assert_eq!(u64::from(DeviceEntry::from(raw)), raw);
        prop_assert_eq!(u64::from(TranslationEntry::from(raw)), raw);
        prop_assert_eq!(u64::from(CollectionEntry::from(raw)), raw);
    }

    #[test]
    fn an_itt_address_touches_nothing_else(address: u64, raw: u64) {
        let entry = DeviceEntry::from(raw).with_itt_address(address);
        prop_assert_eq!(entry.itt_address(), address & 0xf_ffff_ffff_ff00);
        prop_assert_eq!(entry.with_itt_address(0), DeviceEntry::from(raw).with_itt_address(0));
    }
}
