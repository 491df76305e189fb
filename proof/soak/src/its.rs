//! One ITS, or redistributors with direct LPIs, against an abstract GIC. The guest executes random
//! commands, right and wrong, and changes the registers; devices send; and the machine may be saved
//! and restored at every step. Compared are each message's delivery, the reasons of failed
//! commands, and the LPIs that each CPU takes.

use crate::outcome::Outcome;
use doorbell_test_support::guest::program::{Bench, Draw, Program, Shape, Step, Way};
use fastrand::Rng;
use vgic::its::ErrorPolicy;

/// Number of random steps with one machine.
const STEPS: usize = 400;

/// Sends `messages` messages.
pub(crate) fn run(seed: u64, messages: u64) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let mut outcome = Outcome::default();
    while outcome.messages < messages {
        let shape = Shape { cpus: 3, lpis: 64, is_direct: rng.u8(..5) == 0, wired: None };
        let draw = Draw { shape, shares_lpis: rng.u8(..3) == 0 };
        let mut program = draw.program(STEPS, &mut |bound| rng.u32(..bound));
        let machine = rng.u64(..);
        if let Err(problem) = judge(&program, machine) {
            program.shrink(|program| judge(program, machine).is_err());
            panic!("{problem}; the shortest program, for machine {machine}:\n{program}");
        }
        let count = |is_meant: fn(&Step) -> bool| {
            u64::try_from(program.steps.iter().filter(|step| is_meant(step)).count()).unwrap()
        };
        outcome.messages += count(|step| matches!(step, Step::Send { .. } | Step::SetLpi { .. }));
        outcome.count("commands", count(|it| matches!(it, Step::Command(_) | Step::Post(_))));
        outcome.count("machines restored", count(|step| *step == Step::Restore));
    }
    outcome
}

/// Carries the program out on a machine of random features, which the guest cannot observe.
fn judge(program: &Program, machine: u64) -> Result<(), String> {
    let mut rng = Rng::with_seed(machine);
    let policy = if rng.u8(..3) == 0 { ErrorPolicy::Stall } else { ErrorPolicy::Skip };
    let mut config = || program.shape.config_with(policy, [1, 1, 3, 1024][rng.usize(..4)]);
    let successors = vec![config(), config(), config()];
    let mut bench = Bench::configured(program.shape, rng.bool(), successors);
    bench.way = if rng.u8(..8) == 0 { Way::Restored } else { Way::Plain };
    program.judge(&mut bench)
}
