//! The cases.

mod attributes;
mod routes;
mod tables;

use doorbell_facts::{CheckFact, Fact, JudgeFact};
use gic_arch::{gicr, icc};
use kvm_judge::kvm::KvmMachine;
use kvm_judge::layout::CPUS;
use kvm_judge::model::ModelMachine;
use kvm_judge::scenario::{Guest, Plan, acknowledge_all, fire};
use kvm_judge::{Failure, Machine, Snapshot, saving};
use vgic_kvm::KvmView;
use vgic_kvm::abi::Attribute;

/// Plans that are tried, if the environment does not say `plans=…`: Linux hands its command line's
/// to its first process.
const PLANS: u64 = 6;

/// The plan whose outcome is kept as test data: of two levels of tables, with many LPIs.
const KEPT: u64 = 7;
/// The revision of KVM's GIC before the newest.
const OLD: u8 = 2;
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
    let Count { passed, failed } = count;
    tell(CheckFact::Total { passed, failed, skipped: 0 });
}

/// Prints a fact: its line may be longer than one of an image.
fn tell(fact: impl Into<Fact>) {
    println!("{}", serde_json::to_string(&fact.into()).expect("text and numbers"));
}

#[derive(Debug, Default)]
struct Count {
    passed: usize,
    failed: usize,
}

impl Count {
    fn case(&mut self, name: &str, outcome: Result<(), Failure>) {
        let check = name.to_owned().into();
        tell(match outcome {
            Ok(()) => {
                self.passed += 1;
                CheckFact::Passed { check }
            }
            Err(error) => {
                self.failed += 1;
                CheckFact::Failed { check, why: error.to_string().into() }
            }
        });
    }
}

/// Makes a machine.
type Make = fn() -> Result<Box<dyn Machine>, Failure>;

fn kvm() -> Result<Box<dyn Machine>, Failure> {
    Ok(Box::new(KvmMachine::new()?))
}

fn model() -> Result<Box<dyn Machine>, Failure> {
    Ok(Box::new(ModelMachine::new()?))
}

fn old_kvm() -> Result<Box<dyn Machine>, Failure> {
    Ok(Box::new(KvmMachine::at_revision(OLD)?))
}

fn old_model() -> Result<Box<dyn Machine>, Failure> {
    Ok(Box::new(ModelMachine::at_revision(OLD)?))
}

/// Prints the state that a plan leaves in KVM, for the tests that have no KVM.
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

/// A machine whose guest is in the midst of a plan.
struct Fired {
    machine: Box<dyn Machine>,
    /// Interrupts that each vCPU acknowledged and did not end.
    taken: Vec<u32>,
    snapshot: Snapshot,
}

impl Fired {
    fn of(plan: &Plan, make: Make) -> Result<Self, Failure> {
        let mut machine = make()?;
        let taken = carry_out(&mut *machine, plan)?;
        let snapshot = saving::save(&mut *machine)?;
        Ok(Self { machine, taken, snapshot })
    }
}

/// Returns what each vCPU took.
fn carry_out(machine: &mut dyn Machine, plan: &Plan) -> Result<Vec<u32>, Failure> {
    let mut guest = Guest::boot(machine, plan)?;
    fire(machine, &mut guest, plan)?;
    (0..CPUS).map(|cpu| machine.take(cpu)).collect()
}

fn accept(good: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if good { Ok(()) } else { Err(otherwise().into()) }
}
