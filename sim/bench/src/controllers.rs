//! Vector setup, affinity moves and delivery for each controller, with the same device on each
//! machine.

use crate::probe::{MeasureError, Probe, Reference, each};
use doorbell_machine::sequential::{BootedDevice, BootedMachine};
use doorbell_machine::{BuildOptions, ControllerChoice, build, embedded};
use msi_types::Cpu;
use std::rc::Rc;
use std::time::Instant;

/// The machines and controllers that are measured.
const MACHINES: [(&str, ControllerChoice); 4] = [
    ("harbour", ControllerChoice::Its),
    ("lagoon", ControllerChoice::DirectLpi),
    ("estuary", ControllerChoice::Mbi),
    ("cove", ControllerChoice::V2m),
];
/// Number of moves or messages per sample.
const REPEATS: u32 = 16;

type Sample = fn(&BootedMachine, BootedDevice<'_>) -> Result<f64, String>;

/// Returns the probes `setup-`, `move-` and `deliver-` for each controller.
pub(crate) fn probes() -> Result<Vec<Probe>, MeasureError> {
    let benches = MACHINES.into_iter().map(|(machine, choice)| Bench::new(machine, choice));
    let benches = benches.map(|bench| bench.map(Rc::new)).collect::<Result<Vec<_>, _>>()?;
    let cases: [(&str, Sample); 3] = [("setup", set_up), ("move", moves), ("deliver", deliveries)];
    let probes = cases.into_iter().flat_map(|(what, sample)| {
        benches.iter().map(move |bench| bench.probe(what, sample)).collect::<Vec<_>>()
    });
    Ok(probes.collect())
}

/// A machine whose drivers have been brought up.
struct Bench {
    choice: ControllerChoice,
    machine: BootedMachine,
    /// Index of the measured device. This device is not a PCI function.
    device: usize,
}

impl Bench {
    fn new(name: &'static str, choice: ControllerChoice) -> Result<Self, MeasureError> {
        let unusable = |reason: &dyn ToString| MeasureError::Machine(name, reason.to_string());
        let embedded =
            embedded::machine(name).ok_or_else(|| unusable(&"the machine does not exist"))?;
        let description = embedded.firmware.describe().map_err(|error| unusable(&error))?;
        let options = BuildOptions { controller: choice, ..BuildOptions::default() };
        let machine = build(&description, &options).map_err(|error| unusable(&error))?;
        let machine = BootedMachine::boot(machine)?;
        let working = |device: BootedDevice<'_>| !device.is_pci() && device.vectors() != 0;
        let device = machine.devices().position(working);
        let device = device.ok_or_else(|| unusable(&"the machine has no platform device"))?;
        Ok(Self { choice, machine, device })
    }

    fn probe(self: &Rc<Self>, what: &str, sample: Sample) -> Probe {
        let bench = Rc::clone(self);
        Probe::new(
            format!("{what}-{}", self.choice.name()),
            Reference::FetchOr,
            move || match bench.machine.device(bench.device) {
                Some(device) => sample(&bench.machine, device),
                None => Err("the device was removed".to_owned()),
            },
        )
    }
}

/// Returns the nanoseconds per vector.
fn set_up(_: &BootedMachine, device: BootedDevice<'_>) -> Result<f64, String> {
    device.remove();
    let start = Instant::now();
    device.add().map_err(|error| error.to_string())?;
    Ok(each(start.elapsed(), u32::try_from(device.vectors()).unwrap_or(u32::MAX)))
}

fn moves(_: &BootedMachine, device: BootedDevice<'_>) -> Result<f64, String> {
    let start = Instant::now();
    for round in 0..REPEATS {
        if !device.move_vector(0, Cpu::new(round % 2)).map_err(|error| error.to_string())? {
            return Err("a vector did not move".to_owned());
        }
    }
    Ok(each(start.elapsed(), REPEATS))
}

fn deliveries(machine: &BootedMachine, device: BootedDevice<'_>) -> Result<f64, String> {
    let to = Cpu::new(1);
    device.move_vector(0, to).map_err(|error| error.to_string())?;
    machine.settle();
    let start = Instant::now();
    for _ in 0..REPEATS {
        if !device.send(0) || !machine.take_interrupt(to) {
            return Err("a message was not delivered".to_owned());
        }
    }
    Ok(each(start.elapsed(), REPEATS))
}
