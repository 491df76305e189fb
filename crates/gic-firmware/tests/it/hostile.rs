//! Reads hostile input. The reader must return a description or an error within bounded time.

use gic_firmware::devicetree::{DtbErrorKind, MAX_DEPTH, cpu_clusters, excerpts, parse};
use gic_firmware::lint::{KnownRegisters, check, compare};
use msi_types::RequesterId;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

const BLOBS: &[&[u8]] = &[
    include_bytes!("../data/disabled.dtb"),
    include_bytes!("../data/gicv2m.dtb"),
    include_bytes!("../data/mbi.dtb"),
    include_bytes!("../data/mistakes.dtb"),
    include_bytes!("../data/msi-map.dtb"),
    include_bytes!("../data/msi-parent.dtb"),
    include_bytes!("../data/pre-its.dtb"),
    include_bytes!("../data/redistributors.dtb"),
    include_bytes!("../data/several-its.dtb"),
    include_bytes!("../data/single-its.dtb"),
    include_bytes!("../data/wired.dtb"),
];

/// Reads `blob`, and calls every function of its description.
fn exercise(blob: &[u8]) {
    let Ok(machine) = parse(blob) else { return };
    for controller in &machine.controllers {
        let _ = (machine.doorbells(controller), controller.device_id_bits());
        for range in &controller.ranges {
            let _ = range.last();
        }
    }
    for host in &machine.hosts {
        machine.host_spans(host).for_each(drop);
        for rid in [0, 0x100, 0xffff, u32::MAX] {
            let _ = machine.route(host, RequesterId::new(rid));
        }
    }
    for device in &machine.devices {
        let _ = (machine.device_spans(device), machine.platform_routes(device));
    }
    for finding in check(&machine, &registers()) {
        let _ = finding.to_string();
    }
    let _ = (compare(&machine, &machine), cpu_clusters(blob));
    let controllers = machine.controllers.iter().map(|controller| controller.id.as_str());
    for excerpt in excerpts(blob, &controllers.collect()).unwrap_or_default().values() {
        let _ = &excerpt.text[excerpt.place("reg")];
    }
}

/// Returns a blob with this structure block and these strings.
fn blob(structure: &[u32], strings: &[u8]) -> Vec<u8> {
    let structure: Vec<u8> = structure.iter().flat_map(|cell| cell.to_be_bytes()).collect();
    let structure_size = u32::try_from(structure.len()).expect("a test's blob is small");
    let strings_size = u32::try_from(strings.len()).expect("a test's blob is small");
    let strings_at = 56 + structure_size;
    let total = strings_at + strings_size;
    let header = [0xd00d_feed, total, 56, strings_at, 40, 17, 16, 0, strings_size, structure_size];
    let header = header.iter().flat_map(|cell: &u32| cell.to_be_bytes());
    header.chain([0; 16]).chain(structure).chain(strings.iter().copied()).collect()
}

const BEGIN: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;
/// Node name of one letter, padded to a whole number of cells.
const A: u32 = 0x6100_0000;

/// Returns values for every register that a rule reads.
fn registers() -> KnownRegisters {
    KnownRegisters { gicd_typer: Some(0), gicr_typer: vec![0], ..KnownRegisters::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn parsing_a_blob_with_changed_bytes_never_panics(
        which in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>()), 1..16),
    ) {
        let mut blob = which.get(BLOBS).to_vec();
        for (at, byte) in changes {
            *at.get_mut(&mut blob) = byte;
        }
        exercise(&blob);
    }

    #[test]
    fn parsing_a_blob_with_changed_cells_never_panics(
        which in any::<Index>(),
        changes in vec((any::<Index>(), prop_oneof![0..16u32, any::<u32>(), Just(u32::MAX)]), 1..8),
    ) {
        let mut blob = which.get(BLOBS).to_vec();
        for (at, cell) in changes {
            let cells = blob.len() / 4;
            let at = at.index(cells) * 4;
            blob[at..at + 4].copy_from_slice(&cell.to_be_bytes());
        }
        exercise(&blob);
    }

    #[test]
    fn parsing_any_token_stream_never_panics(tokens in vec(prop_oneof![
        4 => prop_oneof![Just(BEGIN), Just(END_NODE), Just(PROP), Just(NOP), Just(END)],
        1 => Just(0), 1 => Just(A), 1 => 0..8u32, 1 => any::<u32>(),
    ], 0..64)) {
        let mut structure = vec![BEGIN, 0];
        structure.extend(tokens);
        exercise(&blob(&structure, b"reg\0compatible\0"));
    }

    #[test]
    fn a_blob_without_the_magic_is_an_error(bytes in vec(any::<u8>(), 0..256)) {
        prop_assume!(!bytes.starts_with(&[0xd0, 0x0d, 0xfe, 0xed]));
        prop_assert!(parse(&bytes).is_err());
    }
}

