//! Fields of ACPI tables. A field is named by its structure, its offset and its size in bytes, such
//! as `GICC+12:4`.

use super::bytes::{
    Bytes, gicc, gicd, gicr, iort, its, its_group, madt, mcfg, msi_frame, named_component, node,
    offset, pmcg, root_complex, seal, smmu_v2, smmu_v3,
};
use super::{Table, expect_listed, judged, listed};
use gic_firmware::acpi::{TableSet, parse};
use std::ops::Range;

/// Length in bytes of a table's header.
const HEADER: usize = 36;

/// A part of a table: its name, and its place.
type Part = (&'static str, Range<usize>);

/// Adds the parts of structures that follow each other. The first bytes of each are a part of their
/// own: its name, and its length.
fn add(
    parts: &mut Vec<Part>,
    common: (&'static str, usize),
    structures: &[(&'static str, Vec<u8>)],
) {
    let (common, head) = common;
    for (name, structure) in structures {
        let start = parts.last().map_or(HEADER, |(_, last)| last.end);
        parts.push((common, start..start + head));
        let own = match common {
            "node" if structure[8] > 0 => usize::from(structure[12]),
            _ => structure.len(),
        };
        parts.push((name, start + head..start + own));
        for mapping in (own..structure.len()).step_by(20) {
            parts.push(("ID mapping", start + mapping..start + mapping + 20));
        }
    }
}

/// Returns the tables of a machine with each kind of structure, and their parts.
fn machine() -> [(Vec<u8>, Vec<Part>); 3] {
    let structures = [
        ("GICC", gicc(82, 0, 1, 0, 0)),
        ("GICC", gicc(82, 1, 1, 1, 0)),
        ("GICD", gicd(0x800_0000, 3)),
        ("GIC MSI frame", msi_frame(0, 0x902_0000, 1, 32, 64)),
        ("GICR", gicr(0, 0x80a_0000, 0x4_0000)),
        ("ITS", its(0, 0, 0x808_0000)),
    ];
    let group = its_group(&[0]);
    let (at_group, at_smmu) = (offset(&[]), offset(std::slice::from_ref(&group)));
    let range = Bytes::default().u32(0).u32(1).u32(28).u64(0x9000_0000).u64(0x2_0000).u32(0).0;
    let smmu = [[0, 0xffff, 0, at_group, 0], [0, 0, 0x3_0000, at_group, 1]];
    let mut nodes = [
        ("ITS group", group),
        ("SMMUv3", smmu_v3(3, 0, 74, 1, &smmu)),
        ("SMMUv2", smmu_v2(0x6000_0000, &[[0, 0xffff, 0x4_0000, at_group, 0]])),
        ("root complex", root_complex(0, &[[0, 0xffff, 0, at_smmu, 0]])),
        ("named component", named_component("\\_SB_.DMA0", &[[0, 0, 0x2_0000, at_group, 1]])),
        ("PMCG", pmcg(0, &[[0, 0, 0x5_0000, at_group, 1]])),
        ("RMR", node(6, 3, &range, &[[0, 0, 0x2_0001, at_smmu, 1]])),
    ];
    for ((_, node), identifier) in nodes.iter_mut().zip(16..) {
        node[4] = identifier;
    }
    let head = |name, end| vec![("table", 0..HEADER), (name, HEADER..end)];
    let mut parts = [head("MADT", 44), head("IORT", 48), head("MCFG", 44)];
    add(&mut parts[0], ("structure", 2), &structures);
    add(&mut parts[1], ("node", 16), &nodes);
    parts[2].extend([("allocation", 44..60), ("allocation", 60..76)]);
    let tables = [
        madt(&structures.map(|(_, bytes)| bytes)),
        iort(&nodes.map(|(_, bytes)| bytes)),
        mcfg(&[(0x40_1000_0000, 0, 0x20, 0x3f), (0x50_1000_0000, 0, 0x40, 0x7f)]),
    ];
    let mut parts = parts.into_iter();
    tables.map(|table| (table, parts.next().expect("the parts of a table")))
}

#[test]
fn documentation_lists_every_field_the_parser_reads_with_its_rules() {
    const HEADING: &str = "Fields of ACPI tables";
    let machine = machine();
    let tables = machine.clone().map(|(bytes, _)| bytes);
    let describe = |tables: &[Vec<u8>; 3]| {
        TableSet::from_blobs(tables.iter().map(Vec::as_slice)).map(|set| judged(parse(&set)))
    };
    let whole = describe(&tables);
    let of_whole = &whole.as_ref().expect("a MADT").1;
    let listed = listed(HEADING);
    let mut read = Table::new();
    for (table, (_, parts)) in machine.iter().enumerate() {
        for (name, place) in parts {
            for at in place.clone() {
                let field = field(&listed, name, at - place.start + start(name));
                for change in [0x01, 0x10, 0x80, 0xff] {
                    let mut changed = tables.clone();
                    changed[table][at] ^= change;
                    if (*name, at) != ("table", 9) {
                        seal(&mut changed[table]);
                    }
                    let described = describe(&changed);
                    if described == whole {
                        continue;
                    }
                    let findings = described.iter().flat_map(|(_, findings)| findings);
                    let new = findings.filter(|finding| !of_whole.contains(finding));
                    read.entry(field.clone()).or_default().extend(new.map(|it| it.rule.name()));
                }
            }
        }
    }
    expect_listed(HEADING, &read);
}

/// Returns the offset in its structure at which a part begins.
fn start(name: &str) -> usize {
    match name {
        "MADT" | "IORT" | "MCFG" => HEADER,
        "GICC" | "GICD" | "GIC MSI frame" | "GICR" | "ITS" => 2,
        "table" | "structure" | "node" | "ID mapping" | "allocation" => 0,
        _ => 16,
    }
}

/// Returns the listed field that contains a byte, or else a name for the byte.
fn field(listed: &Table, name: &str, at: usize) -> String {
    let contains = |field: &&String| {
        let (of, place) = field.split_once('+').expect("an offset");
        let (first, size) = place.split_once(':').expect("a size");
        let number = |text: &str| text.parse::<usize>().expect("a number");
        of == name && (number(first)..number(first) + number(size)).contains(&at)
    };
    listed.keys().find(contains).cloned().unwrap_or_else(|| format!("{name}+{at}:1"))
}
