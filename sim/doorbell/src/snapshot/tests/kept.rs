//! Tests with snapshots of a real KVM in `tests/data/snapshot`. One was saved by the documented
//! procedure, the others by the procedures of two publicly reported bugs. The suite `kvm` takes the
//! same snapshots again.

use super::super::file;
use super::super::lint::{self, Finding, Rule};
use super::super::machine::Machine;
use crate::snapshot::diff::differences;
use crate::snapshot::explain::{Question, answer};
use gic_arch::IntId;
use msi_types::explain::Obstacle;
use msi_types::{Cpu, DeviceId, EventId};

const DOCUMENTED: &[u8] = include_bytes!("../../../tests/data/snapshot/documented.json");
const FIRST_CPU: &[u8] = include_bytes!("../../../tests/data/snapshot/first-cpu-for-all.json");
const PAGES: &[u8] = include_bytes!("../../../tests/data/snapshot/pages-before-tables.json");

fn machine(bytes: &[u8]) -> Machine {
    file::parse("kept", bytes).unwrap()
}

fn found(machine: &Machine, rule: Rule) -> Vec<Finding> {
    lint::check(machine).into_iter().filter(|finding| finding.rule == rule).collect()
}

#[test]
fn a_snapshot_of_the_documented_procedure_has_no_findings() {
    let machine = machine(DOCUMENTED);
    assert_eq!(lint::check(&machine), []);
    let question = Question::Event(0, DeviceId::new(8), EventId::new(1));
    assert_eq!(answer(&machine, question, false).unwrap().explanation.obstacle(), None);
}

#[test]
fn saving_the_registers_of_one_vcpu_for_all_is_reported() {
    let machine = machine(FIRST_CPU);
    let shared = found(&machine, Rule::SharedPendingTable);
    assert_eq!(shared.len(), 1);
    assert_eq!(shared[0].place, "vCPUs 0, 1");
    let question = Question::Interrupt(1, IntId::new(8193));
    let obstacle = answer(&machine, question, false).unwrap().explanation.obstacle();
    let Some(Obstacle::SharedPendingTable { cpu, other, .. }) = obstacle else {
        panic!("{obstacle:?}");
    };
    assert_eq!((cpu, other), (Cpu::new(1), Cpu::new(0)));
    let differing = differences(&self::machine(DOCUMENTED), &machine);
    let pending =
        |field| differing.iter().any(|one| one.object == "CPU 0.0.0.1" && one.field == field);
    assert!(pending("GICR_PENDBASER"), "{differing:?}");
}

#[test]
fn saving_pages_before_the_its_tables_is_reported() {
    let machine = machine(PAGES);
    let places: Vec<_> =
        found(&machine, Rule::TableNotIncluded).into_iter().map(|one| one.place).collect();
    for its in ["its@8080000", "its@8100000"] {
        assert!(places.iter().any(|place| place == its), "{places:?}");
    }
    let question = Question::Event(0, DeviceId::new(8), EventId::new(1));
    let answer = answer(&machine, question, false).unwrap();
    let unmapped = Obstacle::UnmappedDevice { device: DeviceId::new(8), mapped: 0 };
    assert_eq!(answer.explanation.obstacle(), Some(unmapped));
    assert!(answer.findings.iter().any(|finding| finding.contains("table-not-included")));
}