#[test]
fn every_truncation_is_an_error() {
    for blob in BLOBS {
        for length in 0..blob.len() {
            assert!(parse(&blob[..length]).is_err(), "{length} of {} bytes", blob.len());
        }
    }
}

#[test]
fn bytes_after_the_blob_are_ignored() {
    let mut longer = BLOBS[9].to_vec();
    longer.extend([0xff; 100]);
    assert_eq!(parse(&longer), parse(BLOBS[9]));
}

#[test]
fn a_dtb_error_states_its_offset() {
    let bad_token = blob(&[BEGIN, 0, 7], b"");
    let error = parse(&bad_token).unwrap_err();
    assert_eq!((error.offset, error.kind), (64, DtbErrorKind::Token(7)));
    assert_eq!(error.to_string(), "byte 0x40: 0x7 is not a token that is allowed here");
}

#[test]
fn a_property_after_a_subnode_is_an_error() {
    let late = blob(&[BEGIN, 0, BEGIN, A, END_NODE, PROP, 0, 0, END_NODE, END], b"reg\0");
    assert_eq!(parse(&late).unwrap_err().kind, DtbErrorKind::Token(PROP));
}

#[test]
fn a_property_name_beyond_the_strings_block_is_an_error() {
    let outside = blob(&[BEGIN, 0, PROP, 0, 4, END_NODE, END], b"reg\0");
    assert_eq!(parse(&outside).unwrap_err().kind, DtbErrorKind::Name);
}

#[test]
fn a_property_longer_than_the_structure_block_is_an_error() {
    let long = blob(&[BEGIN, 0, PROP, 0x1000, 0, END_NODE, END], b"reg\0");
    assert_eq!(parse(&long).unwrap_err().kind, DtbErrorKind::Property(0x1000));
}

#[test]
fn a_node_path_longer_than_a_kilobyte_is_an_error() {
    let nested = |nodes: usize| {
        let mut structure = vec![BEGIN, 0];
        for _ in 0..nodes {
            structure.push(BEGIN);
            structure.extend([0x6161_6161; 50]);
            structure.push(0);
        }
        structure.extend([END_NODE].repeat(nodes + 1));
        structure.push(END);
        blob(&structure, b"")
    };
    assert!(parse(&nested(5)).is_ok());
    assert_eq!(parse(&nested(6)).unwrap_err().kind, DtbErrorKind::Path);
}

#[test]
fn nodes_nested_deeper_than_linux_allows_are_an_error() {
    let nested = |depth: usize| {
        let mut structure = vec![BEGIN, 0];
        structure.extend([BEGIN, A].repeat(depth - 1));
        structure.extend([END_NODE].repeat(depth));
        structure.push(END);
        blob(&structure, b"")
    };
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(parse(&nested(MAX_DEPTH + 1)).unwrap_err().kind, DtbErrorKind::Depth);
    assert_eq!(parse(&nested(1_000_000)).unwrap_err().kind, DtbErrorKind::Depth);
}

#[test]
fn overlong_names_are_read() {
    let mut structure = vec![BEGIN, 0, PROP, 0, 0, BEGIN];
    structure.extend([0x6161_6161; 10]);
    structure.extend([0, END_NODE, END_NODE, END]);
    assert!(parse(&blob(&structure, b"snps,dis-tx-ipgap-linecheck-quirk\0")).is_ok());
}

/// Returns the CPU time that the calling thread has used. Unlike wall-clock time, this time does
/// not grow while other programs use the processor.
fn executed() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread's time is positive")
}

/// Asserts that a megabyte of the most expensive input per byte takes far less work than a
/// quadratic reader would need.
fn assert_soon(what: &str, blob: &[u8]) {
    let before = executed();
    exercise(blob);
    let time = executed().saturating_sub(before);
    assert!(time < Duration::from_secs(5), "{what}: {time:?} for {} bytes", blob.len());
}

