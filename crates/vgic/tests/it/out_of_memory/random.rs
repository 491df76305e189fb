//! Executes random programs with an allocator that fails at random.

use super::{is_idle, run_with};
use doorbell_test_support::guest::program::{Bench, Draw, Shape, Step, dice};
use doorbell_test_support::with_allocations;
use std::iter;
use vgic::Progress;
use vgic::saved_state::SavedState;

/// Number of random programs, and of their random steps.
const PROGRAMS: u64 = 64;
const STEPS: usize = 60;
const SHAPE: Shape = Shape { cpus: 3, lpis: 64, is_direct: false, wired: None };
/// Numbers of allocations that succeed during a command.
const ALLOCATIONS: [u32; 5] = [0, 1, 2, 3, u32::MAX];

/// Creates a machine whose LPIs have several priorities, and some of which are disabled.
fn bench() -> Bench {
    let mut bench = Bench::new(SHAPE);
    for lpi in 0..64_u8 {
        let configuration = (0x20 * (lpi % 7)) | u8::from(lpi % 5 != 0);
        bench.take_awake(Step::Configure { lpi: 8192 + u32::from(lpi), configuration });
    }
    bench
}

/// Saves the machine without the state of the queue.
fn saved(bench: &mut Bench) -> SavedState {
    let mut state = bench.machine.save();
    for its in &mut state.its {
        (its.creadr, its.cwriter) = (0, 0);
    }
    state
}

/// Handles all interrupts of a vCPU. Returns them in ascending order.
fn handled(bench: &mut Bench, cpu: usize) -> Vec<u64> {
    let handle = || Some(bench.machine.handle(cpu)).filter(|intid| *intid != 1023);
    let mut handled: Vec<_> = iter::from_fn(handle).collect();
    handled.sort_unstable();
    handled
}

#[test]
fn commands_accepted_despite_failing_allocations_take_effect() {
    let mut outcomes = [0, 0];
    for seed in 0..PROGRAMS {
        let below = &mut dice(seed);
        let program = Draw { shape: SHAPE, shares_lpis: false }.program(STEPS, below);
        let (mut short, mut reference) = (bench(), bench());
        for step in program.steps {
            match step {
                Step::Command(command) | Step::Post(command) => {
                    let (machine, faults) = (&short.machine, || short.count_faults());
                    let before = faults();
                    run_with(machine, ALLOCATIONS[below(5) as usize], [command]);
                    // A command in progress must complete once allocations succeed again.
                    assert_eq!(machine.gic.poll(), Progress::Done);
                    assert!(is_idle(machine));
                    let is_executed = faults() == before;
                    outcomes[usize::from(is_executed)] += 1;
                    if is_executed {
                        let is_accepted = run_with(&reference.machine, u32::MAX, [command]);
                        assert!(is_accepted, "{seed}: {command:?}");
                    }
                }
                Step::Send { device, event } => {
                    let sent = with_allocations(0, || short.machine.send(device, event));
                    assert_eq!(sent, reference.machine.send(device, event), "{seed}");
                }
                Step::Handle { cpu } => {
                    let expected = handled(&mut reference, cpu);
                    assert_eq!(handled(&mut short, cpu), expected, "{seed}");
                }
                _ => {}
            }
        }
        assert_eq!(saved(&mut short), saved(&mut reference), "{seed}");
        for cpu in 0..3 {
            assert_eq!(handled(&mut short, cpu), handled(&mut reference, cpu), "{seed}");
        }
    }
    assert!(outcomes.iter().all(|count| *count > 300), "refused and executed: {outcomes:?}");
}
