//! Plants mistakes that firmware authors make in sound tables, and compares the rules that find
//! them. Each mistake has one cause, so only the rules for that cause may report it.

use super::bytes::{
    Mapping, describe, gicd, its, msi_frame, named_component, offset, pmcg, root_complex, seal,
    smmu_v3, word,
};
use super::machine::{
    AT_GROUP, AT_SMMU, COMPLEX, COMPLEX_MAPPINGS, COMPONENT, COUNTERS, CPU, GICD, GICR, GROUP, ITS,
    Machine, OTHER_COMPLEX, RMR, SMMU, SMMU_MAPPINGS, plant, planted, sound,
};
use gic_firmware::lint::{KnownRegisters, check};
use gic_firmware::{Finding, Rule};
use std::path::Path;
use std::{env, fs};

fn findings(tables: &[Vec<u8>]) -> Vec<Finding> {
    check(&describe(tables), &KnownRegisters::default())
}

/// A mistake's name, the tables that have it, and the rules that find it.
pub(super) type Fault<'f> = (&'f str, Vec<Vec<u8>>, &'f [Rule]);

/// Checks that each machine has findings of these rules, and no others.
fn expect(cases: Vec<(&str, Machine, &[Rule])>) {
    let cases = cases.into_iter().map(|(name, machine, rules)| (name, machine.tables(), rules));
    expect_tables(cases.collect());
}

