//! The workload: every device sends, every handler counts, affinities move meanwhile.

mod load;
#[cfg(test)]
mod tests;
mod verdict;

pub(crate) use load::DisturbanceCounts;
pub(crate) use verdict::verdict;

use crate::cpu::CpuThreads;
use crate::error::RunError;
use crate::machine::Machine;
use crate::migration::{Migrator, MigratorThread};
use crate::report::Report;
use crate::system::{self, PoweredMachine};
use load::Load;
use std::sync::Arc;
use std::time::Instant;

/// The options of a run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Messages per vector.
    pub messages: u32,
    /// Decides every random choice.
    pub seed: u64,
    /// The disturbances meanwhile.
    pub disturbances: Disturbances,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { messages: 1000, seed: 1, disturbances: Disturbances::default() }
    }
}

/// The disturbances while the devices send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disturbances {
    /// Moves of vectors between CPUs.
    pub moves: Moves,
    /// CPU hotplug.
    pub cpus: CpuHotplug,
    /// Removal and return of devices.
    pub devices: DeviceHotplug,
}

impl Default for Disturbances {
    fn default() -> Self {
        Self { moves: Moves::Random, cpus: CpuHotplug::AlwaysOn, devices: DeviceHotplug::Stay }
    }
}

/// Moves of vectors between CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moves {
    /// They stay where they were placed.
    None,
    /// All the time, to a random CPU.
    Random,
}

/// CPU hotplug during a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuHotplug {
    /// All CPUs stay on line.
    AlwaysOn,
    /// Now and then one goes off line and comes back; the boot CPU stays.
    Replugged,
}

/// Removal and return of devices during a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceHotplug {
    /// They stay.
    Stay,
    /// Now and then one is removed with all its vectors, and added again.
    Readded,
}

/// The progress of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Messages sent so far.
    pub sent: u64,
    /// Messages to be sent.
    pub total: u64,
}

/// Lets the drivers discover and program `machine`, runs the workload on real threads, and judges
/// it.
///
/// `progress` is called a few times a second, from the caller's thread.
///
/// # Errors
/// Only if the drivers failed, or a controller could not be moved; losses are in the report.
pub fn run(
    mut machine: Machine,
    options: &RunOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, RunError> {
    let sleepers = Arc::clone(&machine.sleepers);
    let powered = PoweredMachine::on(&mut machine);
    let cpus = CpuThreads::start(&powered.cores, &sleepers);
    let migrator = powered.migrator.as_deref();
    let moving = powered.migrator.as_ref().map(MigratorThread::start);
    let system = system::boot(machine, &powered, &cpus)?;
    let load = Load::new(&system, &cpus, options, migrator);
    let start = Instant::now();
    let outcome = load.run(progress);
    let elapsed = start.elapsed();
    let mut counts = outcome?;
    drop(moving);
    drop(cpus);
    counts.migrated = migrator.map_or(Ok(0), Migrator::moved).map_err(RunError::NotMoved)?;
    match system.silent_fault() {
        Some(reason) => {
            Err(RunError::Driver { operation: "an operation without an answer".to_owned(), reason })
        }
        None => Ok(verdict(&system, counts, elapsed)),
    }
}
