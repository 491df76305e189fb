//! Encoders for tables, which follow the layouts in the specifications.

use gic_firmware::acpi::{TableSet, parse};
use gic_firmware::{Description, Finding, Rule};

/// Encodes a table with its header and a correct checksum.
pub(crate) fn table(signature: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = Vec::from(signature);
    table.extend((36 + word(body.len())).to_le_bytes());
    table.extend([revision(signature), 0]);
    table.extend(*b"VENDOR");
    table.extend(*b"MACHINE ");
    table.extend([0; 12]);
    table.extend(body);
    seal(&mut table);
    table
}

/// Corrects the checksum of a table, which covers the bytes that its header states.
pub(crate) fn seal(table: &mut [u8]) {
    let length = u32::from_le_bytes(table[4..8].try_into().expect("a header")) as usize;
    let covered = length.min(table.len());
    table[9] = 0;
    let sum = table[..covered].iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
}

/// Returns the newest revision of a table.
fn revision(signature: [u8; 4]) -> u8 {
    match &signature {
        b"APIC" => 7,
        b"IORT" => 6,
        _ => 1,
    }
}

/// Converts a count or an offset to a field.
pub(crate) fn word(number: usize) -> u32 {
    u32::try_from(number).expect("tables of tests are small")
}

pub(crate) fn madt(structures: &[Vec<u8>]) -> Vec<u8> {
    table(*b"APIC", &[vec![0; 8], structures.concat()].concat())
}

/// Fields in little-endian order.
#[derive(Clone, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }
    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
}

/// Encodes a GICC of `length` bytes, truncated or padded with zeroes.
pub(crate) fn gicc(length: u8, uid: u32, flags: u32, mpidr: u64, redistributor: u64) -> Vec<u8> {
    let head =
        Bytes::default().u8(11).u8(length).u16(0).u32(uid).u32(uid).u32(flags).u32(0).u32(23);
    let addresses = head.u64(0).u64(0x2c00_0000).u64(0).u64(0).u32(25);
    let mut bytes = addresses.u64(redistributor).u64(mpidr).0;
    bytes.resize(length.into(), 0);
    bytes
}

pub(crate) fn gicd(base: u64, version: u8) -> Vec<u8> {
    Bytes::default().u8(12).u8(24).u16(0).u32(0).u64(base).u32(0).u8(version).u8(0).u16(0).0
}

pub(crate) fn gicr(flags: u8, base: u64, length: u32) -> Vec<u8> {
    Bytes::default().u8(14).u8(16).u8(flags).u8(0).u64(base).u32(length).0
}

pub(crate) fn its(flags: u8, id: u32, base: u64) -> Vec<u8> {
    Bytes::default().u8(15).u8(20).u8(flags).u8(0).u32(id).u64(base).u32(0).0
}

pub(crate) fn msi_frame(id: u32, base: u64, flags: u32, count: u16, first: u16) -> Vec<u8> {
    Bytes::default().u8(13).u8(24).u16(0).u32(id).u64(base).u32(flags).u16(count).u16(first).0
}

pub(crate) fn mcfg(allocations: &[(u64, u16, u8, u8)]) -> Vec<u8> {
    let mut body = vec![0; 8];
    for &(base, segment, first, last) in allocations {
        body.extend(Bytes::default().u64(base).u16(segment).u8(first).u8(last).u32(0).0);
    }
    table(*b"MCFG", &body)
}

/// Fields of a mapping: first input ID, number of IDs minus one, first output ID, target, flags.
pub(crate) type Mapping = [u32; 5];

/// Encodes a node whose mappings follow its contents.
pub(crate) fn node(kind: u8, revision: u8, contents: &[u8], mappings: &[Mapping]) -> Vec<u8> {
    let array = 16 + contents.len();
    let length = word(array + 20 * mappings.len());
    let head = Bytes::default()
        .u8(kind)
        .u16(u16::try_from(length).expect("nodes of tests are small"))
        .u8(revision)
        .u32(0)
        .u32(word(mappings.len()));
    let mut node = head.u32(if mappings.is_empty() { 0 } else { word(array) }).0;
    node.extend(contents);
    node.extend(mappings.iter().flatten().flat_map(|word| word.to_le_bytes()));
    node
}

pub(crate) fn its_group(ids: &[u32]) -> Vec<u8> {
    let mut contents = Bytes::default().u32(word(ids.len()));
    for id in ids {
        contents = contents.u32(*id);
    }
    node(0, 1, &contents.0, &[])
}

pub(crate) fn root_complex(segment: u32, mappings: &[Mapping]) -> Vec<u8> {
    node(2, 3, &Bytes::default().u64(0).u32(0).u32(segment).u32(64).0, mappings)
}

pub(crate) fn named_component(path: &str, mappings: &[Mapping]) -> Vec<u8> {
    let mut contents = Bytes::default().u32(0).u64(0).u8(64).0;
    contents.extend(path.bytes());
    contents.resize((contents.len() + 1).next_multiple_of(4), 0);
    node(1, 2, &contents, mappings)
}

pub(crate) fn smmu_v2(base: u64, mappings: &[Mapping]) -> Vec<u8> {
    let contents = Bytes::default().u64(base).u64(0x1_0000).u32(3).u32(0).u64(0).u64(0).u32(0);
    node(3, 1, &contents.0, mappings)
}

/// Encodes an SMMUv3; `gsiv` is the wired interrupt for all of its events, or 0 if it has none.
pub(crate) fn smmu_v3(
    revision: u8,
    flags: u32,
    gsiv: u32,
    own: u32,
    mappings: &[Mapping],
) -> Vec<u8> {
    let head = Bytes::default().u64(0x4000_0000).u32(flags).u32(0).u64(0).u32(0);
    let wires = head.u32(gsiv).u32(gsiv).u32(gsiv).u32(gsiv);
    node(4, revision, &wires.u32(0).u32(own).0, mappings)
}

pub(crate) fn pmcg(gsiv: u32, mappings: &[Mapping]) -> Vec<u8> {
    node(5, 1, &Bytes::default().u64(0x5000_0000).u32(gsiv).u32(0).u64(0).0, mappings)
}

/// Encodes an IORT of `nodes`.
pub(crate) fn iort(nodes: &[Vec<u8>]) -> Vec<u8> {
    let head = Bytes::default().u32(word(nodes.len())).u32(48).u32(0).0;
    table(*b"IORT", &[head, nodes.concat()].concat())
}

/// Returns the offset of the node after `nodes`.
pub(crate) fn offset(nodes: &[Vec<u8>]) -> u32 {
    48 + word(nodes.concat().len())
}

/// Encodes a GICv3 with two CPUs and the ITSes 0 and 1.
pub(crate) fn usual_madt() -> Vec<u8> {
    madt(&[
        gicc(82, 0, 1, 0, 0),
        gicc(82, 1, 1, 1, 0),
        gicd(0x800_0000, 3),
        gicr(0, 0x80a_0000, 0x4_0000),
        its(0, 0, 0x808_0000),
        its(0, 1, 0x90a_0000),
    ])
}

/// Parses these tables.
pub(crate) fn describe(tables: &[Vec<u8>]) -> Description {
    parse(&TableSet::from_blobs(tables.iter().map(Vec::as_slice)).expect("a MADT is among them"))
}

pub(crate) fn rules(description: &Description) -> Vec<Rule> {
    description.findings.iter().map(|finding: &Finding| finding.rule).collect()
}
