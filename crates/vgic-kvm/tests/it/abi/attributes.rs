//! Tests for attribute and error numbers.

use gic_arch::Affinity;
use gic_arch::icc;
use proptest::prelude::*;
use vgic_kvm::abi::{
    Attribute, Errno, LINE_LEVEL, RedistributorRegion, UnknownGroup, control, frame,
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
