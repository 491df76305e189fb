//! Planted faults: what the comparison must find, to show that it can.

use super::acknowledge::Acknowledged;
use super::cases::Family;
use super::peer::{Model, PRIORITY_BITS, Peer};
use super::places::{CPUS, QUEUE, QUEUE_PAGES, TRANSLATER};
use anyhow::Result;
use doorbell_machine::qtest::virt;
use vgic::VgicConfig;
use vgic::its::{ErrorPolicy, TableLevels};

/// A fault that the model can be given.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// What is wrong.
    pub name: &'static str,
    /// The family whose cases find it; without one, the values after reset.
    pub found_by: Option<Family>,
    fault: Fault,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It is built differently.
    Built(fn(&mut VgicConfig)),
    /// It takes the command of one opcode for that of another.
    Opcode { is: u8, taken_for: u8 },
    /// It understands this line otherwise.
    Line(fn(&str) -> Option<String>),
}

/// A model with a fault.
#[derive(Debug)]
pub struct Faulty {
    model: Model,
    fault: Fault,
}

/// The fault of a command that does nothing: it is taken for an opcode that does not exist.
const NOTHING: u8 = 0xff;

const fn built(name: &'static str, found_by: Option<Family>, change: fn(&mut VgicConfig)) -> Mutant {
    Mutant { name, found_by, fault: Fault::Built(change) }
}

const fn command(name: &'static str, is: u8, taken_for: u8) -> Mutant {
    Mutant { name, found_by: Some(Family::Commands), fault: Fault::Opcode { is, taken_for } }
}

const fn line(name: &'static str, found_by: Family, change: fn(&str) -> Option<String>) -> Mutant {
    Mutant { name, found_by: Some(found_by), fault: Fault::Line(change) }
}

/// All of them.
pub const MUTANTS: &[Mutant] = &[
    built("fewer SPIs", None, |config| config.spis = 192),
    built("fewer EventID bits", None, |config| config.its[0].event_id_bits = 15),
    built("a collection in the ITS", None, |config| config.its[0].held_collections = 1),
    built("LPIs that cannot be disabled", None, |config| config.can_clear_enable_lpis = false),
    built("fewer priority bits", Some(Family::Wired), |config| config.priority_bits = 5),
    built("no second levels of collections", Some(Family::Commands), |config| {
        config.its[0].collection_table = Some(TableLevels::Flat);
    }),
    built("a queue that stalls", Some(Family::Commands), |config| {
        config.its[0].error_policy = ErrorPolicy::Stall;
    }),
    built("1 of 16 priorities", Some(Family::Delivery), |config| config.priority_bits = 4),
    line("priorities of LPIs are ignored", Family::Delivery, |line| {
        let (configuration, _) = line.strip_prefix("writeb ")?.split_once(' ')?;
        let in_table = configuration.strip_prefix("0x")?.strip_prefix("41000").is_some();
        in_table.then(|| format!("writeb {configuration} 0xa1"))
    }),
    line("INVALL does nothing", Family::Delivery, |line| with_opcode(line, 0x0d, NOTHING)),
    command("CLEAR does nothing", 0x04, NOTHING),
    command("INT does nothing", 0x03, NOTHING),
    command("MOVI does nothing", 0x01, NOTHING),
    command("MOVALL does nothing", 0x0e, NOTHING),
    command("DISCARD keeps the mapping", 0x0f, 0x04),
    command("DISCARD does nothing", 0x0f, NOTHING),
    command("MAPI does nothing", 0x0b, NOTHING),
    line("the translater does nothing", Family::Commands, |line| {
        line.starts_with(&format!("writel {TRANSLATER:#x} ")).then(|| "endianness".to_owned())
    }),
    line("a line's level is inverted", Family::Wired, |line| {
        let (rest, level) = line.strip_prefix("set_irq_in").and_then(|rest| rest.rsplit_once(' '))?;
        Some(format!("set_irq_in{rest} {}", u8::from(level == "0")))
    }),
    line("the last SPIs cannot be enabled", Family::Wired, |line| {
        line.starts_with("writel 0x8000120 ").then(|| "endianness".to_owned())
    }),
];

impl Mutant {
    /// A model with this fault.
    ///
    /// # Errors
    /// [`vgic::ConfigError`].
    pub fn model(&self) -> Result<Faulty> {
        let mut config = virt(CPUS);
        if self.found_by.is_some_and(Family::needs_cpus) {
            config.priority_bits = PRIORITY_BITS;
        }
        if let Fault::Built(change) = self.fault {
            change(&mut config);
        }
        Ok(Faulty { model: Model::with_config(config)?, fault: self.fault })
    }
}

impl Faulty {
    fn understood(&self, line: &str) -> String {
        let other = match self.fault {
            Fault::Built(_) => None,
            Fault::Opcode { is, taken_for } => with_opcode(line, is, taken_for),
            Fault::Line(change) => change(line),
        };
        other.unwrap_or_else(|| line.to_owned())
    }
}

/// The line that stores the first word of a command, with another opcode.
fn with_opcode(line: &str, is: u8, taken_for: u8) -> Option<String> {
    let hexadecimal = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let (place, word) = line.strip_prefix("writeq ")?.split_once(' ')?;
    let (place, word) = (hexadecimal(place)?, hexadecimal(word)?);
    let in_queue = (QUEUE..QUEUE + 0x1000 * QUEUE_PAGES).contains(&place) && place.is_multiple_of(0x20);
    let word = (in_queue && word & 0xff == u64::from(is)).then_some(word & !0xff | u64::from(taken_for))?;
    Some(format!("writeq {place:#x} {word:#x}"))
}

impl Peer for Faulty {
    fn reset(&mut self) -> Result<()> {
        self.model.reset()
    }

    fn replies(&mut self, lines: &mut dyn Iterator<Item = &str>) -> Result<Vec<String>> {
        let understood: Vec<String> = lines.map(|line| self.understood(line)).collect();
        self.model.replies(&mut understood.iter().map(|line| &**line))
    }

    fn acknowledge(&mut self, cpu: u16) -> Result<Vec<Acknowledged>> {
        self.model.acknowledge(cpu)
    }
}
