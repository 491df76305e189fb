//! A server of QEMU's qtest protocol over the model, so that one script drives both machines.

use super::access::{Access, Width};
use super::model::{Model, PRIVATE, SPIS};
use super::world::World;
use anyhow::Result;
use msi_types::Level;
use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::str::SplitWhitespace;
use vgic::{Inputs, RedistributorRegion, SecurityView};

#[cfg(test)]
mod tests;

/// Largest number of bytes in one line's access to memory.
const MOST_BYTES: u64 = 16 << 20;
/// Number of redistributors that fit below the UART of QEMU's machine. The rest is from
/// [`HIGH_REDISTRIBUTORS`] on.
const LOW_REDISTRIBUTORS: u16 = 123;
const HIGH_REDISTRIBUTORS: u64 = 0x40_0000_0000;
/// Reply to a line that changes something.
const DONE: &str = "OK";

/// The model with its GIC and RAM where QEMU's `virt` has them. A script's lines are its software.
#[derive(Debug)]
pub struct Server {
    model: Model,
    watched: Option<Watched>,
    /// The last reported inputs of each CPU.
    told: Vec<Inputs>,
}

/// The CPU inputs whose changes are reported, by the object that a script intercepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Watched {
    InputsOf(usize),
    OutputsOfGic,
}

/// The object that a path refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Object {
    Cpu(usize),
    Gic,
}

/// Why a line is refused.
type Refusal = String;

impl Server {
    /// Creates a machine with this number of CPUs. Its software is Non-secure on a GIC with two
    /// security states, or sees the only state of a GIC with one.
    ///
    /// # Errors
    /// Returns [`vgic::ConfigError`] if the model rejects the number of CPUs.
    pub fn new(cpus: u16, view: SecurityView) -> Result<Self> {
        let mut config = World::Stopped.model(cpus).with_security(view);
        if let Some(high) = cpus.checked_sub(LOW_REDISTRIBUTORS).filter(|high| *high > 0) {
            config.redistributors[0].count = LOW_REDISTRIBUTORS.into();
            let high = RedistributorRegion::new(HIGH_REDISTRIBUTORS, high.into());
            config.redistributors.push(high);
        }
        let told = vec![Inputs::default(); config.cpus.len()];
        Ok(Self { model: Model::of(World::Stopped, config)?, watched: None, told })
    }

    /// Enables each CPU's interface for interrupts of every group and priority. Interfaces start
    /// disabled, and the protocol cannot reach them.
    ///
    /// # Errors
    /// Returns an error if a CPU has no such register.
    pub fn listen(&mut self) -> Result<()> {
        self.model.listen(World::Running)
    }

    /// Answers each line from `input` on `output` until `input` ends.
    ///
    /// # Errors
    /// Reading or writing failed. A line that isn't UTF-8 is not an error, but is answered with
    /// `FAIL`.
    pub fn serve(&mut self, input: impl BufRead, mut output: impl Write) -> io::Result<()> {
        for line in input.split(b'\n') {
            let answer = match str::from_utf8(&line?) {
                Ok(line) => self.answer(line),
                Err(_) => "FAIL the line is not UTF-8\n".into(),
            };
            output.write_all(answer.as_bytes())?;
            output.flush()?;
        }
        Ok(())
    }

    /// Returns the answer to a line: changes of the inputs that the script watches, then the reply.
    pub fn answer(&mut self, line: &str) -> String {
        let reply = self.execute(line).unwrap_or_else(|refusal| format!("FAIL {refusal}"));
        self.changes() + &reply + "\n"
    }

    fn execute(&mut self, line: &str) -> Result<String, Refusal> {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or_default();
        let change = |access| self.model.change(access);
        match (command, command.strip_prefix("read").and_then(width)) {
            ("endianness", _) => return Ok("OK little".into()),
            (_, Some(width)) => {
                let at = number(&mut words, "address")?;
                return Ok(format!("OK {:#018x}", self.model.load(at, width)));
            }
            ("read", _) => {
                let pieces = pieces(&mut words)?;
                let load = |(at, width)| {
                    let bytes = self.model.load(at, width).to_le_bytes();
                    bytes.into_iter().take(width.bytes() as usize)
                };
                let digits = pieces.flat_map(load).map(|byte| format!("{byte:02x}"));
                return Ok(format!("OK 0x{}", digits.collect::<String>()));
            }
            ("write", _) => {
                let pieces = pieces(&mut words)?;
                let mut data = data(words.next().unwrap_or_default())?.into_iter();
                for (at, width) in pieces {
                    let mut bytes = [0; 8];
                    bytes[..width.bytes() as usize].fill_with(|| data.next().unwrap_or(0));
                    change(Access::Store { at, width, value: u64::from_le_bytes(bytes) });
                }
            }
            ("memset", _) => {
                let pieces = pieces(&mut words)?;
                let [byte, ..] = number(&mut words, "value")?.to_le_bytes();
                for (at, width) in pieces {
                    let value = u64::from_le_bytes([byte; 8]) & width.mask();
                    change(Access::Store { at, width, value });
                }
            }
            ("set_irq_in", _) => self.drive(&mut words)?,
            ("irq_intercept_in" | "irq_intercept_out", _) => self.watch(command, &mut words)?,
            _ => {
                let width = command.strip_prefix("write").and_then(width);
                let width = width.ok_or_else(|| format!("Unknown command '{command}'"))?;
                let at = number(&mut words, "address")?;
                let value = number(&mut words, "value")? & width.mask();
                change(Access::Store { at, width, value });
            }
        }
        Ok(DONE.into())
    }

