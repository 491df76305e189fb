//! Tests the rules that tables can violate, each with a faulty machine and a corrected one.

use super::bytes::{
    Bytes, Mapping, describe, gicc, gicd, gicr, iort, its, its_group, madt, mcfg, named_component,
    node, root_complex, seal, smmu_v3, word,
};
use super::convert::as_devicetree;
use gic_firmware::lint::{KnownRegisters, check, compare};
use gic_firmware::{Finding, Rule};
use std::collections::BTreeSet;

/// Offset of the first node of an IORT.
const GROUP: u32 = 48;
/// Mapping of all requesters to the ITS group, with DeviceID = requester ID.
const ALL: Mapping = [0, 0xffff, 0, GROUP, 0];

type TableBlobs = Vec<Vec<u8>>;

fn cpus() -> [Vec<u8>; 4] {
    [gicc(82, 0, 1, 0, 0), gicc(82, 1, 1, 1, 0), gicd(0x800_0000, 3), gicr(0, 0x80a_0000, 0x4_0000)]
}

/// Returns a machine that has `more` in its MADT and these nodes in its IORT.
fn tables(more: &[Vec<u8>], nodes: &[Vec<u8>]) -> TableBlobs {
    let structures = [&cpus(), more].concat();
    vec![madt(&structures), mcfg(&[(0x40_1000_0000, 0, 0, 0xff)]), iort(nodes)]
}

/// Returns a machine with one ITS, an ITS group and `nodes`.
fn with(nodes: &[Vec<u8>]) -> TableBlobs {
    tables(&[its(0, 0, 0x808_0000)], &[&[its_group(&[0])], nodes].concat())
}

fn sound() -> TableBlobs {
    with(&[root_complex(0, &[ALL])])
}

/// Returns a machine with these structures in its MADT and one root complex.
fn of(structures: &[Vec<u8>]) -> TableBlobs {
    let nodes = [its_group(&[0]), root_complex(0, &[ALL])];
    vec![madt(structures), mcfg(&[(0x40_1000_0000, 0, 0, 0xff)]), iort(&nodes)]
}

fn limited(bits: u32) -> TableBlobs {
    let complex = node(2, 3, &Bytes::default().u64(0).u32(0).u32(0).u32(bits).0, &[ALL]);
    tables(&[its(0, 0, 0x40_0808_0000)], &[its_group(&[0]), complex])
}

fn with_smmu(flags: u32) -> TableBlobs {
    let own = [0, 0, 0x2_0000, GROUP, flags];
    with(&[root_complex(0, &[ALL]), smmu_v3(3, 0, 0, 0, &[own])])
}

fn with_redistributor(base: u64) -> TableBlobs {
    let [first, _, distributor, region] = cpus();
    let second = gicc(82, 1, 1, 1, base);
    of(&[first, second, distributor, region, its(0, 0, 0x808_0000)])
}

fn with_distributor() -> TableBlobs {
    tables(
        &[its(0, 0, 0x808_0000), gicd(0x900_0000, 3)],
        &[its_group(&[0]), root_complex(0, &[ALL])],
    )
}

fn with_cpu(cpu: Vec<u8>) -> TableBlobs {
    let [first, _, distributor, region] = cpus();
    of(&[first, cpu, distributor, region, its(0, 0, 0x808_0000)])
}

fn checksum(by: u8) -> TableBlobs {
    let mut tables = sound();
    tables[0][9] = tables[0][9].wrapping_add(by);
    tables
}

fn ranges(first_count: u32) -> TableBlobs {
    let ranges = [[0, first_count, 0, GROUP, 0], [0x100, 0xfeff, 0x100, GROUP, 0]];
    with(&[root_complex(0, &ranges)])
}

fn two_its(second: u32) -> TableBlobs {
    let more = [its(0, 0, 0x808_0000), its(0, second, 0x810_0000)];
    tables(&more, &[its_group(&[0]), root_complex(0, &[ALL])])
}

