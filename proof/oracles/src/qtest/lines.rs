//! The interrupt lines that a script can drive or intercept.

use super::answer::IrqChange;
use super::request::{Interception, Mistake, Pin};
use msi_types::{Cpu, Level, Line, SetLine};
use std::sync::Arc;
use vgic::{Inputs, Vcpu, Vgic};

/// INTID of the first PPI.
const PPIS: u64 = 16;
/// Number of INTIDs private to each CPU.
const PRIVATE: u64 = 32;
/// Number of CPU inputs: IRQ, FIQ, and the virtual versions of both.
const CPU_INPUTS: u64 = 4;
/// QEMU's name for unnamed inputs.
const UNNAMED: &str = "unnamed-gpio-in";
/// Name of the GIC's outputs. The outputs are connected to the IRQ inputs of all CPUs, followed by
/// their FIQ inputs.
const SYSBUS: &str = "sysbus-irq";
/// A CPU's named outputs. These outputs are never asserted, because CPUs don't execute.
const OF_CPUS: [&str; 2] = ["gicv3-maintenance-interrupt", "pmu-interrupt"];

/// The object that a path refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Object {
    Cpu(usize),
    Gic,
    Its,
}

/// The lines intercepted by a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WatchedLines {
    /// One CPU's inputs, starting with its IRQ.
    InputsOf(usize),
    /// The GIC's outputs. Line n is the IRQ of CPU n, and the FIQs of all CPUs follow the last IRQ.
    OutputsOfGic,
    /// The GIC's inputs.
    InputsOfGic,
    /// Lines that never change, e.g. those of timers, which this machine doesn't have.
    Nothing,
}

/// The lines driven and intercepted by a script.
pub(super) struct Lines {
    gic: Arc<Vgic>,
    intercepted: Option<(Object, WatchedLines)>,
    /// The GIC inputs that are asserted.
    asserted: Vec<u64>,
    /// The last reported state of each CPU's inputs, if they are intercepted.
    told: Vec<Inputs>,
}

impl Lines {
    pub(super) fn new(gic: Arc<Vgic>) -> Self {
        let told = vec![Inputs::default(); gic.config().cpus.len()];
        Self { gic, intercepted: None, asserted: Vec::new(), told }
    }

    /// Intercepts an object's lines from now on. Only one object can be intercepted, and the first
    /// request determines which of its lines are reported.
    pub(super) fn intercept(&mut self, path: &str, what: &Interception) -> Result<(), Mistake> {
        let object = self.object(path)?;
        if matches!(what, Interception::Inputs(Some(_))) {
            return Err(Mistake::NamedInputs);
        }
        match self.intercepted {
            Some((other, _)) if other != object => return Err(Mistake::OtherIntercepted),
            Some(_) => {}
            None => self.intercepted = Some((object, watched(object, what)?)),
        }
        Ok(())
    }

    /// Drives a GIC input. Scripts cannot drive a CPU's inputs, because the GIC drives them.
    pub(super) fn set(
        &mut self,
        path: &str,
        pin: &Pin,
        level: u64,
    ) -> Result<Option<IrqChange>, Mistake> {
        let line = match self.object(path)? {
            Object::Gic if pin.name == UNNAMED => {
                self.line(pin.number).ok_or(Mistake::UnknownLine)?
            }
            Object::Cpu(_) if pin.name == UNNAMED && pin.number < CPU_INPUTS => return Ok(None),
            _ => return Err(Mistake::UnknownLine),
        };
        let level = if level == 0 { Level::Low } else { Level::High };
        self.gic.set_line(line, level);
        let changed = self.remember(pin.number, level);
        let watched = matches!(self.intercepted, Some((_, WatchedLines::InputsOfGic)));
        let number = usize::try_from(pin.number).unwrap_or(usize::MAX);
        Ok((changed && watched).then_some(match level {
            Level::High => IrqChange::Raised(number),
            Level::Low => IrqChange::Lowered(number),
        }))
    }

