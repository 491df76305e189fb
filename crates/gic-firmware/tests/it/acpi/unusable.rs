//! Checks tables of machines whose GIC Linux cannot use.

use super::bytes::{gicc, gicd, its, madt};
use super::faults::{Fault, expect_tables};
use super::machine::planted;
use gic_firmware::Rule;

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
