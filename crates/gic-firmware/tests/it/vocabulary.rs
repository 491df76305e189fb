//! Tests for the contracts of small types.

use gic_arch::IntId;
use gic_firmware::{
    BusRange, Fact, IntIdSpan, IommuIndex, IommuRouting, NodeId, Origin, Region, Rule, StreamEntry,
};
use msi_types::RequesterId;
use proptest::prelude::*;
use std::collections::BTreeSet;

proptest! {
    #[test]
    fn a_region_never_wraps(base in any::<u64>(), size in any::<u64>()) {
        let fits = u128::from(base) + u128::from(size) <= 1 << 64;
        let region = Region::new(base, size);
        prop_assert_eq!(region.is_some(), fits);
        if let Some(last) = region.and_then(Region::last) {
            prop_assert_eq!(u128::from(last) + 1, u128::from(base) + u128::from(size));
        }
    }

    #[test]
    fn a_region_contains_what_lies_between_its_ends(
        base in any::<u64>(),
        size in any::<u64>(),
        at in any::<u64>(),
    ) {
        let Some(region) = Region::new(base, size) else { return Ok(()) };
        let inside = at >= base && u128::from(at) < u128::from(base) + u128::from(size);
        prop_assert_eq!(region.contains(at), inside);
    }

    #[test]
    fn a_span_is_shared_only_if_every_intid_is_an_spi(first in 0..6000u32, count in 0..1200u32) {
        let span = IntIdSpan::new(IntId::new(first), count).expect("it does not wrap");
        let spis = (first..first + count).all(|intid| (32..1020).contains(&intid));
        let extended = (first..first + count).all(|intid| (4096..5120).contains(&intid));
        prop_assert_eq!(span.is_shared(), count > 0 && (spis || extended));
    }
}

#[test]
fn the_first_entry_that_holds_the_masked_id_assigns_the_stream_id() {
    let entry = |rid, length, iommu: Option<usize>, stream_id_base| {
        let (rid_base, iommu) = (RequesterId::new(rid), iommu.map(IommuIndex::new));
        Fact::stated(StreamEntry { rid_base, length, iommu, stream_id_base: Some(stream_id_base) })
    };
    let map = vec![
        entry(0x100, 0x100, Some(1), 0x5000),
        entry(0, 0x1000, Some(0), u32::MAX - 0x20),
        entry(0x2000, 1, None, 0),
        entry(0x1, 0x8000, Some(0), 0),
        entry(0x4000, 1, Some(0), 0),
    ];
    let routing = IommuRouting { mask: Some(Fact::stated(0xfff0)), map };
    let stream = |rid| routing.stream(RequesterId::new(rid));
    assert_eq!(stream(0x12f), Some((IommuIndex::new(1), 0x5020)));
    assert_eq!(stream(0x1f), Some((IommuIndex::new(0), u32::MAX - 0x10)));
    assert_eq!(stream(0x40), None, "past 32 bits");
    assert_eq!(stream(0x2000), None, "a broken reference");
    assert_eq!(stream(0x4000), None, "the mask clears a bit of the entry before");
}

#[test]
fn ecam_size_bounds_the_buses() {
    let buses = |size| BusRange::of_ecam(Region::new(0, size).unwrap());
    assert_eq!(buses(0x1000), BusRange { first: 0, last: 0 });
    assert_eq!(buses(16 << 20), BusRange { first: 0, last: 15 });
    assert_eq!(buses(1 << 28), BusRange::ALL);
    assert_eq!(buses(u64::MAX), BusRange::ALL);
}

#[test]
fn facts_are_equal_regardless_of_origin() {
    let read = Fact::new(7, NodeId::new("/a").origin("reg"));
    assert_eq!(read, Fact::stated(7));
    assert_ne!(read, Fact::new(8, NodeId::new("/a").origin("reg")));
}

#[test]
fn origins_print_their_node_and_property() {
    assert_eq!(NodeId::new("/intc@8000000").origin("reg").to_string(), "/intc@8000000: reg");
    assert_eq!(NodeId::new("/intc@8000000").origin("").to_string(), "/intc@8000000");
    assert_eq!(Origin::program().to_string(), "(stated by the program)");
}

#[test]
fn rules_have_distinct_names_of_lower_case_words() {
    let names: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), Rule::ALL.len());
    let is_word = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    assert!(names.iter().all(is_word));
}