    /// Drives an input of the GIC. The inputs of CPUs are driven by the GIC alone.
    fn drive(&self, words: &mut SplitWhitespace<'_>) -> Result<(), Refusal> {
        let object = self.object(words.next())?;
        let name = words.next();
        let input = number(words, "line")?;
        let level = if number(words, "level")? == 0 { Level::Low } else { Level::High };
        let exists = match input.checked_sub(SPIS.into()) {
            None => true,
            Some(private) => {
                let private_inputs = u64::from(PRIVATE);
                private % private_inputs >= 16 && private / private_inputs < self.told.len() as u64
            }
        };
        let input = u16::try_from(input).ok().filter(|_| exists && object == Object::Gic);
        let input = input.filter(|_| name == Some("unnamed-gpio-in")).ok_or("Unknown line")?;
        self.model.change(Access::Line { input, level: u8::from(level == Level::High) });
        Ok(())
    }

    /// Reports the inputs of one CPU, or those of all CPUs, from now on.
    fn watch(&mut self, how: &str, words: &mut SplitWhitespace<'_>) -> Result<(), Refusal> {
        let watched = match (self.object(words.next())?, how, words.next()) {
            (Object::Cpu(cpu), "irq_intercept_in", None) => Watched::InputsOf(cpu),
            (Object::Gic, "irq_intercept_out", Some("sysbus-irq")) => Watched::OutputsOfGic,
            _ => return Err("No intercepts installed".into()),
        };
        match self.watched.replace(watched) {
            Some(other) if other != watched => {
                self.watched = Some(other);
                Err("IRQ intercept already enabled".into())
            }
            _ => Ok(()),
        }
    }

    /// Returns the changes of watched inputs since the last call, in QEMU's order: for each CPU,
    /// first the FIQ, then the IRQ.
    fn changes(&mut self) -> String {
        let cpus = match self.watched {
            None => return String::new(),
            Some(Watched::InputsOf(cpu)) => cpu..cpu + 1,
            Some(Watched::OutputsOfGic) => 0..self.told.len(),
        };
        let (first, count) = (cpus.start, cpus.len());
        let mut changes = String::new();
        for cpu in cpus {
            let now = self.model.inputs(cpu);
            let then = std::mem::replace(&mut self.told[cpu], now);
            let irq = cpu - first;
            for (input, then, now) in [(count + irq, then.fiq, now.fiq), (irq, then.irq, now.irq)] {
                if then != now {
                    let change = if now { "raise" } else { "lower" };
                    // Writing to a string cannot fail.
                    _ = writeln!(changes, "IRQ {change} {input}");
                }
            }
        }
        changes
    }

    /// Finds the object: the GIC follows the CPUs.
    fn object(&self, path: Option<&str>) -> Result<Object, Refusal> {
        let index = path.and_then(|path| path.strip_prefix("/machine/unattached/device["));
        let index = index.and_then(|rest| rest.strip_suffix(']')?.parse().ok());
        match index {
            Some(cpu) if cpu < self.told.len() => Ok(Object::Cpu(cpu)),
            Some(index) if index == self.told.len() => Ok(Object::Gic),
            _ => Err("Unknown device".into()),
        }
    }
}

/// Returns the width that a letter of the protocol stands for.
fn width(letter: &str) -> Option<Width> {
    match letter {
        "b" => Some(Width::Byte),
        "w" => Some(Width::Half),
        "l" => Some(Width::Word),
        "q" => Some(Width::Double),
        _ => None,
    }
}

/// Parses the next word as C's `strtoull` does.
fn number(words: &mut SplitWhitespace<'_>, name: &str) -> Result<u64, Refusal> {
    let word = words.next().ok_or_else(|| format!("the {name} is missing"))?;
    let (digits, is_negative) = match word.strip_prefix('-') {
        Some(digits) => (digits, true),
        None => (word, false),
    };
    let number = match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    let number = number.map_err(|_| format!("the {name} is not a number of 64 bits"))?;
    Ok(if is_negative { number.wrapping_neg() } else { number })
}

/// Parses an address and a size. Returns the accesses that cover this range.
fn pieces(
    words: &mut SplitWhitespace<'_>,
) -> Result<impl Iterator<Item = (u64, Width)> + use<>, Refusal> {
    let (at, bytes) = (number(words, "address")?, number(words, "size")?);
    let end = at.checked_add(bytes).filter(|_| (1..=MOST_BYTES).contains(&bytes));
    let end = end.ok_or_else(|| {
        format!("the size is not between 1 and {MOST_BYTES} bytes of the address space")
    })?;
    let mut next = at;
    Ok(std::iter::from_fn(move || {
        let widths = [Width::Double, Width::Word, Width::Half, Width::Byte];
        let at = next;
        let width = widths.into_iter().find(|width| u64::from(width.bytes()) <= end - at)?;
        next += u64::from(width.bytes());
        Some((at, width))
    }))
}

/// Parses bytes in hexadecimal digits.
fn data(word: &str) -> Result<Vec<u8>, Refusal> {
    let digits = word.strip_prefix("0x").unwrap_or("").as_bytes();
    let (pairs, []) = digits.as_chunks::<2>() else { return Err("the data is malformed".into()) };
    let byte = |pair: &[u8; 2]| {
        str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    let bytes = (!pairs.is_empty()).then(|| pairs.iter().map(byte).collect()).flatten();
    bytes.ok_or_else(|| "the data is malformed".into())
}