#[test]
fn parsing_deep_siblings_is_time_bounded() {
    let mut structure = vec![BEGIN, 0];
    structure.extend([BEGIN, A].repeat(MAX_DEPTH - 2));
    structure.extend([BEGIN, A, END_NODE].repeat(80_000));
    structure.extend([END_NODE].repeat(MAX_DEPTH - 1));
    structure.push(END);
    let wide = blob(&structure, b"");
    assert!(parse(&wide).is_ok());
    assert_soon("siblings", &wide);
}

#[test]
fn parsing_many_properties_of_a_node_is_time_bounded() {
    let mut structure = vec![BEGIN, 0];
    structure.extend([PROP, 0, 0].repeat(80_000));
    structure.extend([END_NODE, END]);
    let long = blob(&structure, &[&[b'a'; 254][..], &[0]].concat());
    assert!(parse(&long).is_ok());
    assert_soon("properties", &long);
}

#[test]
fn parsing_overlapping_map_entries_is_time_bounded() {
    let count = 60_000;
    // The host itself is the target, and states the number of cells in a specifier.
    for cells in [0, 1, 2, 16] {
        let words = 3 + cells;
        let mut structure = vec![BEGIN, 0, BEGIN, A, PROP, 4, 0, 0x7063_6900];
        structure.extend([PROP, 4, 20, 1, PROP, 4, 28, cells, PROP, count * words * 4, 12]);
        for first in 0..count {
            structure.extend([first / 2, 1]);
            structure.extend((0..cells).map(|_| first));
            structure.push(0x1_0000);
        }
        structure.extend([END_NODE, END_NODE, END]);
        let map = blob(&structure, b"device_type\0msi-map\0phandle\0#msi-cells\0");
        let machine = parse(&map).expect("the skeleton is well-formed");
        assert_eq!(machine.hosts[0].msi.map.as_ref().map(Vec::len), Some(60_000));
        assert_soon("map entries", &map);
    }
}

#[test]
fn the_number_of_findings_is_bounded() {
    // Nodes with `msi-parent = <0xdead>`.
    let mut structure = vec![BEGIN, 0];
    for number in 0..40_000u32 {
        let name = u32::from_be_bytes(*b"a\0\0\0") | ((number % 26 + 97) << 16);
        structure.extend([BEGIN, name, PROP, 4, 0, 0xdead ^ number, END_NODE]);
    }
    structure.extend([END_NODE, END]);
    let faulty = blob(&structure, b"msi-parent\0");
    let machine = parse(&faulty).expect("the skeleton is well-formed");
    assert_eq!(machine.findings.len(), 257);
    assert_eq!(machine.findings.last().unwrap().rule.name(), "too-many-findings");
    assert_soon("mistakes", &faulty);
}

#[test]
fn translating_many_regions_by_many_ranges_is_bounded() {
    // A bus with 40 000 ranges, the last of which contains the addresses of 10 000 memory nodes.
    let ranges = 40_000;
    let mut structure = vec![BEGIN, 0, BEGIN, A, PROP, ranges * 12, 0];
    structure.extend([0, 0, 1].repeat(ranges as usize - 1));
    structure.extend([0, 0, 100]);
    for _ in 0..10_000 {
        structure.extend([
            BEGIN,
            A,
            PROP,
            7,
            7,
            0x6d65_6d6f,
            0x7279_0000,
            PROP,
            8,
            19,
            5,
            5,
            END_NODE,
        ]);
    }
    structure.extend([END_NODE, END_NODE, END]);
    let product = blob(&structure, b"ranges\0device_type\0reg\0");
    let read = parse(&product).expect("the skeleton is well-formed").memory.len();
    assert!((1..1_000).contains(&read), "{read} nodes were translated");
    assert_soon("ranges", &product);
}

#[test]
fn parsing_many_nodes_and_properties_is_time_bounded() {
    let mut structure = vec![BEGIN, 0];
    structure.extend([PROP, 0, 0].repeat(40_000));
    for _ in 0..10_000 {
        structure.extend([
            BEGIN,
            A,
            PROP,
            7,
            2,
            0x6d65_6d6f,
            0x7279_0000,
            PROP,
            8,
            14,
            5,
            5,
            END_NODE,
        ]);
    }
    structure.extend([END_NODE, END]);
    let wide = blob(&structure, b"a\0device_type\0reg\0");
    assert_eq!(parse(&wide).expect("the skeleton is well-formed").memory.len(), 10_000);
    assert_soon("properties above", &wide);
}
