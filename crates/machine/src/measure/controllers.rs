//! Vector set-up, affinity moves and delivery with each controller: the same device on each
//! machine.

use super::{MeasureError, Probe, Reference, each};
use crate::cpu::CpuCore;
use crate::embedded;
use crate::machine::{BuildOptions, ControllerChoice, build};
use crate::system::{
    AffinityChange, Device, PoweredMachine, Removal, SequentialCpus, System, boot,
};
use msi_types::Cpu;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// The measured machines and controllers.
const MACHINES: [(&str, ControllerChoice); 4] = [
    ("harbour", ControllerChoice::Its),
    ("lagoon", ControllerChoice::DirectLpi),
    ("estuary", ControllerChoice::Mbi),
    ("cove", ControllerChoice::V2m),
];
/// Moves, and messages, in one sample.
const REPEATS: u32 = 16;

type Sample = fn(&Bench, &Device) -> Result<f64, String>;

/// `setup-`, `move-` and `deliver-` with each controller.
pub(super) fn probes() -> Result<Vec<Probe>, MeasureError> {
    let benches = MACHINES.into_iter().map(|(machine, choice)| Bench::new(machine, choice));
    let benches = benches.map(|bench| bench.map(Rc::new)).collect::<Result<Vec<_>, _>>()?;
    let cases: [(&str, Sample); 3] =
        [("setup", Bench::set_up), ("move", Bench::moves), ("deliver", Bench::deliveries)];
    let probes = cases.into_iter().flat_map(|(what, sample)| {
        benches.iter().map(move |bench| bench.probe(what, sample)).collect::<Vec<_>>()
    });
    Ok(probes.collect())
}

/// One machine with its drivers up, on the caller's thread.
struct Bench {
    choice: ControllerChoice,
    system: System,
    cores: Vec<Arc<CpuCore>>,
    /// Index of the measured device, one outside of PCI.
    device: usize,
}

impl Bench {
    fn new(name: &'static str, choice: ControllerChoice) -> Result<Self, MeasureError> {
        let unusable = |reason: &dyn ToString| MeasureError::Machine(name, reason.to_string());
        let embedded = embedded::machine(name).ok_or_else(|| unusable(&"it does not exist"))?;
        let description = embedded.firmware.describe().map_err(|error| unusable(&error))?;
        let options = BuildOptions { controller: choice, ..BuildOptions::default() };
        let mut machine = build(&description, &options).map_err(|error| unusable(&error))?;
        let powered = PoweredMachine::on(&mut machine);
        let system = boot(machine, &powered, &SequentialCpus::new(&powered))?;
        let working = |device: &Device| !device.is_pci() && !device.vectors().is_empty();
        let device = system
            .devices
            .iter()
            .position(working)
            .ok_or_else(|| unusable(&"no platform device"))?;
        Ok(Self { choice, system, cores: powered.cores, device })
    }

    fn probe(self: &Rc<Self>, what: &str, sample: Sample) -> Probe {
        let bench = Rc::clone(self);
        Probe::new(
            format!("{what}-{}", self.choice.name()),
            Reference::FetchOr,
            move || match bench.system.devices.get(bench.device) {
                Some(device) => sample(&bench, device),
                None => Err("the device is gone".to_owned()),
            },
        )
    }

    /// Nanoseconds for each vector.
    fn set_up(&self, device: &Device) -> Result<f64, String> {
        device.remove(&self.system, Removal::Orderly);
        let start = Instant::now();
        device.add(&self.system)?;
        Ok(each(start.elapsed(), u32::try_from(device.vectors().len()).unwrap_or(u32::MAX)))
    }

    fn moves(_: &Self, device: &Device) -> Result<f64, String> {
        let start = Instant::now();
        for round in 0..REPEATS {
            if device.move_vector(0, Cpu::new(round % 2))? != AffinityChange::Done {
                return Err("a vector did not move".to_owned());
            }
        }
        Ok(each(start.elapsed(), REPEATS))
    }

    fn deliveries(&self, device: &Device) -> Result<f64, String> {
        let to = Cpu::new(1);
        device.move_vector(0, to)?;
        let (Some(vector), Some(core)) = (device.vectors().first(), self.cores.get(to.index()))
        else {
            return Err("no vector".to_owned());
        };
        for core in &self.cores {
            while core.take_one() {}
        }
        let start = Instant::now();
        for _ in 0..REPEATS {
            if !device.send(vector) || !core.take_one() {
                return Err("a message was not delivered".to_owned());
            }
        }
        Ok(each(start.elapsed(), REPEATS))
    }
}
