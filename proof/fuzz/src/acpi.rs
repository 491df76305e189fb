//! ACPI tables with arbitrary contents.

use gic_firmware::acpi::{TableSet, parse};
use gic_firmware::{Description, Rule};

/// Builds a table from a signature and a body. The length and checksum in its header are correct.
pub fn table(signature: [u8; 4], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(36 + body.len()).expect("inputs are small");
    let mut table = Vec::from(signature);
    table.extend(length.to_le_bytes());
    table.extend([6, 0]);
    table.extend(*b"VENDORMACHINE \0\0\0\0FUZZ\0\0\0\0");
    table.extend(body);
    let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    table
}

/// Returns a MADT with a GICv3, one CPU, and ITSes with these IDs.
pub fn madt(its: impl IntoIterator<Item = u32>) -> Vec<u8> {
    let mut body = vec![0; 8];
    let mut gicc = [0; 82];
    (gicc[0], gicc[1], gicc[12]) = (11, 82, 1);
    body.extend(gicc);
    let mut gicd = [0; 24];
    (gicd[0], gicd[1], gicd[20]) = (12, 24, 3);
    body.extend(gicd);
    for id in its {
        body.extend([15, 20, 0, 0]);
        body.extend(id.to_le_bytes());
        body.extend((0x1000_0000 + u64::from(id) * 0x2_0000).to_le_bytes());
        body.extend([0; 4]);
    }
    table(*b"APIC", &body)
}

/// Returns the description of `tables`, which must include a MADT and have correct checksums.
pub fn describe(tables: &[&[u8]]) -> Description {
    let tables = TableSet::from_blobs(tables.iter().copied()).expect("the headers are valid");
    let description = parse(&tables);
    assert!(description.findings.iter().all(|finding| finding.rule != Rule::TableChecksum));
    description
}
