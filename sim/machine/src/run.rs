//! The workload: every device sends messages, handlers count them, and the vectors' affinities
//! change under load.

mod load;
mod options;
#[cfg(test)]
mod tests;
mod verdict;

pub use options::{Progress, RunOptions};
pub(crate) use verdict::concluded;

use crate::cpu::{CpuThreads, Timing};
use crate::error::RunError;
use crate::machine::Machine;
use crate::migration::MigratorThread;
use crate::report::Report;
use crate::system::{self, PoweredMachine};
use load::Load;
use std::sync::Arc;
use std::time::Instant;

/// Lets the drivers discover and program `machine`, runs the workload on real threads, and judges
/// the result.
///
/// Each device sends its messages from its own thread, so two runs differ even with the same seed;
/// [`simulate`](crate::simulate) runs can be replayed. `progress` is called several times per
/// second, on the caller's thread.
///
/// # Errors
/// Returns an error if a driver fails, or if a controller cannot be migrated. Lost messages are not
/// errors; the report lists them.
pub fn run(
    mut machine: Machine,
    options: &RunOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, RunError> {
    let sleepers = Arc::clone(&machine.sleepers);
    let mut powered = PoweredMachine::on(&mut machine);
    powered.records.timing = Timing::Measured;
    let cpus = CpuThreads::start(&powered.cores, &sleepers);
    let migrator = powered.migrator.as_deref();
    let moving = powered.migrator.as_ref().map(MigratorThread::start);
    let system = system::boot(machine, &powered, &cpus)?;
    let load = Load::new(&system, &cpus, options, migrator);
    let start = Instant::now();
    let outcome = load.run(progress);
    let elapsed = start.elapsed();
    let counts = outcome?;
    drop(moving);
    drop(cpus);
    concluded(&system, counts, migrator, elapsed)
}