/// Offset of a node after the ITS group.
const SMMU: u32 = GROUP + 24;

/// Returns the tables with `bytes` written to one of them and its checksum corrected.
fn changed(mut tables: TableBlobs, table: usize, at: usize, bytes: &[u8]) -> TableBlobs {
    let table = &mut tables[table];
    table[at..at + bytes.len()].copy_from_slice(bytes);
    seal(table);
    tables
}

fn shortened(by: u32) -> TableBlobs {
    let length = word(sound()[0].len()) - by;
    changed(sound(), 0, 4, &length.to_le_bytes())
}

fn with_allocation_of_zeros() -> TableBlobs {
    let mut tables = sound();
    tables[1] = mcfg(&[(0x40_1000_0000, 0, 0, 0xff), (0, 0, 0, 0)]);
    tables
}

fn counted(nodes: u32) -> TableBlobs {
    changed(sound(), 2, 36, &nodes.to_le_bytes())
}

fn of_revision(revision: u8, bits: u32) -> TableBlobs {
    let complex = Bytes::default().u64(0).u32(0).u32(0).u32(bits).0;
    with(&[node(2, revision, &complex, &[ALL])])
}

fn with_version(version: u8) -> TableBlobs {
    let [first, second, _, region] = cpus();
    of(&[first, second, gicd(0x800_0000, version), region, its(0, 0, 0x808_0000)])
}

fn with_flags(flags: u32) -> TableBlobs {
    let [_, _, distributor, region] = cpus();
    let cpus = [gicc(82, 0, flags, 0, 0), gicc(82, 1, flags, 1, 0)];
    of(&[&cpus[..], &[distributor, region, its(0, 0, 0x808_0000)]].concat())
}

/// Returns a machine whose CPUs have these VGIC maintenance interrupts.
fn maintained(first: u32, second: u32) -> TableBlobs {
    let [mut one, mut two, distributor, region] = cpus();
    one[56..60].copy_from_slice(&first.to_le_bytes());
    two[56..60].copy_from_slice(&second.to_le_bytes());
    of(&[one, two, distributor, region, its(0, 0, 0x808_0000)])
}

fn of_segment(segment: u32) -> TableBlobs {
    with(&[root_complex(segment, &[ALL])])
}

/// Returns a machine whose root complex sends through an SMMU with these mappings.
fn through(mappings: &[Mapping]) -> TableBlobs {
    with(&[smmu_v3(3, 0, 74, 0, mappings), root_complex(0, &[[0, 0xffff, 0, SMMU, 0]])])
}

fn own_index(index: u32) -> TableBlobs {
    let mappings = [ALL, [0, 0, 0x2_0000, GROUP, 1]];
    with(&[smmu_v3(3, 0, 0, index, &mappings), root_complex(0, &[[0, 0xffff, 0, SMMU, 0]])])
}

fn component(path: &str) -> TableBlobs {
    with(&[named_component(path, &[[0, 0, 0x2_0000, GROUP, 1]]), root_complex(0, &[ALL])])
}

/// Returns a machine that reserves memory at `base` for a StreamID of `target`.
fn reserved(base: u64, target: u32) -> TableBlobs {
    let head = Bytes::default().u32(0).u32(1).u32(28);
    let contents = head.u64(base).u64(0x2_0000).u32(0).0;
    let rmr = node(6, 3, &contents, &[[0, 0, 0x4000, target, 1]]);
    with(&[smmu_v3(3, 0, 74, 0, &[ALL]), rmr, root_complex(0, &[[0, 0xffff, 0, SMMU, 0]])])
}

/// Returns a machine with a named component that has this StreamID.
fn behind(stream: u32) -> TableBlobs {
    let component = named_component("\\_SB.DMA0", &[[0, 0, stream, SMMU, 1]]);
    let smmu = smmu_v3(3, 0, 74, 0, &[[0, 0x2_ffff, 0, GROUP, 0]]);
    with(&[smmu, component, root_complex(0, &[ALL])])
}