    /// Records an input's level. Returns `true` if it changed.
    fn remember(&mut self, number: u64, level: Level) -> bool {
        match (self.asserted.binary_search(&number), level) {
            (Ok(_), Level::High) | (Err(_), Level::Low) => return false,
            (Ok(at), Level::Low) => drop(self.asserted.remove(at)),
            (Err(at), Level::High) => self.asserted.insert(at, number),
        }
        true
    }

    /// Returns the changes to intercepted CPU inputs since the last call, in QEMU's order: for each
    /// CPU, first the FIQ, then the IRQ.
    pub(super) fn changes_of_inputs(&mut self, vcpus: &mut [Vcpu]) -> Vec<IrqChange> {
        let cpus = vcpus.len();
        let (watched, first) = match self.intercepted {
            Some((_, WatchedLines::InputsOf(cpu))) => (cpu..cpu + 1, cpu),
            Some((_, WatchedLines::OutputsOfGic)) => (0..cpus, 0),
            _ => return Vec::new(),
        };
        let first_fiq = watched.len();
        let mut changes = Vec::new();
        for cpu in watched {
            let (Some(vcpu), Some(told)) = (vcpus.get_mut(cpu), self.told.get_mut(cpu)) else {
                continue;
            };
            let now = vcpu.inputs();
            let then = std::mem::replace(told, now);
            let fiq = IrqChange::of(first_fiq + cpu - first, then.fiq, now.fiq);
            let irq = IrqChange::of(cpu - first, then.irq, now.irq);
            changes.extend(fiq.into_iter().chain(irq));
        }
        changes
    }

    /// Returns the line for a GIC input. The SPIs have the lowest numbers, followed by 32 inputs
    /// per CPU.
    fn line(&self, input: u64) -> Option<Line> {
        let config = self.gic.config();
        let spis = u64::from(config.spis);
        let Some(private) = input.checked_sub(spis) else {
            return Some(Line::Spi(u32::try_from(PRIVATE + input).ok()?));
        };
        let (cpu, intid) = (private / PRIVATE, private % PRIVATE);
        let exists = cpu < config.cpus.len() as u64 && intid >= PPIS;
        let cpu = Cpu::new(u32::try_from(cpu).ok()?);
        exists.then_some(Line::Ppi { cpu, intid: u32::try_from(intid).ok()? })
    }

    fn object(&self, path: &str) -> Result<Object, Mistake> {
        let cpus = self.gic.config().cpus.len();
        let index = path
            .strip_prefix("/machine/unattached/device[")
            .and_then(|rest| rest.strip_suffix(']'));
        let index: usize =
            index.and_then(|index| index.parse().ok()).ok_or(Mistake::UnknownDevice)?;
        match index.checked_sub(cpus) {
            None => Ok(Object::Cpu(index)),
            Some(0) => Ok(Object::Gic),
            Some(1) => Ok(Object::Its),
            Some(_) => Err(Mistake::UnknownDevice),
        }
    }
}

/// Returns the lines that an interception of this object reports. Returns an error if the object
/// has no lines of that kind.
fn watched(object: Object, what: &Interception) -> Result<WatchedLines, Mistake> {
    match (object, what) {
        (Object::Cpu(cpu), Interception::Inputs(_)) => Ok(WatchedLines::InputsOf(cpu)),
        (Object::Gic, Interception::Inputs(_)) => Ok(WatchedLines::InputsOfGic),
        (Object::Gic, Interception::Outputs(Some(name))) if name == SYSBUS => {
            Ok(WatchedLines::OutputsOfGic)
        }
        (Object::Cpu(_), Interception::Outputs(Some(name))) if OF_CPUS.contains(&&**name) => {
            Ok(WatchedLines::Nothing)
        }
        (Object::Cpu(_) | Object::Gic, Interception::Outputs(None)) => Ok(WatchedLines::Nothing),
        (Object::Its, _) | (_, Interception::Outputs(Some(_))) => Err(Mistake::NoLines),
    }
}
