//! Interrupt lines: those that a script drives, and those that it watches.

use super::answer::IrqChange;
use super::request::{Interception, Mistake};
use msi_types::{Cpu, Level, Line, SetLine};
use std::sync::Arc;
use vgic::{Inputs, Vcpu, Vgic};

/// First PPI.
const PPIS: u64 = 16;
/// INTIDs that each CPU has by itself.
const PRIVATE: u64 = 32;
/// Inputs of a CPU: IRQ, FIQ and their virtual twins.
const CPU_INPUTS: u64 = 4;
/// The name of inputs without a name.
const UNNAMED: &str = "unnamed-gpio-in";

/// An input of an object, by its name and number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pin {
    pub(super) name: String,
    pub(super) number: u64,
}

/// What a path names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Object {
    Cpu(usize),
    Gic,
    Its,
}

/// What is driven, and what is watched.
pub(super) struct Lines {
    gic: Arc<Vgic>,
    intercepted: Option<(Object, Interception)>,
    /// The GIC's inputs that are asserted.
    asserted: Vec<u64>,
    /// The intercepted CPU's inputs as last told.
    told: Inputs,
}

impl Lines {
    pub(super) fn new(gic: Arc<Vgic>) -> Self {
        Self { gic, intercepted: None, asserted: Vec::new(), told: Inputs::default() }
    }

    /// Watches an object's lines from now on. Only one object can be watched.
    pub(super) fn intercept(&mut self, path: &str, direction: Interception) -> Result<(), Mistake> {
        let object = self.object(path)?;
        match self.intercepted {
            Some((other, _)) if other != object => return Err(Mistake::OtherIntercepted),
            Some(_) => {}
            None => self.intercepted = Some((object, direction)),
        }
        Ok(())
    }

    /// Drives an input of the GIC. A CPU's inputs are the GIC's to drive: it does so again at its next change.
    pub(super) fn set(&mut self, path: &str, pin: &Pin, level: u64) -> Result<Option<IrqChange>, Mistake> {
        let line = match self.object(path)? {
            Object::Gic if pin.name == UNNAMED => self.line(pin.number).ok_or(Mistake::UnknownLine)?,
            Object::Cpu(_) if pin.name == UNNAMED && pin.number < CPU_INPUTS => return Ok(None),
            _ => return Err(Mistake::UnknownLine),
        };
        let level = if level == 0 { Level::Low } else { Level::High };
        self.gic.set_line(line, level);
        let changed = self.remember(pin.number, level);
        let watched = self.intercepted == Some((Object::Gic, Interception::Inputs));
        let number = usize::try_from(pin.number).unwrap_or(usize::MAX);
        Ok((changed && watched).then_some(match level {
            Level::High => IrqChange::Raised(number),
            Level::Low => IrqChange::Lowered(number),
        }))
    }

    /// Notes the level of an input; is it another one than before?
    fn remember(&mut self, number: u64, level: Level) -> bool {
        match (self.asserted.binary_search(&number), level) {
            (Ok(_), Level::High) | (Err(_), Level::Low) => return false,
            (Ok(at), Level::Low) => drop(self.asserted.remove(at)),
            (Err(at), Level::High) => self.asserted.insert(at, number),
        }
        true
    }

    /// How the watched CPU's inputs changed since this was last called.
    pub(super) fn changes_of_inputs(&mut self, vcpus: &mut [Vcpu]) -> Vec<IrqChange> {
        let Some((Object::Cpu(cpu), Interception::Inputs)) = self.intercepted else { return Vec::new() };
        let now = vcpus.get_mut(cpu).map(Vcpu::inputs).unwrap_or_default();
        let then = std::mem::replace(&mut self.told, now);
        let change = |number, then, now| match (then, now) {
            (false, true) => Some(IrqChange::Raised(number)),
            (true, false) => Some(IrqChange::Lowered(number)),
            _ => None,
        };
        [change(0, then.irq, now.irq), change(1, then.fiq, now.fiq)].into_iter().flatten().collect()
    }

    /// The line behind an input of the GIC: SPIs first, then 32 inputs for each CPU.
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
        let index = path.strip_prefix("/machine/unattached/device[").and_then(|rest| rest.strip_suffix(']'));
        let index: usize = index.and_then(|index| index.parse().ok()).ok_or(Mistake::UnknownDevice)?;
        match index.checked_sub(cpus) {
            None => Ok(Object::Cpu(index)),
            Some(0) => Ok(Object::Gic),
            Some(1) => Ok(Object::Its),
            Some(_) => Err(Mistake::UnknownDevice),
        }
    }
}
