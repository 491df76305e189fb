//! Formatting of a machine's state.

use super::{CpuView, InterruptView, ItsView, LpiView, StateView};
use core::fmt;
use msi_types::explain::TargetState;
use msi_types::{Level, Trigger};

/// Formats one line per vCPU, interrupt, ITS, collection, device and event.
impl fmt::Display for StateView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "GICD_CTLR {:#x}, {} guest faults", self.ctlr, self.faults)?;
        for cpu in &self.cpus {
            let counts = self.counts(cpu.cpu);
            let (pending, active, listed) = (counts.pending, counts.active, counts.listed);
            writeln!(f, "{cpu}\n  {pending} pending, {active} active, {listed} listed")?;
            cpu.interrupts.iter().try_for_each(|interrupt| writeln!(f, "  {interrupt}"))?;
            cpu.lpis.iter().try_for_each(|lpi| writeln!(f, "  {lpi}"))?;
        }
        self.spis.iter().try_for_each(|spi| writeln!(f, "{spi}"))?;
        for its in &self.its {
            writeln!(f, "{its}")?;
            for each in &its.collections {
                writeln!(f, "  collection {}: CPU {}", each.collection, each.target)?;
            }
            for device in &its.devices {
                writeln!(f, "  DeviceID {}: {} EventID bits", device.device, device.event_bits)?;
                for each in &device.events {
                    let (event, collection) = (each.event, each.collection);
                    writeln!(f, "    EventID {event}: collection {collection}, {}", each.lpi)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for CpuView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {} at {}: ", self.cpu, self.affinity)?;
        f.write_str(if self.awake { "awake" } else { "asleep" })?;
        f.write_str(match self.state {
            TargetState::NeedsKick => ", in guest or WFI",
            TargetState::Kicked => ", kicked",
            _ => "",
        })?;
        write!(f, ", PMR {:#x}, running {:#x}", self.priority_mask, self.running_priority)?;
        let [zero, one] = self.groups.map(u8::from);
        write!(f, ", IGRPEN0 {zero}, IGRPEN1 {one}, ")?;
        if self.lpis_enabled {
            write!(f, "PROPBASER {:#x}, PENDBASER {:#x}", self.propbaser, self.pendbaser)?;
        } else {
            f.write_str("LPIs disabled")?;
        }
        write!(f, ", {} acknowledged, {} kicks", self.acknowledged, self.kicks)
    }
}

impl fmt::Display for InterruptView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.intid)?;
        if let Some(target) = self.target.filter(|_| !self.intid.is_private()) {
            write!(f, " CPU {target},")?;
        }
        let trigger = match self.trigger {
            Trigger::Edge => "edge",
            Trigger::Level => "level",
        };
        write!(f, " Group {}, priority {:#x}, {trigger}", self.group, self.priority)?;
        let is_high = self.line == Level::High;
        let words = [
            (is_high, "high"),
            (self.enabled, "enabled"),
            (self.pending, "pending"),
            (self.active, "active"),
            (self.listed, "listed"),
        ];
        write_words(f, &words)
    }
}

impl fmt::Display for LpiView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: CPU {}, priority {:#x}", self.intid, self.target, self.priority)?;
        let words = [
            (self.enabled, "enabled"),
            (self.pending, "pending"),
            (self.direct && !self.pending, "pending state unknown"),
            (self.listed, "listed"),
        ];
        write_words(f, &words)
    }
}

impl fmt::Display for ItsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let enabled = if self.enabled { "enabled" } else { "disabled" };
        write!(f, "ITS at {:#x}: {enabled}, CREADR {:#x}", self.base, self.creadr)?;
        write!(f, ", CWRITER {:#x}, {} commands", self.cwriter, self.commands)?;
        write!(f, ", {} refused", self.refused)
    }
}

fn write_words(f: &mut fmt::Formatter<'_>, words: &[(bool, &str)]) -> fmt::Result {
    let mut set = words.iter().filter(|(is_set, _)| *is_set);
    set.try_for_each(|(_, word)| write!(f, ", {word}"))
}
