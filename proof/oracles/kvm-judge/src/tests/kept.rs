//! Tests with snapshots that were saved by a real KVM. Doorbell must restore these snapshots,
//! deliver the same interrupts and save the same state. The tests don't need KVM.

use crate::model::ModelMachine;
use crate::scenario::{Plan, acknowledge_all, carry_out};
use crate::{Failure, Snapshot, saving};
use gic_arch::{gicr, icc};
use vgic_kvm::abi::Attribute;

/// The snapshot for plan [`SEED`].
const KEPT: &str = include_str!("../../data/linux-6.1.snapshot");
const SEED: u64 = 7;

/// Returns, according to the test data, the interrupt that each vCPU has acknowledged, and the
/// interrupts that each should acknowledge afterwards.
fn kept_interrupts() -> (Vec<u32>, Vec<Vec<u32>>) {
    let rows = KEPT.lines().filter_map(|line| line.strip_prefix("# vCPU "));
    let numbers = |row: &str| -> Vec<u32> {
        let words = row.split(|letter: char| !letter.is_ascii_digit());
        words.filter(|word| !word.is_empty()).map(|word| word.parse().expect("digits")).collect()
    };
    rows.map(numbers).map(|numbers| (numbers[1], numbers[2..].to_vec())).unzip()
}

fn kept() -> Snapshot {
    KEPT.parse().expect("the data is a valid snapshot")
}

fn restored(snapshot: &Snapshot) -> Result<ModelMachine, Failure> {
    let mut machine = ModelMachine::new()?;
    saving::restore(&mut machine, snapshot)?;
    Ok(machine)
}

#[test]
fn a_restored_kvm_snapshot_delivers_the_same_interrupts() -> Result<(), Failure> {
    let (taken, wanted) = kept_interrupts();
    assert_eq!(acknowledge_all(&mut restored(&kept())?, &taken)?, wanted);
    Ok(())
}

#[test]
fn a_kvm_snapshot_round_trips_through_the_model() -> Result<(), Failure> {
    let again = saving::save(&mut restored(&kept())?)?;
    // KVM keeps a PPI's latch until the PPI is deactivated, and the host determines `IDbits`.
    let meaningless = [gicr::ISPENDR.offset() | 1 << 31, u32::from(icc::CTLR.encoding().packed())];
    let place = |attribute: &Attribute| match attribute {
        Attribute::Redistributor { offset, .. } => offset | 1 << 31,
        Attribute::SystemRegister { register, .. } => register.packed().into(),
        _ => 0,
    };
    let without = |mut snapshot: Snapshot| {
        snapshot.attributes.retain(|(_, attribute, _)| !meaningless.contains(&place(attribute)));
        snapshot
    };
    assert_eq!(without(kept()).differences(&without(again)), Vec::<String>::new());
    Ok(())
}

#[test]
fn the_model_saves_the_same_tables_as_kvm() -> Result<(), Failure> {
    let plan = Plan::of(SEED);
    let mut machine = ModelMachine::new()?;
    carry_out(&mut machine, &plan)?;
    let ours = saving::save(&mut machine)?;
    assert_eq!(ours.memory, kept().memory);
    Ok(())
}

#[test]
fn random_guests_survive_migration_through_kvm_attributes() -> Result<(), Failure> {
    for seed in 0..60 {
        let plan = Plan::of(seed);
        let mut machine = ModelMachine::new()?;
        let taken = carry_out(&mut machine, &plan)?;
        let snapshot = saving::save(&mut machine)?;
        let mut restored = restored(&snapshot)?;
        let again = saving::save(&mut restored)?;
        assert_eq!(snapshot.differences(&again), Vec::<String>::new(), "plan {seed}");
        let wanted = acknowledge_all(&mut machine, &taken)?;
        assert_eq!(acknowledge_all(&mut restored, &taken)?, wanted, "plan {seed}");
    }
    Ok(())
}
