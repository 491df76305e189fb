//! Reads damaged tables. The reader must return a description or an error within bounded time.
//!
//! Checks tables of machines whose GIC Linux cannot use.

use super::bytes::{
    Mapping, describe, gicc, gicd, iort, its, its_group, madt, mcfg, named_component, pmcg,
    root_complex, smmu_v2, smmu_v3, table, usual_madt, word,
};
use super::faults::{Fault, expect_tables};
use super::machine::planted;
use gic_firmware::Rule;
use gic_firmware::acpi::{TableSet, parse};
use gic_firmware::lint::{KnownRegisters, check, compare};
use msi_types::RequesterId;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Returns the CPU time that the calling thread has used. Unlike wall-clock time, this time does
/// not grow while other programs use the processor.
fn executed() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread's time is positive")
}

fn sound() -> [Vec<u8>; 3] {
    let through = 48 + 24;
    let nodes = [
        its_group(&[1]),
        smmu_v2(0x900_0000, &[[0, 0xffff, 0, 48, 0]]),
        smmu_v3(5, 1 << 4, 0, 1, &[[0, 0xffff, 0, 48, 0], [0, 0, 7, 48, 1]]),
        root_complex(0, &[[0, 0x100, 0, through, 0], [0x100, 0xfeff, 0x100, 48, 0]]),
        named_component("\\_SB.DMA0", &[[0, 0, 3, 48, 1]]),
        pmcg(0, &[[0, 0, 0x33, 48, 1]]),
    ];
    [usual_madt(), iort(&nodes), mcfg(&[(0x1000_0000, 0, 0, 0xff)])]
}

/// Reads `blobs`, and calls every function of their description.
fn exercise(blobs: &[Vec<u8>]) {
    let Ok(tables) = TableSet::from_blobs(blobs.iter().map(Vec::as_slice)) else { return };
    let machine = parse(&tables);
    for controller in &machine.controllers {
        let _ = machine.doorbells(controller);
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
    let _ = compare(&machine, &machine);
}

/// Returns values for every register that a rule reads.
fn registers() -> KnownRegisters {
    KnownRegisters { gicd_typer: Some(0), gicr_typer: vec![0], ..KnownRegisters::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn parsing_tables_with_changed_bytes_never_panics(
        changes in vec((0..3usize, any::<Index>(), any::<u8>()), 1..16),
    ) {
        let mut blobs = sound();
        for (table, at, byte) in changes {
            *at.get_mut(&mut blobs[table]) = byte;
        }
        exercise(&blobs);
    }

    #[test]
    fn parsing_tables_with_changed_words_never_panics(
        changes in vec(
            (0..3usize, any::<Index>(), prop_oneof![0..64u32, any::<u32>(), Just(u32::MAX)]),
            1..8,
        ),
    ) {
        let mut blobs = sound();
        for (table, at, word) in changes {
            let at = at.index(blobs[table].len() / 4) * 4;
            blobs[table][at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        exercise(&blobs);
    }

    #[test]
    fn parsing_arbitrary_table_bodies_never_panics(
        madt in vec(any::<u8>(), 0..200),
        iort in vec(0..64u8, 0..400),
    ) {
        exercise(&[table(*b"APIC", &madt), table(*b"IORT", &iort)]);
    }
}

#[test]
fn walks_of_truncated_tables_end() {
    for (index, whole) in sound().iter().enumerate() {
        for length in 36..whole.len() {
            let mut blobs = sound();
            blobs[index].truncate(length);
            blobs[index][4..8].copy_from_slice(&word(length).to_le_bytes());
            exercise(&blobs);
        }
    }
}

#[test]
fn an_iort_node_count_beyond_the_table_is_reported() {
    let mut nodes = iort(&[its_group(&[1])]);
    nodes[36..40].copy_from_slice(&u32::MAX.to_le_bytes());
    let machine = describe(&[usual_madt(), nodes]);
    assert!(machine.findings.iter().any(|finding| finding.rule == Rule::MalformedTable));
}

#[test]
fn parsing_overlapping_id_mappings_is_time_bounded() {
    let mut nodes = vec![its_group(&[1])];
    let count = 3000;
    let mut target = 48;
    for _ in 0..4 {
        let maps: Vec<Mapping> = (0..count).map(|_| [0, 0xffff, 0, target, 0]).collect();
        target = super::bytes::offset(&nodes);
        nodes.push(smmu_v2(0, &maps));
    }
    let maps: Vec<Mapping> = (0..count).map(|_| [0, 0xffff, 0, target, 0]).collect();
    nodes.push(root_complex(0, &maps));
    let before = executed();
    let machine = describe(&[usual_madt(), iort(&nodes)]);
    assert!(
        machine.findings.iter().any(|finding| finding.message.contains("too many ID mappings"))
    );
    assert!(executed().saturating_sub(before) < Duration::from_secs(20));
}

/// Machines whose MADT leaves Linux without a distributor or a CPU interface.
#[test]
fn unusable_gics_are_reported() {
    let gicv2 = |version: u8, bases: &[u64], frame: Option<Vec<u8>>| {
        let cpus = bases.iter().zip(0..).map(|(base, uid)| {
            planted(gicc(82, uid, 1, u64::from(uid), 0), 32, &base.to_le_bytes())
        });
        vec![madt(&cpus.chain([gicd(0x800_0000, version)]).chain(frame).collect::<Vec<_>>())]
    };
    let cases: [(&str, u8, &[u64], &[Rule]); 8] = [
        ("sound GICv2", 2, &[0x900_0000; 2], &[]),
        ("sound version 0", 0, &[0x900_0000; 2], &[]),
        ("interface of one CPU elsewhere", 2, &[0x900_0000, 0x901_0000], &[Rule::GiccMismatch]),
        ("interface of one CPU absent", 0, &[0x900_0000, 0], &[Rule::GiccMismatch]),
        ("no interface", 2, &[0; 2], &[Rule::GicdVersion]),
        ("version 0, no interface", 0, &[0; 2], &[Rule::GicdVersion]),
        ("version 1", 1, &[0x900_0000; 2], &[Rule::GicdVersion]),
        ("version 3", 3, &[0; 2], &[Rule::TooFewRedistributors]),
    ];
    let cases =
        cases.map(|(name, version, bases, rules)| (name, gicv2(version, bases, None), rules));
    let its = gicv2(0, &[0x900_0000], Some(its(0, 0, 0x808_0000)));
    let no_gic = vec![madt(&[planted(gicc(82, 0, 1, 0, 0), 20, &[9])])];
    let others: [Fault<'_>; 2] = [
        ("version 0, ITS alone", its, &[Rule::GicdVersion]),
        ("RPi3: no GIC, interrupt 9", no_gic, &[Rule::MissingProperty]),
    ];
    expect_tables(cases.into_iter().chain(others).collect());
}
