//! Moves saved states between KVM and the model.

use super::count::{Count, accept, tell};
use super::fired::{Fired, Make, kvm, model};
use doorbell_facts::JudgeFact;
use gic_arch::{gicr, icc};
use kvm_judge::kvm::KvmMachine;
use kvm_judge::memory::rows;
use kvm_judge::model::ModelMachine;
use kvm_judge::scenario::{Plan, acknowledge_all, carry_out};
use kvm_judge::{Failure, Machine, Snapshot, saving};
use vgic_kvm::KvmView;
use vgic_kvm::abi::Attribute;

/// Seed of the plan whose resulting state is kept as test data. The plan uses two-level tables and
/// many LPIs.
const KEPT: u64 = 7;
/// The revision of KVM's GIC before the newest one.
const OLD: u8 = 2;
/// The PPIs' bits in a redistributor's registers.
const PPIS: u64 = 0xffff_0000;

/// Runs `plans` plans, and moves the state of each in every direction.
pub(super) fn run(plans: u64, count: &mut Count) {
    count.case("a snapshot of KVM", print_snapshot());
    for seed in 0..plans {
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
}

fn old_kvm() -> Result<Box<dyn Machine>, Failure> {
    Ok(Box::new(KvmMachine::at_revision(OLD)?))
}

fn old_model() -> Result<Box<dyn Machine>, Failure> {
    Ok(Box::new(ModelMachine::at_revision(OLD)?))
}

/// Prints the state that a plan creates on KVM, for use in tests on hosts without KVM.
fn print_snapshot() -> Result<(), Failure> {
    let Fired { mut machine, taken, snapshot } = Fired::of(&Plan::of(KEPT), kvm)?;
    for line in snapshot.to_string().lines() {
        tell(JudgeFact::Snapshot { row: line.to_owned().into() });
    }
    for (cpu, intids) in acknowledge_all(&mut *machine, &taken)?.iter().enumerate() {
        let row = format!("# vCPU {cpu} took {} and acknowledges {intids:?}", taken[cpu]);
        tell(JudgeFact::Snapshot { row: row.into() });
    }
    Ok(())
}

/// Moves a machine's saved state to another machine. The other machine must deliver the same
/// interrupts, and must save the same state.
fn moved(plan: &Plan, from: Make, to: Make) -> Result<(), Failure> {
    let Fired { mut machine, taken, snapshot } = Fired::of(plan, from)?;
    let mut restored = to()?;
    saving::restore(&mut *restored, &snapshot)?;
    let again = saving::save(&mut *restored)?;
    let differences = comparable(&snapshot).differences(&comparable(&again));
    let wanted = acknowledge_all(&mut *machine, &taken)?;
    let acknowledged = acknowledge_all(&mut *restored, &taken)?;
    accept(wanted == acknowledged, || format!("{acknowledged:?}, not {wanted:?}"))?;
    accept(wanted.iter().all(|cpu| !cpu.is_empty()), || "no interrupt was pending".into())?;
    accept(differences.is_empty(), || format!("{differences:?}"))
}

/// Checks that KVM can restore the attributes that the model lists, in the model's order, and
/// delivers the same interrupts afterwards.
fn listed(plan: &Plan) -> Result<(), Failure> {
    let mut machine = ModelMachine::new()?;
    let taken = carry_out(&mut machine, plan)?;
    let config = machine.config().clone();
    let state = machine.state()?;
    let mut view = KvmView::new(&config, state, machine.ram())?;
    let registers = view.save()?;
    accept(view.left_out().is_empty(), || view.left_out().to_string())?;
    let attributes = registers.iter().map(|saved| (saved.device, saved.attribute, saved.value));
    let snapshot = Snapshot { attributes: attributes.collect(), memory: rows(machine.ram())? };
    let mut restored = KvmMachine::new()?;
    saving::restore(&mut restored, &snapshot)?;
    let wanted = acknowledge_all(&mut machine, &taken)?;
    let acknowledged = acknowledge_all(&mut restored, &taken)?;
    accept(wanted == acknowledged, || format!("{acknowledged:?}, not {wanted:?}"))
}

/// Removes differences without significance from the snapshot: `IDbits` of `ICC_CTLR_EL1` depend on
/// the host, and KVM keeps a PPI's latch until the PPI is deactivated.
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
