//! How long things take with each controller, side by side: the same device on each machine, sampled in turn.

use crate::cpu::CpuCore;
use crate::embedded;
use crate::machine::{BuildOptions, ControllerChoice, build};
use crate::run::RunError;
use crate::system::{Departure, Moved, Powered, System, Unit, boot};
use crate::trespass::InTurn;
use gic_firmware::devicetree;
use msi_types::Cpu;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is measured, and where.
const MACHINES: [(&str, ControllerChoice); 4] = [
    ("harbour", ControllerChoice::Its),
    ("lagoon", ControllerChoice::DirectLpi),
    ("estuary", ControllerChoice::Mbi),
    ("cove", ControllerChoice::V2m),
];
/// Samples of each case.
const ROUNDS: usize = 301;
/// Operations of the floor in one sample.
const FLOOR: u32 = 10_000;
/// Moves, and messages, in one sample.
const REPEATS: u32 = 16;

/// Measured times.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Measurements {
    /// An uncontended `fetch_or`, in nanoseconds (median).
    pub floor_ns: f64,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One measured case. Times in nanoseconds for one operation, models included.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Case {
    /// `setup-`, `move-` or `deliver-` and the controller: setting up a device by its vectors, one affinity change,
    /// one message from the device's store until its interrupt was handled and ended.
    pub name: String,
    /// The median.
    pub median_ns: f64,
    /// The fastest.
    pub min_ns: f64,
    /// The median in units of [`Measurements::floor_ns`].
    pub ratio: f64,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The drivers failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// An embedded machine cannot be used: a defect of this crate.
    #[error("the embedded machine {0} cannot be measured: {1}")]
    Machine(&'static str, String),
}

/// Measures vector set-up, affinity moves and delivery with each controller.
///
/// # Errors
/// The drivers failed, or an operation did.
pub fn measure() -> Result<Measurements, MeasureError> {
    let benches = MACHINES.into_iter().map(|(machine, choice)| Bench::new(machine, choice));
    let mut benches = benches.collect::<Result<Vec<_>, _>>()?;
    let mut floor = Vec::new();
    for _ in 0..ROUNDS {
        floor.push(floor_sample());
        for bench in &mut benches {
            bench.sample().map_err(|reason| MeasureError::Machine(bench.machine, reason))?;
        }
    }
    let (floor_ns, _) = median_and_min(&mut floor);
    let mut cases = Vec::new();
    for (what, samples) in [("setup", 0), ("move", 1), ("deliver", 2)] {
        for bench in &mut benches {
            let Some(samples) = bench.samples.get_mut(samples) else { continue };
            let (median_ns, min_ns) = median_and_min(samples);
            let name = format!("{what}-{}", bench.choice.name());
            cases.push(Case { name, median_ns, min_ns, ratio: median_ns / floor_ns });
        }
    }
    Ok(Measurements { floor_ns, cases })
}

/// One machine with its drivers up, on the caller's thread.
struct Bench {
    machine: &'static str,
    choice: ControllerChoice,
    system: System,
    cores: Vec<Arc<CpuCore>>,
    /// Which of the system's devices: one outside of PCI.
    unit: usize,
    /// Set-up, move, delivery.
    samples: [Vec<f64>; 3],
}

impl Bench {
    fn new(name: &'static str, choice: ControllerChoice) -> Result<Self, MeasureError> {
        let unusable = |reason: &dyn ToString| MeasureError::Machine(name, reason.to_string());
        let embedded = embedded::machine(name).ok_or_else(|| unusable(&"it does not exist"))?;
        let description = devicetree::parse(embedded.dtb).map_err(|error| unusable(&error))?;
        let options = BuildOptions { controller: choice, ..BuildOptions::default() };
        let mut machine = build(&description, &options).map_err(|error| unusable(&error))?;
        let powered = Powered::on(&mut machine);
        let system = boot(machine, &powered, &InTurn(powered.cores.clone()))?;
        let working = |unit: &Unit| !unit.is_pci() && !unit.vectors().is_empty();
        let unit = system.units.iter().position(working).ok_or_else(|| unusable(&"no platform device"))?;
        Ok(Self { machine: name, choice, system, cores: powered.cores, unit, samples: Default::default() })
    }

    fn sample(&mut self) -> Result<(), String> {
        let Some(unit) = self.system.units.get(self.unit) else { return Ok(()) };
        let times = [self.set_up(unit)?, Self::moves(unit)?, self.deliveries(unit)?];
        for (samples, time) in self.samples.iter_mut().zip(times) {
            samples.push(time);
        }
        Ok(())
    }

    /// Nanoseconds for each vector.
    fn set_up(&self, unit: &Unit) -> Result<f64, String> {
        unit.remove(&self.system, Departure::Orderly);
        let start = Instant::now();
        unit.add(&self.system)?;
        Ok(each(start.elapsed(), u32::try_from(unit.vectors().len()).unwrap_or(u32::MAX)))
    }

    fn moves(unit: &Unit) -> Result<f64, String> {
        let start = Instant::now();
        for round in 0..REPEATS {
            if unit.move_vector(0, Cpu::new(round % 2))? != Moved::Done {
                return Err("a vector did not move".to_owned());
            }
        }
        Ok(each(start.elapsed(), REPEATS))
    }

    fn deliveries(&self, unit: &Unit) -> Result<f64, String> {
        let to = Cpu::new(1);
        unit.move_vector(0, to)?;
        let (Some(vector), Some(core)) = (unit.vectors().first(), self.cores.get(to.index())) else {
            return Err("no vector".to_owned());
        };
        for core in &self.cores {
            while core.take_one() {}
        }
        let start = Instant::now();
        for _ in 0..REPEATS {
            if !unit.send(vector) || !core.take_one() {
                return Err("a message was not delivered".to_owned());
            }
        }
        Ok(each(start.elapsed(), REPEATS))
    }
}

/// An atomic read-modify-write that nobody else is interested in.
fn floor_sample() -> f64 {
    let word = AtomicU64::new(0);
    let start = Instant::now();
    for bit in 0..FLOOR {
        std::hint::black_box(&word).fetch_or(1 << (bit % 64), Ordering::AcqRel);
    }
    each(start.elapsed(), FLOOR)
}

fn each(time: Duration, operations: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(operations.max(1))
}

fn median_and_min(samples: &mut [f64]) -> (f64, f64) {
    samples.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| samples.get(index).copied().unwrap_or(0.0);
    (at(samples.len() / 2), at(0))
}