/// Returns cases as (rule, fault, fix).
fn cases() -> Vec<(Rule, TableBlobs, TableBlobs)> {
    let complex = |target| with(&[root_complex(0, &[[0, 0xffff, 0, target, 0]])]);
    let group = |its: u32| {
        let nodes = [its_group(&[its]), root_complex(0, &[ALL])];
        tables(&[super::bytes::its(0, 0, 0x808_0000)], &nodes)
    };
    let many: Vec<_> = (0..300).map(|uid| gicc(82, uid, 1, 0, 0)).collect();
    vec![
        (Rule::TableChecksum, checksum(1), checksum(0)),
        (Rule::MalformedTable, with_cpu(gicc(75, 1, 1, 1, 0)), with_cpu(gicc(82, 1, 1, 1, 0))),
        (Rule::DuplicateId, two_its(0), two_its(1)),
        (Rule::IortReference, complex(0xdead), complex(GROUP)),
        (Rule::UnknownIts, group(7), group(0)),
        (Rule::IdCount, ranges(0x100), ranges(0xff)),
        (Rule::SingleMapping, with_smmu(0), with_smmu(1)),
        (Rule::OtherGicVersion, vec![madt(&[vec![28, 4, 0, 0]])], sound()),
        (Rule::GiccRedistributor, with_redistributor(0x900_0000), with_redistributor(0)),
        (Rule::AddressSizeLimit, limited(32), limited(48)),
        (Rule::SeveralDistributors, with_distributor(), sound()),
        (Rule::TableLength, shortened(20), shortened(0)),
        (Rule::IortNodeCount, counted(1), counted(2)),
        (Rule::UnknownRevision, of_revision(40, 64), of_revision(3, 64)),
        (Rule::OldRevision, of_revision(0, 40), of_revision(1, 40)),
        (Rule::UnusedField, with_allocation_of_zeros(), sound()),
        (Rule::GicdVersion, with_version(2), with_version(3)),
        (Rule::NoUsableCpu, with_flags(0), with_flags(1)),
        (Rule::GiccMismatch, maintained(25, 0), maintained(25, 25)),
        (Rule::GsivClass, maintained(9, 9), maintained(25, 25)),
        (Rule::SharedGsiv, maintained(23, 23), maintained(25, 25)),
        (Rule::UnknownSegment, of_segment(1), of_segment(0)),
        (Rule::ComponentWithoutIts, behind(0x3_0000), behind(0x2_0000)),
        (Rule::SmmuWithoutIts, through(&[]), through(&[ALL])),
        (Rule::UnmappedStream, through(&[[0, 0xfffe, 0, GROUP, 0]]), through(&[ALL])),
        (Rule::SmmuWithoutInterrupts, own_index(5), own_index(1)),
        (Rule::ComponentPath, component("\\_SB.dma0"), component("\\_SB.DMA0")),
        (Rule::RmrRange, reserved(0x8a00_1000, SMMU), reserved(0x8a00_0000, SMMU)),
        (Rule::RmrTarget, reserved(0x8a00_0000, GROUP), reserved(0x8a00_0000, SMMU)),
        (Rule::TooManyFindings, of(&many), sound()),
    ]
}

/// Returns each rule about contradictions, with the tables of a machine that contradicts the
/// correct machine.
fn contradictions() -> Vec<(Rule, TableBlobs)> {
    let [first, second, _, region] = cpus();
    let its_0 = its(0, 0, 0x808_0000);
    let gic = |base: u64, gicr_flags: u8, its_flags: u8| {
        let (region, its) = (gicr(gicr_flags, 0x80a_0000, 0x4_0000), its(its_flags, 0, 0x808_0000));
        of(&[first.clone(), second.clone(), gicd(base, 3), region, its])
    };
    vec![
        (Rule::ContradictingCpus, of(&[first.clone(), gicd(0x800_0000, 3), region, its_0])),
        (Rule::ContradictingGic, gic(0x900_0000, 0, 0)),
        (Rule::ContradictingGic, gic(0x800_0000, 1, 0)),
        (Rule::ContradictingControllers, gic(0x800_0000, 0, 1)),
        (Rule::ContradictingControllers, two_its(1)),
        (Rule::ContradictingRoutes, with(&[root_complex(0, &[[0, 0xffff, 0x1_0000, GROUP, 0]])])),
    ]
}

