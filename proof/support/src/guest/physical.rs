//! Physical interrupts that a hypervisor has linked to virtual ones. The level of an input is
//! authoritative: the model is notified when it rises, and must ask whether it has fallen.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking")]

use gic_arch::IntId;
use msi_types::{Level, Line};
use std::collections::BTreeSet;
use std::sync::Mutex;
use vgic::PhysicalInterrupts;

/// A physical input, identified by the CPU, if it belongs to a PPI, and by the INTID.
type LineKey = (Option<usize>, u32);

/// The physical interrupts.
#[derive(Debug, Default)]
pub struct Physical {
    /// Inputs whose interrupts are linked to virtual ones.
    linked: Mutex<BTreeSet<LineKey>>,
    high: Mutex<BTreeSet<LineKey>>,
    active: Mutex<BTreeSet<LineKey>>,
}

impl Physical {
    /// Drives an input, as a device does.
    pub fn drive(&self, line: Line, level: Level) {
        put(&self.high, line, level == Level::High);
    }

    /// Starts or ends to take the interrupt of an input.
    pub fn link(&self, line: Line, on: bool) {
        put(&self.linked, line, on);
    }

    /// Returns the linked inputs.
    pub fn linked(&self) -> Vec<Line> {
        self.linked.lock().unwrap().iter().map(|input| line(*input)).collect()
    }

    /// Activates the inactive linked interrupts whose inputs are high, as a physical GIC does when
    /// the hypervisor acknowledges them.
    pub fn take(&self) -> Vec<Line> {
        let mut active = self.active.lock().unwrap();
        let (high, linked) = (self.high.lock().unwrap(), self.linked.lock().unwrap());
        let mut fire = |input: &&LineKey| active.insert(**input);
        high.intersection(&linked).filter(|input| fire(input)).map(|input| line(*input)).collect()
    }

    /// Deactivates a physical interrupt of a CPU, as the hardware does.
    pub fn end(&self, cpu: usize, intid: u32) {
        let input = if intid < 32 { (Some(cpu), intid) } else { (None, intid) };
        assert!(self.active.lock().unwrap().remove(&input), "{input:?} is not active");
    }

    /// Deactivates all interrupts, because a restored machine starts without active physical
    /// interrupts.
    pub fn end_all(&self) {
        self.active.lock().unwrap().clear();
    }
}

impl PhysicalInterrupts for Physical {
    fn level(&self, line: Line, _: IntId) -> Level {
        let is_high = self.high.lock().unwrap().contains(&input(line));
        if is_high { Level::High } else { Level::Low }
    }

    fn deactivate(&self, line: Line, physical: IntId) {
        let cpu = input(line).0.unwrap_or_default();
        self.end(cpu, physical.get());
    }
}

fn put(set: &Mutex<BTreeSet<LineKey>>, line: Line, on: bool) {
    let mut set = set.lock().unwrap();
    if on {
        set.insert(input(line))
    } else {
        set.remove(&input(line))
    };
}

fn input(line: Line) -> LineKey {
    match line {
        Line::Ppi { cpu, intid } => (Some(cpu.index()), intid),
        Line::Spi(intid) => (None, intid),
    }
}

fn line((cpu, intid): LineKey) -> Line {
    match cpu {
        Some(cpu) => Line::Ppi { cpu: msi_types::Cpu::new(u32::try_from(cpu).unwrap()), intid },
        None => Line::Spi(intid),
    }
}
