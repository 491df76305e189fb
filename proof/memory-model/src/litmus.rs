//! Litmus tests in herd7's format.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter, Write as _};

use anyhow::{Context, Result};

use crate::state::{CUT, END, Line, Location};

/// A change of one instruction's ordering.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Weakening {
    /// The thread.
    pub thread: usize,
    /// Index of the instruction in the assembly.
    pub site: usize,
    /// The instruction's mnemonic.
    pub from: String,
    /// The weaker mnemonic.
    pub to: String,
    /// Name of the location that the instruction accesses.
    pub location: String,
}

impl Display for Weakening {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "P{} {} {} {}", self.thread, self.location, self.from, self.to)
    }
}

/// A location's initial value.
pub(crate) type Initial = (Location, u64);

/// Writes a litmus test. herd7 decides whether an execution in which no path was cut off satisfies
/// `condition`.
pub(crate) fn write(
    name: &str,
    locations: &[Initial],
    threads: &[Vec<Line>],
    condition: &str,
    weakened: Option<&Weakening>,
) -> Result<String> {
    let mut condition = condition.to_owned();
    let mut columns = Vec::new();
    let mut start = String::new();
    for (location, value) in locations {
        let bits = location.bytes * 8;
        writeln!(start, "uint{bits}_t {} = {value:#x};", location.name)?;
    }
    for (number, lines) in threads.iter().enumerate() {
        let registers = Registers::of(lines)?;
        for (word, register) in &registers.by_word {
            if let Some(constant) = word.strip_prefix('#') {
                let constant: u64 = constant.parse()?;
                write!(start, "{number}:X{register}={constant:#x}; ")?;
            } else if let Some(result) = word.strip_prefix('=') {
                let from = format!("{number}:{result}=");
                condition = condition.replace(&from, &format!("{number}:X{register}="));
            } else if word != "t" && word != "cut" {
                write!(start, "{number}:X{register}={word}; ")?;
            }
        }
        let cut = registers.by_word.get("cut").context("no register is left")?;
        write!(condition, " /\\ {number}:X{cut}=0")?;
        let weakened = weakened.filter(|weakening| weakening.thread == number);
        columns.push(column(number, lines, &registers, weakened));
    }
    Ok(format!("AArch64 {name}\n{{\n{start}\n}}\n{}exists ({condition})\n", table(&columns)))
}

/// A thread's registers for locations, constants, results and temporary values.
struct Registers {
    by_word: BTreeMap<String, usize>,
}

impl Registers {
    /// Assigns registers that the thread's functions don't use.
    fn of(lines: &[Line]) -> Result<Self> {
        let (mut used, mut words) = (BTreeSet::new(), BTreeSet::from(["cut".to_owned()]));
        for line in lines {
            let Line::Code(_, operands, _) = line else { continue };
            for (index, _) in operands.match_indices(['X', 'W']) {
                let digits = operands[index + 1..].split(|c: char| !c.is_ascii_digit()).next();
                used.extend(digits.and_then(|digits| digits.parse::<usize>().ok()));
            }
            let inner = operands.split('{').skip(1).filter_map(|rest| rest.split('}').next());
            words.extend(inner.map(str::to_owned));
        }
        let mut free = (0..=30).rev().filter(|register| !used.contains(register));
        let pairs = words.into_iter().map(|word| Some((word, free.next()?)));
        let by_word = pairs.collect::<Option<_>>().context("the thread needs more registers")?;
        Ok(Self { by_word })
    }

    fn replace(&self, operands: &str) -> String {
        let mut text = operands.to_owned();
        for (word, register) in &self.by_word {
            let is_number = word == "t" || word.starts_with('=');
            let prefix = if is_number { "" } else { "X" };
            text = text.replace(&format!("{{{word}}}"), &format!("{prefix}{register}"));
        }
        text
    }
}

fn column(
    number: usize,
    lines: &[Line],
    registers: &Registers,
    weakened: Option<&Weakening>,
) -> Vec<String> {
    let suffix = |operands: String| match operands.rfind('L') {
        Some(at) if operands[at + 1..].parse::<usize>().is_ok() => {
            format!("{}T{number}_{}", &operands[..at], &operands[at + 1..])
        }
        _ => operands,
    };
    let mut column = vec![format!("P{number}")];
    for line in lines {
        column.push(match line {
            Line::Label(label) => format!("T{number}_{label}:"),
            Line::Code(name, operands, site) => {
                let change = weakened.filter(|weakening| Some(weakening.site) == *site);
                let name = change.map_or(name.clone(), |change| change.to.to_uppercase());
                let is_branch =
                    name.starts_with('B') || name.starts_with('C') || name.starts_with('T');
                let operands = registers.replace(operands);
                let operands = if is_branch { suffix(operands) } else { operands };
                format!("{name} {operands}")
            }
        });
    }
    let cut = registers.by_word.get("cut").copied().unwrap_or_default();
    column.push(format!("T{number}_{CUT}:"));
    column.push(format!("MOV X{cut},#1"));
    column.push(format!("T{number}_{END}:"));
    column
}

fn table(columns: &[Vec<String>]) -> String {
    let height = columns.iter().map(Vec::len).max().unwrap_or_default();
    let mut text = String::new();
    for row in 0..height {
        let cells = columns.iter().map(|column| {
            let width = column.iter().map(String::len).max().unwrap_or_default();
            format!("{:width$}", column.get(row).map_or("", String::as_str))
        });
        text.push(' ');
        text.push_str(&cells.collect::<Vec<_>>().join(" | "));
        text.push_str(" ;\n");
    }
    text
}

/// Returns the possible weakenings of the instructions that access a location, without duplicates.
pub(crate) fn weakenings(threads: &[Vec<Line>]) -> Vec<Weakening> {
    let mut found: Vec<Weakening> = Vec::new();
    for (thread, lines) in threads.iter().enumerate() {
        for line in lines {
            let Line::Code(name, operands, Some(site)) = line else { continue };
            let from = name.to_lowercase();
            let location = operands.split('{').nth(1).and_then(|rest| rest.split('}').next());
            for to in crate::access::weaker(&from) {
                let location = location.unwrap_or_default().to_owned();
                let weakening = Weakening { thread, site: *site, from: from.clone(), to, location };
                if !found.contains(&weakening) {
                    found.push(weakening);
                }
            }
        }
    }
    found
}