pub(super) fn expect_tables(cases: Vec<Fault<'_>>) {
    let mut wrong = Vec::new();
    for (name, tables, expected) in cases {
        let found = findings(&tables);
        let rules: Vec<Rule> = found.iter().map(|finding| finding.rule).collect();
        if rules != expected {
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            wrong.push(format!("{name}: expected {expected:?}\n  {}", found.join("\n  ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sound_tables_have_no_findings() {
    assert_eq!(findings(&sound().tables()), []);
}

#[test]
fn gicc_mistakes_are_reported() {
    expect(vec![
        ("UID twice", sound().structure(1, 8, &[0]), &[Rule::DuplicateId]),
        ("MPIDR twice", sound().structure(1, 68, &[0]), &[Rule::DuplicateAffinity]),
        ("MPIDR with bit 31", sound().structure(1, 71, &[0x80]), &[Rule::MalformedProperty]),
        ("all disabled", sound().each_cpu(12, &[0]), &[Rule::NoUsableCpu]),
        ("all online capable alone", sound().each_cpu(12, &[8]), &[Rule::NoUsableCpu]),
        ("enabled and online capable", sound().each_cpu(12, &[9]), &[Rule::MalformedProperty]),
        (
            "redistributor beyond",
            sound().structure(1, 60, &[0, 0, 0, 9]),
            &[Rule::GiccRedistributor],
        ),
        ("SGI frame", sound().structure(1, 60, &[0, 0, 0xb, 8]), &[Rule::GiccRedistributor]),
        ("RD-N2: interface is the GICD", sound().each_cpu(32, &[0, 0, 0, 8]), {
            &[Rule::UnusedInterfaceOverlap]
        }),
        (
            "length of ACPI 5.0",
            sound().structure(3, 1, &[40]),
            &[Rule::MalformedTable, Rule::MissingProperty],
        ),
    ]);
}

#[test]
fn gicc_interrupts_must_be_ppis() {
    expect(vec![
        ("PPI number 9", sound().each_cpu(56, &[9]), &[Rule::GsivClass]),
        ("maintenance SPI", sound().each_cpu(56, &[41]), &[Rule::GsivClass]),
        ("performance PPI number 7", sound().each_cpu(20, &[7]), &[Rule::GsivClass]),
        ("performance is maintenance", sound().each_cpu(20, &[25]), &[Rule::SharedGsiv]),
        ("maintenance of one CPU", sound().structure(2, 56, &[24]), &[Rule::GiccMismatch]),
        ("trigger of one CPU", sound().structure(2, 12, &[5]), &[Rule::GiccMismatch]),
        (
            "maintenance of a CPU that is online capable",
            sound().structure(2, 12, &[8]).structure(2, 56, &[24]),
            &[Rule::GiccMismatch],
        ),
        ("SPE PPI number 5", sound().each_cpu(78, &[5]), &[Rule::GsivClass]),
        ("TRBE SPI", sound().each_cpu(80, &[40]), &[Rule::GsivClass]),
    ]);
}

#[test]
fn gic_and_msi_frame_mistakes_are_reported() {
    let overlap = &[Rule::RegistersOverlap];
    let gicv4 = |size: &[u8]| sound().structure(GICD, 20, &[4]).structure(GICR, 12, size);
    expect(vec![
        ("version 2", sound().structure(GICD, 20, &[2]), &[Rule::GicdVersion]),
        ("version 5", sound().structure(GICD, 20, &[5]), &[Rule::OtherGicVersion]),
        ("two GICDs", sound().with(gicd(0x900_0000, 3)), &[Rule::SeveralDistributors]),
        ("no address", sound().structure(GICD, 8, &[0; 8]), &[Rule::MalformedProperty]),
        ("ITS twice", sound().with(its(0, 0, 0x900_0000)), &[Rule::DuplicateId]),
        ("ITS beyond 64 KiB", sound().structure(ITS, 8, &[0, 0x10, 8, 9]), &[Rule::FrameAlignment]),
        ("ITS in the GICD", sound().structure(ITS, 8, &[0, 0, 0, 8]), overlap),
        ("GICR in halves", sound().structure(GICR, 12, &[0, 0, 9, 0]), &[Rule::RedistributorSize]),
        ("GICv4, 4.5 GICRs", gicv4(&[0, 0, 0x12]), &[]),
        ("GICv4, half a GICR", gicv4(&[0, 0, 2]), &[Rule::RedistributorSize]),
        ("GICR for 2", sound().structure(GICR, 12, &[0, 0, 4]), &[Rule::TooFewRedistributors]),
        ("GICR at 4 KiB", sound().structure(GICR, 4, &[0, 0x10]), &[Rule::FrameAlignment]),
        ("SMMU over the ITS", sound().node(SMMU, 16, &[0, 0, 8, 8]), overlap),
        (
            "configuration space over the GIC",
            sound().windows(&[(0x800_0000, 0, 0, 0xf), (0x50_1000_0000, 1, 0, 0xff)]),
            &[Rule::RegistersOverlap, Rule::RegistersOverlap, Rule::RegistersOverlap],
        ),
        (
            "frame beside an ITS",
            sound().with(msi_frame(0, 0x902_0000, 1, 16, 96)),
            &[Rule::UnusedMsiFrame],
        ),
        (
            "frame with SPI numbers",
            sound().with(msi_frame(0, 0x902_0000, 1, 16, 0)),
            &[Rule::FrameRange, Rule::UnusedMsiFrame],
        ),
        (
            "frame over a wire",
            sound().with(msi_frame(0, 0x902_0000, 1, 32, 64)),
            &[Rule::MsiOverWired, Rule::UnusedMsiFrame],
        ),
    ]);
}

#[test]
fn mcfg_and_iort_segment_mismatches_are_reported() {
    let base = 0x40_1000_0000;
    expect(vec![
        ("wrong segment", sound().node(OTHER_COMPLEX, 28, &[2]), &[Rule::UnknownSegment]),
        ("segment twice", sound().node(OTHER_COMPLEX, 28, &[0]), &[Rule::UnknownSegment]),
        (
            "allocation twice",
            sound().windows(&[(base, 0, 0, 0xff), (0x50_1000_0000, 0, 0, 0xff)]),
            &[Rule::SharedSegment],
        ),
        (
            "buses reversed",
            sound().windows(&[(base, 0, 0, 0xff), (0x50_1000_0000, 1, 0xff, 0)]),
            &[Rule::MalformedProperty],
        ),
        (
            "windows overlap",
            sound().windows(&[(base, 0, 0, 0xff), (base + 0x100_0000, 1, 0, 0xff)]),
            &[Rule::RegistersOverlap],
        ),
        (
            "base of a bus at 4 KiB",
            sound().windows(&[(base + 0x1000, 0, 0, 0xff), (0x50_1000_0000, 1, 0, 0xff)]),
            &[Rule::EcamAlignment],
        ),
        (
            "no base",
            sound().windows(&[(base, 0, 0, 0xff), (0, 1, 0, 0xf)]),
            &[Rule::MalformedProperty],
        ),
    ]);
}

/// Single mappings to an SMMU that maps IDs up to 0x2ffff.
const BEYOND: Mapping = [0, 0, 0x3_0001, AT_SMMU, 1];
const WITHIN: Mapping = [0, 0, 0x2_ffff, AT_SMMU, 1];

/// Returns a machine with `node` in place of its counters, and with that SMMU.
fn through_smmu(node: Vec<u8>) -> Machine {
    let mut machine = sound().mapping(SMMU, SMMU_MAPPINGS, 1, 0x2_ffff);
    machine.nodes[COUNTERS] = node;
    machine
}

#[test]
fn id_mapping_mistakes_are_reported() {
    let complex = |word, value| sound().mapping(COMPLEX, COMPLEX_MAPPINGS, word, value);
    let other = |word, value| sound().mapping(OTHER_COMPLEX, COMPLEX_MAPPINGS, word, value);
    let smmu = |word, value| sound().mapping(SMMU, SMMU_MAPPINGS, word, value);
    let other_smmu = |own| planted(smmu_v3(3, 0, 0, 0, &[own]), 16, &[0, 0, 0x10, 0x40]);
    let mut own_alone = sound();
    own_alone.nodes[SMMU] = smmu_v3(3, 0, 74, 0, &[]);
    own_alone.nodes.truncate(OTHER_COMPLEX);
    own_alone.windows.truncate(1);
    expect(vec![
        ("no mapping of the SMMU", own_alone, &[Rule::SmmuWithoutIts]),
        ("count one too low", smmu(1, 0xfffe), &[Rule::UnmappedStream]),
        ("outputs beyond the SMMU's inputs", complex(2, 0x1_0000), &[Rule::UnmappedStream]),
        ("mapping not counted", sound().node(OTHER_COMPLEX, 8, &[0]), &[Rule::MalformedTable]),
        ("SMMU's mapping not counted", sound().node(SMMU, 8, &[0]), &[Rule::MalformedTable]),
        ("single by mistake", other(4, 1), &[Rule::SingleMapping]),
        ("no such node", complex(3, 0x1000), &[Rule::IortReference]),
        ("in the middle of a node", other(3, AT_GROUP + 4), &[Rule::IortReference]),
        ("SMMU to itself", smmu(3, AT_SMMU), &[Rule::IortReference]),
        ("no such ITS", sound().node(GROUP, 20, &[7]), &[Rule::UnknownIts]),
        ("group of 2 in 1", sound().node(GROUP, 16, &[2]), &[Rule::MalformedTable]),
        ("DeviceIDs of another host", other(2, 0), &[Rule::SharedDeviceId]),
        ("past 32 bits", other(2, 0xffff_fff0), &[Rule::MapRange]),
        ("number of IDs", other(1, 0x1_0000), &[Rule::RequesterBeyondPci]),
        ("limit of 32 bits", sound().node(OTHER_COMPLEX, 32, &[24]), &[Rule::AddressSizeLimit]),
        ("component beyond the SMMU", through_smmu(named_component("\\_SB.D", &[BEYOND])), {
            &[Rule::ComponentWithoutIts]
        }),
        ("component through the SMMU", through_smmu(named_component("\\_SB.D", &[WITHIN])), &[]),
        ("counters beyond the SMMU", through_smmu(pmcg(0, &[BEYOND])), &[Rule::UnmappedStream]),
        ("counters through the SMMU", through_smmu(pmcg(0, &[WITHIN])), &[]),
        ("SMMU beyond the SMMU", through_smmu(other_smmu(BEYOND)), &[Rule::UnmappedStream]),
        ("SMMU through the SMMU", through_smmu(other_smmu(WITHIN)), &[]),
        ("component without a root", sound().node(COMPONENT, 29, b"/"), &[Rule::ComponentPath]),
    ]);
}

#[test]
fn smmus_without_valid_interrupts_are_reported() {
    let no_wires = || sound().node(SMMU, 44, &[0; 16]);
    expect(vec![
        ("PPI", sound().node(SMMU, 44, &[27]), &[Rule::GsivClass]),
        ("LPI", sound().node(SMMU, 44, &[0, 0x20]), &[Rule::GsivClass]),
        ("counters at a PPI", sound().node(COUNTERS, 24, &[7]), &[Rule::GsivClass]),
        ("index beyond", no_wires().node(SMMU, 64, &[9]), &[Rule::SmmuWithoutInterrupts]),
        ("no wire for counters", sound().node(COUNTERS, 24, &[0]), &[Rule::SmmuWithoutInterrupts]),
        ("counters of nothing", sound().node(COUNTERS, 28, &[4]), &[Rule::IortReference]),
        (
            "own mapping with a range",
            no_wires().mapping(SMMU, SMMU_MAPPINGS + 20, 4, 0),
            &[Rule::SingleMapping],
        ),
    ]);
}

#[test]
fn reserved_memory_mistakes_are_reported() {
    expect(vec![
        ("two of one", sound().node(RMR, 20, &[2]), &[Rule::RmrRange]),
        ("none", sound().node(RMR, 20, &[0]), &[Rule::RmrRange]),
        ("at 4 KiB", sound().node(RMR, 29, &[0x10]), &[Rule::RmrRange]),
        ("4 KiB long", sound().node(RMR, 36, &[0, 0x10, 0]), &[Rule::RmrRange]),
        ("empty", sound().node(RMR, 36, &[0; 8]), &[Rule::RmrRange]),
        ("within the fields", sound().node(RMR, 24, &[20]), &[Rule::RmrRange]),
        ("to the ITS", sound().mapping(RMR, 48, 3, AT_GROUP), &[Rule::RmrTarget]),
        ("to nothing", sound().mapping(RMR, 48, 3, 7), &[Rule::IortReference]),
    ]);
}

#[test]
fn revisions_that_do_not_match_fields_are_reported() {
    let revised = |table: usize, revision| {
        let mut tables = sound().tables();
        tables[table][8] = revision;
        seal(&mut tables[table]);
        tables
    };
    let mut trbe = sound().each_cpu(80, &[30]).tables();
    trbe[0][8] = 5;
    seal(&mut trbe[0]);
    expect_tables(vec![
        ("MADT of the future", revised(0, 40), &[Rule::UnknownRevision]),
        ("MADT before the GIC", revised(0, 1), &[Rule::OldRevision]),
        ("MADT before TRBE", trbe, &[Rule::OldRevision]),
        ("MCFG", revised(2, 0), &[Rule::UnknownRevision]),
        ("IORT of the future", revised(1, 9), &[Rule::UnknownRevision]),
        ("IORT before reserved memory", revised(1, 0), &[Rule::OldRevision]),
    ]);
    expect(vec![
        ("node", sound().node(COMPLEX, 3, &[40]), &[Rule::UnknownRevision]),
        (
            "limit",
            sound().node(OTHER_COMPLEX, 3, &[0]).node(OTHER_COMPLEX, 32, &[40]),
            &[Rule::OldRevision],
        ),
        ("valid index", sound().node(SMMU, 24, &[0x10]), &[Rule::OldRevision]),
        ("reserved memory", sound().node(RMR, 3, &[0]), &[Rule::OldRevision]),
    ]);
}

#[test]
fn wrong_lengths_counts_and_checksums_are_reported() {
    let stated = |table: usize, at: usize, value: u32| {
        let mut tables = sound().tables();
        plant(&mut tables[table], at, &value.to_le_bytes());
        seal(&mut tables[table]);
        tables
    };
    let length = |table: usize| word(sound().tables()[table].len());
    let checksum = |table: usize| {
        let mut tables = sound().tables();
        tables[table][9] ^= 1;
        tables
    };
    expect_tables(vec![
        ("MADT without the ITS", stated(0, 4, length(0) - 20), &[Rule::TableLength]),
        ("MADT cut in the ITS", stated(0, 4, length(0) - 6), &[Rule::TableLength]),
        ("MCFG without a segment", stated(2, 4, length(2) - 16), &[Rule::TableLength]),
        ("IORT without its last node", stated(1, 36, 6), &[Rule::IortNodeCount]),
        ("IORT without root complexes", stated(1, 36, 2), &[Rule::IortNodeCount]),
        ("IORT with a node too many", stated(1, 36, 8), &[Rule::IortNodeCount]),
        ("first node in the header", stated(1, 40, 36), &[Rule::IortNodeCount]),
        ("MADT", checksum(0), &[Rule::TableChecksum]),
        ("IORT", checksum(1), &[Rule::TableChecksum]),
    ]);
    let hidden = sound().structure(GICR, 1, &[36]);
    expect(vec![("GICR that hides the ITS", hidden, &[Rule::MalformedTable])]);
}

/// Tables in the shape of published machines. Their authors write tables as C structures with
/// arrays of a fixed size, or fill a template in.
#[test]
fn published_table_shapes_yield_expected_findings() {
    let resized = |number: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut machine = sound();
        let node = &mut machine.nodes[number];
        change(node);
        let length = u16::try_from(node.len()).expect("a node is small");
        plant(node, 1, &length.to_le_bytes());
        machine
    };
    let room = |number| resized(number, &|node: &mut Vec<u8>| node.extend([0; 40]));
    let hidden = resized(OTHER_COMPLEX, &|node: &mut Vec<u8>| {
        node.extend([0; 20]);
        node.extend([1, 0, 0, 0].repeat(5));
    });
    // The other nodes refer to the group and the SMMU in front of it.
    let cut = resized(COUNTERS, &|node: &mut Vec<u8>| node.truncate(32));
    let first_revision = planted(pmcg(90, &[])[..32].to_vec(), 1, &32u16.to_le_bytes());
    let mut short_pmcg = sound();
    short_pmcg.nodes[COUNTERS] = planted(first_revision, 3, &[0]);
    let windows = |more: &[(u64, u16, u8, u8)]| {
        let windows = [&sound().windows[..], more].concat();
        sound().windows(&windows)
    };
    let split: &[Mapping] = &[[0, 0xff, 0, AT_SMMU, 0], [0x100, 0xfeff, 0x100, AT_GROUP, 0]];
    let mapped = |mappings: &[Mapping]| {
        let mut machine = sound();
        machine.nodes[COMPLEX] = planted(root_complex(0, mappings), 16, &[1, 0, 0, 0, 0, 0, 0, 3]);
        machine
    };
    let cases: Vec<(&str, Machine, &[Rule])> = vec![
        ("HoneyComb: root complex with room", room(OTHER_COMPLEX), &[]),
        ("Orion O6: component with room", room(COMPONENT), &[]),
        ("room that hides a mapping", hidden, &[Rule::MalformedTable]),
        ("counters of revision 0", short_pmcg, &[]),
        ("counters of revision 1 without page 1", cut, &[Rule::MalformedTable]),
        ("sbsa-ref: allocation of zeros", windows(&[(0, 0, 0, 0)]), &[Rule::UnusedField]),
        ("two of them", windows(&[(0, 0, 0, 0); 2]), &[Rule::UnusedField; 2]),
        ("Morello: CCA without CPM", sound().node(COMPLEX, 23, &[0]), &[Rule::UnusedField]),
        ("CCA of 2", sound().node(COMPLEX, 16, &[2]), &[Rule::MalformedProperty]),
        ("QEMU: only bus 0 behind the SMMU", mapped(split), &[]),
        ("buses that go nowhere", mapped(&split[..1]), &[Rule::UncoveredBus; 2]),
    ];
    if let Some(folder) = env::var_os("DOORBELL_SHAPES") {
        for case in &cases {
            write(Path::new(&folder), case);
        }
    }
    expect(cases);
}

/// Writes a machine's tables and the names of its rules to a folder, for other judges.
fn write(folder: &Path, (name, machine, rules): &(&str, Machine, &[Rule])) {
    let folder = folder.join(name.replace([' ', ':'], "-"));
    fs::create_dir_all(&folder).expect("the folder is writable");
    for table in machine.tables() {
        let signature = String::from_utf8_lossy(&table[..4]).to_lowercase();
        fs::write(folder.join(signature), table).expect("the folder is writable");
    }
    let rules: String = rules.iter().flat_map(|rule| [rule.name(), "\n"]).collect();
    fs::write(folder.with_extension("rules"), rules).expect("the folder is writable");
}

/// Plants mistakes from public bug reports.
#[test]
fn table_mistakes_from_bug_reports_are_reported() {
    let mut one_too_many = sound();
    one_too_many.nodes.truncate(OTHER_COMPLEX);
    one_too_many.windows.truncate(1);
    plant(&mut one_too_many.nodes[SMMU], 8, &[3]);
    let mut without_segment = sound();
    without_segment.nodes.truncate(OTHER_COMPLEX);
    let mut lower_case = sound();
    lower_case.nodes[COMPONENT] = named_component("\\_SB_.IWBa", &[[0, 0, 0x2_0000, AT_GROUP, 1]]);
    let mut after_mappings = sound();
    let behind = 28 + 20;
    plant(&mut after_mappings.nodes[RMR], 24, &word(behind).to_le_bytes());
    expect(vec![
        // https://github.com/tianocore/edk2/pull/6441: the parser of the VGIC maintenance
        // interrupt overwrote the flags of the CPU that boots.
        ("edk2 6441, flags", sound().structure(CPU, 12, &[4]), &[Rule::NoUsableCpu]),
        // The same change: the other CPUs have no maintenance interrupt.
        (
            "edk2 6441, interrupt",
            sound().structure(2, 56, &[0]).structure(3, 56, &[0]),
            &[Rule::GiccMismatch],
        ),
        // https://github.com/ARM-software/bsa-acs/issues/118: the SMMU of sbsa-ref states more
        // mappings than it has, so that the next node is read as a mapping.
        ("bsa-acs 118", one_too_many, &[Rule::MalformedTable]),
        // https://github.com/ARM-software/sysarch-acs/pull/349: several GICDs.
        ("sysarch-acs 349", sound().with(gicd(0x900_0000, 3)), &[Rule::SeveralDistributors]),
        // https://github.com/ARM-software/arm-enterprise-acs/issues/120: the address of the CPU
        // interface is neither 0 nor a register address.
        ("enterprise-acs 120", sound().each_cpu(32, &[1]), &[Rule::MalformedProperty]),
        // https://github.com/tianocore/edk2-platforms/pull/222: CCA is 1 and CPM is 0.
        ("edk2-platforms 222", sound().node(COMPLEX, 23, &[0]), &[Rule::UnusedField]),
        // https://github.com/cloud-hypervisor/cloud-hypervisor/issues/3296: the IORT has a root
        // complex only for segment 0.
        ("cloud-hypervisor 3296", without_segment, &[Rule::HostWithoutMsi]),
        // https://github.com/microsoft/mu_msvm/pull/87: two hosts of a segment must have disjoint
        // buses in the MCFG.
        (
            "mu_msvm 87",
            sound().windows(&[
                (0x40_1000_0000, 0, 0, 0x40),
                (0x41_1000_0000, 0, 0x40, 0xff),
                (0x50_1000_0000, 1, 0, 0xff),
            ]),
            &[Rule::SharedSegment],
        ),
        // https://github.com/NVIDIA/edk2-nvidia/issues/14: the GICR does not fit the hardware.
        ("edk2-nvidia 14", sound().structure(GICR, 12, &[0, 0, 2]), &[Rule::TooFewRedistributors]),
        // https://github.com/tianocore/edk2/pull/13137: names with lower-case hexadecimal digits.
        ("edk2 13137", lower_case, &[Rule::ComponentPath]),
        // https://github.com/microsoft/openvmm/pull/3973: memory ranges after the ID mappings.
        ("openvmm 3973", after_mappings, &[Rule::RmrRange]),
        // https://github.com/tianocore/edk2/issues/9440: identifiers that restart per cluster.
        ("edk2 9440", sound().structure(2, 8, &[0]).structure(3, 8, &[1]), {
            &[Rule::DuplicateId, Rule::DuplicateId]
        }),
    ]);
    assert_eq!(offset(&sound().nodes[..COMPLEX]), AT_SMMU + word(sound().nodes[SMMU].len()));
}
