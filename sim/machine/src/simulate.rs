//! A simulation of the machine on a single thread. A seeded scheduler decides what happens next,
//! including which other activity interrupts a driver between two register accesses. The same seed
//! always produces the same trace.

mod scheduler;

use crate::disturbance::{Disturbance, DisturbanceCounts};
use crate::error::RunError;
use crate::machine::Machine;
use crate::report::Report;
use crate::rng::Rng;
use crate::run::{RunOptions, concluded};
use crate::system::{self, PoweredMachine, System};
use scheduler::Scheduler;
use std::sync::Arc;
use std::time::Instant;

/// On average, the simulation causes a disturbance once in this many steps.
const MOVE_EVERY: usize = 12;
const RARE_EVERY: usize = 400;
/// The simulation ends after this many consecutive steps without progress.
const HOPELESS: u32 = 20_000;

/// Runs the workload on one thread, in an order determined by `options.seed`, and judges the
/// result.
///
/// # Errors
/// Returns an error if a driver fails, or if a controller cannot be migrated. Lost messages are not
/// errors; the report lists them.
pub fn simulate(mut machine: Machine, options: &RunOptions) -> Result<Report, RunError> {
    let start = Instant::now();
    let sleepers = Arc::clone(&machine.sleepers);
    let powered = PoweredMachine::on(&mut machine);
    let scheduler = Arc::new(Scheduler::new(
        powered.cores.clone(),
        sleepers,
        options,
        powered.migrator.clone(),
    ));
    powered.platform.interleave_by(Arc::clone(&scheduler) as _);
    let system = Arc::new(system::boot(machine, &powered, &*scheduler)?);
    scheduler.take_over(&system);
    let mut counts = run(&system, &scheduler, options)?;
    scheduler.settle();
    scheduler.send_what_was_kept_back();
    scheduler.settle();
    // Handlers that were still running have let vectors move.
    counts.moves = scheduler.moves();
    concluded(&system, counts, powered.migrator.as_deref(), start.elapsed())
}

/// Runs the machine until every message has been sent, and performs the disturbances that the
/// options enable.
fn run(
    system: &System,
    scheduler: &Scheduler,
    options: &RunOptions,
) -> Result<DisturbanceCounts, RunError> {
    let (mut rng, mut counts) = (Rng::new(options.seed, 1), DisturbanceCounts::default());
    let (mut progress, mut idle) = (0, 0);
    // If a message is lost, the device that waits for it would wait forever.
    while scheduler.has_more_to_send() && idle < HOPELESS {
        scheduler.step();
        idle = if scheduler.progress() == progress { idle + 1 } else { 0 };
        progress = scheduler.progress();
        if rng.one_in(MOVE_EVERY) {
            scheduler.move_any();
        }
        for kind in Disturbance::ALL.into_iter().filter(|kind| *kind != Disturbance::Moves) {
            if options.disturbances.contains(&kind) && rng.one_in(RARE_EVERY) {
                let meanwhile = |rng: &mut Rng| (0..rng.below(50)).for_each(|_| scheduler.step());
                scheduler.as_task(|| {
                    let done = system.disturb(kind, scheduler, &mut rng, meanwhile)?;
                    counts.count(kind, done);
                    Ok(())
                });
            }
        }
        if let Some(reason) = scheduler.failure() {
            return Err(RunError::of_disturbance(reason));
        }
    }
    Ok(counts)
}
