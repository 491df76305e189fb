//! The cases.

mod attributes;
mod routes;
mod support;
mod tables;

use gic_arch::{gicr, icc};
use kvm_judge::kvm::KvmMachine;
use kvm_judge::model::ModelMachine;
use kvm_judge::scenario::{Plan, acknowledge_all};
use kvm_judge::{Failure, Machine, Snapshot, saving};
use support::{Count, Fired, Make, accept, carry_out, kvm, model, old_kvm, old_model};
use vgic_kvm::KvmView;
use vgic_kvm::abi::Attribute;

/// Plans that are tried, if the environment does not say `plans=…`: Linux hands its command line's
/// to its first process.
const PLANS: u64 = 6;

/// The plan whose outcome is kept as test data: of two levels of tables, with many LPIs.
const KEPT: u64 = 7;
/// Bits of PPIs in a redistributor's register.
const PPIS: u64 = 0xffff_0000;

/// Runs all of them and prints their outcome.
pub(crate) fn run() {
    let mut count = Count::default();
    count.case("a snapshot of KVM", print_snapshot());
    let wanted = std::env::var("plans").ok().and_then(|plans| plans.parse().ok());
    for seed in 0..wanted.unwrap_or(PLANS) {
        let plan = Plan::of(seed);
        count.case(&format!("KVM to KVM, plan {seed}"), moved(&plan, kvm, kvm));
        count.case(&format!("KVM to Doorbell, plan {seed}"), moved(&plan, kvm, model));
        count.case(&format!("Doorbell to KVM, plan {seed}"), moved(&plan, model, kvm));
        count.case(&format!("Doorbell to Doorbell, plan {seed}"), moved(&plan, model, model));
        count.case(&format!("Doorbell's own list to KVM, plan {seed}"), listed(&plan));
    }
    let plan = Plan::of(KEPT);
    count.case("an old revision, KVM to Doorbell", moved(&plan, old_kvm, old_model));
    count.case("an old revision, Doorbell to KVM", moved(&plan, old_model, old_kvm));
    tables::run(&mut count);
    attributes::run(&mut count);
    routes::run(&mut count);
    println!("total: {} passed, {} failed", count.passed, count.failed);
}

/// Prints the state that a plan leaves in KVM, for the tests that have no KVM.
fn print_snapshot() -> Result<(), Failure> {
    let Fired { mut machine, taken, snapshot } = Fired::of(&Plan::of(KEPT), kvm)?;
    for line in snapshot.to_string().lines() {
        println!("snapshot - {line}");
    }
    for (cpu, intids) in acknowledge_all(&mut *machine, &taken)?.iter().enumerate() {
        println!("snapshot - # vCPU {cpu} took {} and acknowledges {intids:?}", taken[cpu]);
    }
    Ok(())
}

/// Moves a machine's saved state to another, which must deliver the same and save the same.
fn moved(plan: &Plan, from: Make, to: Make) -> Result<(), Failure> {
    let Fired { mut machine, taken, snapshot } = Fired::of(plan, from)?;
    let mut restored = to()?;
    saving::restore(&mut *restored, &snapshot)?;
    let again = saving::save(&mut *restored)?;
    let differences = comparable(&snapshot).differences(&comparable(&again));
    let wanted = acknowledge_all(&mut *machine, &taken)?;
    let acknowledged = acknowledge_all(&mut *restored, &taken)?;
    accept(wanted == acknowledged, || format!("{acknowledged:?}, not {wanted:?}"))?;
    accept(wanted.iter().all(|cpu| !cpu.is_empty()), || "nothing was pending".into())?;
    accept(differences.is_empty(), || format!("{differences:?}"))
}

/// KVM restores what the model lists by itself, in its order, and delivers the same.
fn listed(plan: &Plan) -> Result<(), Failure> {
    let mut machine = ModelMachine::new()?;
    let taken = carry_out(&mut machine, plan)?;
    let config = machine.config().clone();
    let state = machine.state()?;
    let mut view = KvmView::new(&config, state, machine.ram())?;
    let registers = view.save()?;
    accept(view.left_out().is_empty(), || view.left_out().to_string())?;
    let attributes = registers.iter().map(|saved| (saved.device, saved.attribute, saved.value));
    let snapshot = Snapshot { attributes: attributes.collect(), memory: machine.ram().rows()? };
    let mut restored = KvmMachine::new()?;
    saving::restore(&mut restored, &snapshot)?;
    let wanted = acknowledge_all(&mut machine, &taken)?;
    let acknowledged = acknowledge_all(&mut restored, &taken)?;
    accept(wanted == acknowledged, || format!("{acknowledged:?}, not {wanted:?}"))
}

/// Without what differs and means nothing: `IDbits` of `ICC_CTLR_EL1` are the host's business; and
/// KVM keeps the latch of a PPI until it is deactivated.
fn comparable(snapshot: &Snapshot) -> Snapshot {
    let mut comparable = snapshot.clone();
    for (device, attribute, value) in &mut comparable.attributes {
        match attribute {
            Attribute::SystemRegister { register, .. } if *register == icc::CTLR.encoding() => {
                *value = icc::Ctlr::from(*value).with_id_bits_code(0).into_bits();
            }
            Attribute::Redistributor { cpu, offset } if *offset == gicr::ISPENDR.offset() => {
                let active =
                    Attribute::Redistributor { cpu: *cpu, offset: gicr::ISACTIVER.offset() };
                *value &= !(snapshot.get(*device, active).unwrap_or(0) & PPIS);
            }
            _ => {}
        }
    }
    comparable
}
