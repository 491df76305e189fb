//! Table entries typed by hand: the architecture's first level (IHI 0069 §5.2), the LPI tables (IHI
//! 0069 §5.1), and KVM's tables of ITS ABI revision 0 (Linux's
//! `Documentation/virt/kvm/devices/arm-vgic-its.rst`).

use gic_arch::its::Level1Entry;
use gic_arch::{Lpi, Priority, lpi};
use vgic_kvm::abi::{CollectionEntry, DeviceEntry, TranslationEntry};

#[test]
fn a_first_level_entry_decodes_as_specified() {
    let entry = Level1Entry::from(0x8000_0000_4321_0000);
    assert!(entry.valid());
    assert_eq!(entry.address(), 0x4321_0000);
}

#[test]
fn a_device_entry_matches_the_kvm_abi() {
    // V, next 3 (bits 62:49), ITT at 0x1_2345_6700 (bits 51:8 in bits 48:5), 5 EventID bits.
    let words: u64 = 1 << 63 | 3 << 49 | (0x1_2345_6700 >> 8) << 5 | 4;
    let entry = DeviceEntry::from(words);
    assert!(entry.valid());
    assert_eq!(
        (entry.next(), entry.itt_address(), entry.event_bits_minus_one()),
        (3, 0x1_2345_6700, 4)
    );
    let built = DeviceEntry::new()
        .with_valid(true)
        .with_next(3)
        .with_itt_address(0x1_2345_6700)
        .with_event_bits_minus_one(4);
    assert_eq!(u64::from(built), words);
}

#[test]
fn a_translation_entry_matches_the_kvm_abi() {
    let entry = TranslationEntry::from(0x0002_0000_2001_0007);
    assert_eq!((entry.next(), entry.intid(), entry.collection()), (2, 0x2001, 7));
}

#[test]
fn a_collection_entry_matches_the_kvm_abi() {
    let entry = CollectionEntry::from(0x8000_0000_0003_0007);
    assert!(entry.valid());
    assert_eq!((entry.target(), entry.collection()), (3, 7));
    // An unmapped collection to which events are mapped has ones in bits 47:16.
    let unmapped = CollectionEntry::from(0x8000_FFFF_FFFF_0007);
    assert_eq!(unmapped.target() & 0xFFFF_FFFF, u64::from(CollectionEntry::UNMAPPED));
}

#[test]
fn an_lpi_configuration_byte_matches_the_specification() {
    let config = lpi::Config::from(0xA3);
    assert!(config.enable());
    assert_eq!(config.priority(), Priority::new(0xA0));
    let built = lpi::Config::new().with_enable(true).with_priority(Priority::new(0xA0));
    assert_eq!(u8::from(built), 0xA3);
}

#[test]
fn lpi_table_sizes_and_offsets_match_the_specification() {
    let lpi = Lpi::try_from(8200u32).unwrap();
    assert_eq!(lpi::config_offset(lpi), 8);
    assert_eq!(lpi::pending_location(lpi), (1025, 0));
    assert_eq!((lpi::config_table_bytes(16), lpi::pending_table_bytes(16)), (57344, 8192));
}
