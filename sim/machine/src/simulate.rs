//! A simulation of the machine on a single thread. A seeded scheduler decides what happens next,
//! including which other activity interrupts a driver between two register accesses. The same seed
//! always produces the same trace.

mod scheduler;

use crate::error::RunError;
use crate::machine::Machine;
use crate::report::Report;
use crate::rng::Rng;
use crate::run::{
    CpuHotplug, DeviceHotplug, DisturbanceCounts, RunOptions, Suspensions, concluded,
};
use crate::system::{self, PoweredMachine, SuspendOutcome, System};
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

/// Runs the machine until every message has been sent.
fn run(
    system: &System,
    scheduler: &Scheduler,
    options: &RunOptions,
) -> Result<DisturbanceCounts, RunError> {
    let mut disturber = Disturber {
        system,
        scheduler,
        options,
        rng: Rng::new(options.seed, 1),
        counts: DisturbanceCounts::default(),
    };
    let (mut progress, mut idle) = (0, 0);
    // If a message is lost, the device that waits for it would wait forever.
    while scheduler.has_more_to_send() && idle < HOPELESS {
        scheduler.step();
        idle = if scheduler.progress() == progress { idle + 1 } else { 0 };
        progress = scheduler.progress();
        disturber.perhaps_act();
        if let Some(reason) = scheduler.failure() {
            let operation = "a change while the machine was busy".to_owned();
            return Err(RunError::Driver { operation, reason });
        }
    }
    Ok(disturber.counts)
}

/// Performs the disturbances that the options enable.
struct Disturber<'a> {
    system: &'a System,
    scheduler: &'a Scheduler,
    options: &'a RunOptions,
    rng: Rng,
    counts: DisturbanceCounts,
}

impl Disturber<'_> {
    fn perhaps_act(&mut self) {
        let disturbances = self.options.disturbances;
        let scheduler = self.scheduler;
        if self.rng.one_in(MOVE_EVERY) {
            scheduler.move_any();
        }
        if disturbances.cpus == CpuHotplug::Replugged && self.rng.one_in(RARE_EVERY) {
            scheduler.as_task(|| self.replug_a_cpu());
        }
        if disturbances.suspensions == Suspensions::NowAndThen && self.rng.one_in(RARE_EVERY) {
            scheduler.as_task(|| self.suspend_the_machine());
        }
        if disturbances.devices == DeviceHotplug::Readded && self.rng.one_in(RARE_EVERY) {
            scheduler.as_task(|| self.readd_a_device());
        }
    }

    fn replug_a_cpu(&mut self) -> Result<(), String> {
        let meanwhile = |rng: &mut Rng| (0..rng.below(50)).for_each(|_| self.scheduler.step());
        let replugged = self.system.replug_any_cpu(self.scheduler, &mut self.rng, meanwhile)?;
        self.counts.replugged += u64::from(replugged);
        Ok(())
    }

    fn suspend_the_machine(&mut self) -> Result<(), String> {
        let suspended = self.system.suspend_and_resume(self.scheduler)?;
        self.counts.suspended += u64::from(suspended == SuspendOutcome::Done);
        Ok(())
    }

    fn readd_a_device(&mut self) -> Result<(), String> {
        self.counts.readded += u64::from(self.system.readd_any_device(&mut self.rng)?);
        Ok(())
    }
}