fn findings(tables: &[Vec<u8>]) -> Vec<Finding> {
    check(&describe(tables), &KnownRegisters::default())
}

fn rules(findings: &[Finding]) -> BTreeSet<Rule> {
    findings.iter().map(|finding| finding.rule).collect()
}

#[test]
fn each_faulty_table_example_is_reported() {
    for (rule, fault, _) in cases() {
        let found = findings(&fault);
        assert!(rules(&found).contains(&rule), "{rule}: {found:#?}");
    }
}

#[test]
fn each_fixed_table_example_has_no_findings() {
    for (rule, _, mend) in cases() {
        assert_eq!(findings(&mend), [], "{rule}");
    }
}

#[test]
fn each_contradiction_with_the_devicetree_breaks_exactly_one_rule() {
    let tree = as_devicetree(&describe(&sound()));
    for (rule, tables) in contradictions() {
        let machine = describe(&tables);
        assert_eq!(findings(&tables), [], "{rule}");
        let found = compare(&tree, &machine);
        assert_eq!(rules(&found), BTreeSet::from([rule]), "{found:#?}");
    }
}

#[test]
fn devicetree_and_acpi_of_one_machine_agree() {
    let machine = describe(&sound());
    let tree = as_devicetree(&machine);
    assert_eq!(compare(&tree, &machine), []);
    assert_eq!(compare(&machine, &tree), []);
}

#[test]
fn each_rule_has_either_an_acpi_case_or_a_devicetree_example() {
    let mut tried: BTreeSet<Rule> = cases().into_iter().map(|(rule, ..)| rule).collect();
    tried.extend(contradictions().into_iter().map(|(rule, _)| rule));
    for rule in Rule::ALL {
        let in_devicetree = rule.explanation().contains("```dts");
        assert!(in_devicetree != tried.contains(rule), "{rule}");
    }
}

#[test]
fn an_iommu_on_the_path_lifts_the_address_size_limit() {
    let limit = Bytes::default().u64(0).u32(0).u32(0).u32(32).0;
    let smmu = GROUP + 24;
    let nodes = [
        its_group(&[0]),
        smmu_v3(3, 0, 74, 0, &[ALL]),
        node(2, 3, &limit, &[[0, 0xffff, 0, smmu, 0]]),
    ];
    assert_eq!(findings(&tables(&[its(0, 0, 0x40_0808_0000)], &nodes)), []);
}

#[test]
fn ranges_of_one_complex_may_not_overlap() {
    let ranges = [[0, 0xfffe, 0, GROUP, 0], [0x100, 0xff, 0x2_0000, GROUP, 0]];
    let found = findings(&with(&[root_complex(0, &ranges)]));
    assert!(rules(&found).contains(&Rule::MapOverlap), "{found:#?}");
}

#[test]
fn enabled_cpus_without_a_gicr_base_are_reported_if_others_have_one() {
    let cpus = [gicc(82, 0, 1, 0, 0x80a_0000), gicc(82, 1, 1, 1, 0), gicc(82, 2, 0, 2, 0)];
    let found = describe(&[madt(&[cpus.as_slice(), &[gicd(0x800_0000, 3)]].concat())]).findings;
    let places: Vec<_> = found.iter().map(|finding| finding.origin.to_string()).collect();
    assert_eq!(places, ["MADT+0x7e: GICR base address"]);
}
