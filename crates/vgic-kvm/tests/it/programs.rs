//! Programs on machines that continue from KVM's attributes and tables after each step.

use doorbell_test_support::guest::ITS;
use doorbell_test_support::guest::program::{Bench, Observation, Program, Step, Target, kept};
use gic_arch::its::{Command, MapAction};
use vgic_kvm::{KvmView, kvm_config, kvm_its_config};

struct ThroughKvm {
    bench: Bench,
    /// Number of steps after which the machine continued without KVM's format.
    stays: usize,
}

impl Target for ThroughKvm {
    fn take(&mut self, step: Step) -> Result<Observation, String> {
        let observed = self.bench.take(step)?;
        let (gic, ram) = (self.bench.machine.gic.clone(), self.bench.machine.ram.clone());
        let config = gic.config();
        let view = |state| KvmView::new(config, state, &*ram).unwrap();
        let mut saving = view(self.bench.machine.save());
        let attributes = saving.save().unwrap();
        let mut other = self.bench.successor(config.clone());
        let mut loading = view(other.save());
        loading.load(&attributes).unwrap();
        if saving.left_out().is_empty() && loading.left_out().is_empty() {
            other.restore(&loading.into_state());
            self.bench.continue_on(other);
        } else {
            self.stays += 1;
        }
        Ok(observed)
    }
}

/// Returns `true` if KVM's format can hold each state. It keeps a pending LPI with its event, and
/// only if the event's collection is mapped.
fn fits(program: &Program) -> bool {
    let parts = |step: &Step| match step {
        Step::Command(Command::Movall { .. }) => true,
        Step::Command(Command::Mapc { action, .. }) => *action == MapAction::Unmap,
        _ => false,
    };
    program.shape.wired.is_none() && !program.shape.is_direct && !program.steps.iter().any(parts)
}

#[test]
fn kept_programs_continue_from_kvms_attributes() {
    for (name, program) in kept().into_iter().filter(|(_, program)| fits(program)) {
        let config = kvm_config(program.shape.cpus, 64).with_its(vec![kvm_its_config(ITS)]);
        let bench = Bench::configured(program.shape, false, vec![config]);
        let mut machine = ThroughKvm { bench, stays: 0 };
        assert_eq!(program.judge(&mut machine), Ok(()), "{name}");
        // A save reports an enabled ITS without collections.
        assert_eq!(machine.stays, 1, "{name}");
    }
}
