//! rustc's assembly for AArch64: instructions, labels and symbols.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use anyhow::{Context, Result, bail};

/// A general-purpose register, `x0` to `x30`, the stack pointer or the zero register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Register {
    /// Number; 31 is the zero register, and 32 the stack pointer.
    pub number: usize,
    /// `true` for `x`, `false` for `w`.
    pub wide: bool,
}

/// Number of the zero register.
pub const ZERO: usize = 31;
/// Number of the stack pointer.
pub const STACK: usize = 32;
/// Number of the first floating-point register. Compilers copy pairs of numbers through them.
const FLOATING: usize = 33;
/// Number of registers.
pub const REGISTERS: usize = FLOATING + 32;

impl Display for Register {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let width = if self.wide { "X" } else { "W" };
        match self.number {
            ZERO => write!(f, "{width}ZR"),
            number => write!(f, "{width}{number}"),
        }
    }
}

/// Change of a memory operand's base register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Update {
    /// `[base, offset]`
    None,
    /// `[base, offset]!`
    Before,
    /// `[base], offset`
    After,
}

/// An operand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operand {
    /// A register.
    Register(Register),
    /// An immediate.
    Number(u64),
    /// A memory location: the base register, and the operands that are added to it.
    Memory(Register, Vec<Operand>, Update),
    /// A shift or extension of the previous operand, for example `lsl #3` or `uxtw`.
    Shift(String, u32),
    /// A condition, a label, or a symbol's address.
    Name(String),
}

/// An instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// Mnemonic, in lower case.
    pub name: String,
    /// Operands.
    pub operands: Vec<Operand>,
}

/// The assembly of one or more crates.
#[derive(Debug, Default)]
pub struct Assembly {
    /// Instructions of all functions.
    pub code: Vec<Instruction>,
    /// Indices of instructions by label or symbol.
    labels: BTreeMap<String, usize>,
}

impl Assembly {
    /// Reads rustc's output.
    ///
    /// # Errors
    /// Fails if an operand is unknown.
    pub fn parse(text: &str) -> Result<Self> {
        let (mut assembly, mut aliases) = (Self::default(), Vec::new());
        for line in text.lines() {
            let line = line.split("//").next().unwrap_or_default().trim();
            if let Some((alias, symbol)) = line.split_once(" = ") {
                aliases.push((alias.to_owned(), symbol.to_owned()));
            } else if let Some(label) = line.strip_suffix(':') {
                assembly.labels.insert(label.to_owned(), assembly.code.len());
            } else if !line.is_empty() && !line.starts_with('.') {
                let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
                let operands = operands(rest).with_context(|| format!("cannot read `{line}`"))?;
                assembly.code.push(Instruction { name: name.to_owned(), operands });
            }
        }
        // The compiler emits identical functions only once, with aliases.
        for (alias, symbol) in aliases {
            if let Some(index) = assembly.label(&symbol) {
                assembly.labels.insert(alias, index);
            }
        }
        Ok(assembly)
    }

    /// Returns the index of the first instruction at a label or symbol.
    pub fn label(&self, name: &str) -> Option<usize> {
        self.labels.get(name).copied()
    }

    /// Returns the index of the first instruction of a probe, i.e. of a function in a module
    /// `memory_model`.
    ///
    /// # Errors
    /// Fails if the crate has no such probe.
    pub fn probe(&self, name: &str) -> Result<usize> {
        let part = format!("12memory_model{}{name}", name.len());
        let mut found = self.labels.iter().filter(|(symbol, _)| {
            // Labels that start with a period are not functions, but tables of them.
            let function = symbol.split_once(&part).filter(|_| !symbol.starts_with('.'));
            function.is_some_and(|(_, rest)| rest.starts_with(['1', 'E']))
        });
        let (_, index) = found.next().with_context(|| format!("no probe `{name}` was compiled"))?;
        Ok(*index)
    }
}

fn operands(text: &str) -> Result<Vec<Operand>> {
    let mut list: Vec<Operand> = Vec::new();
    for part in split(text) {
        let operand = operand(&part)?;
        match (list.last_mut(), operand) {
            // `[base], #offset`
            (
                Some(Operand::Memory(_, offset, update @ Update::None)),
                number @ Operand::Number(_),
            ) if offset.is_empty() => {
                offset.push(number);
                *update = Update::After;
            }
            (_, operand) => list.push(operand),
        }
    }
    Ok(list)
}

/// Splits at commas outside of brackets.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for letter in text.chars() {
        match letter {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        match parts.last_mut() {
            Some(_) if letter == ',' && depth == 0 => parts.push(String::new()),
            Some(part) => part.push(letter),
            None => {}
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn operand(text: &str) -> Result<Operand> {
    if let Some(inner) = text.strip_prefix('[') {
        let before = inner.ends_with('!');
        let inner = inner.trim_end_matches('!').trim_end_matches(']');
        let mut parts = operands(inner)?.into_iter();
        let Some(Operand::Register(base)) = parts.next() else { bail!("no base register") };
        let update = if before { Update::Before } else { Update::None };
        return Ok(Operand::Memory(base, parts.collect(), update));
    }
    if let Some(register) = register(text) {
        return Ok(Operand::Register(register));
    }
    if let Some(number) = text.strip_prefix('#') {
        return Ok(Operand::Number(number_of(number)?));
    }
    let (kind, amount) = text.split_once(" #").unwrap_or((text, "0"));
    if ["lsl", "lsr", "asr", "ror", "uxtb", "uxth", "uxtw", "uxtx", "sxtb", "sxth", "sxtw"]
        .contains(&kind)
    {
        return Ok(Operand::Shift(kind.to_owned(), u32::try_from(number_of(amount)?)?));
    }
    Ok(Operand::Name(text.trim_start_matches(":lo12:").to_owned()))
}

fn register(text: &str) -> Option<Register> {
    let wide = !text.starts_with('w');
    match text {
        "sp" | "wsp" => return Some(Register { number: STACK, wide }),
        "xzr" | "wzr" => return Some(Register { number: ZERO, wide }),
        "lr" => return Some(Register { number: 30, wide }),
        _ => {}
    }
    if let Some(number) = text.strip_prefix(['d', 's']).and_then(|number| number.parse().ok()) {
        let wide = text.starts_with('d');
        return (0..32usize)
            .contains(&number)
            .then_some(Register { number: FLOATING + number, wide });
    }
    let number = text.strip_prefix(['x', 'w'])?.parse().ok()?;
    (number < ZERO).then_some(Register { number, wide })
}

fn number_of(text: &str) -> Result<u64> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let number = match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16)?,
        None => digits.parse()?,
    };
    Ok(if negative { number.wrapping_neg() } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruction_operands_are_parsed() {
        let text = "_x:\n\tstp\tx29, x30, [sp, #-16]!\n.L1:\n\tldr x8, [x9, w1, uxtw #3]\n\
            \tldp x29, x30, [sp], #16\n\tmovk w8, #0x10, lsl #16\n";
        let assembly = Assembly::parse(text).unwrap();
        assert_eq!((assembly.label("_x"), assembly.label(".L1")), (Some(0), Some(1)));
        let Operand::Memory(base, offset, update) = &assembly.code[0].operands[2] else { panic!() };
        assert_eq!((base.number, *update), (STACK, Update::Before));
        assert_eq!(*offset, [Operand::Number(16u64.wrapping_neg())]);
        let Operand::Memory(_, offset, Update::None) = &assembly.code[1].operands[1] else {
            panic!()
        };
        assert_eq!(offset[1], Operand::Shift("uxtw".into(), 3));
        assert!(matches!(assembly.code[2].operands[2], Operand::Memory(_, _, Update::After)));
        assert_eq!(assembly.code[3].operands[2], Operand::Shift("lsl".into(), 16));
    }

    #[test]
    fn probes_are_found_in_mangled_symbols() {
        let text =
            "_ZN4vgic3lpi12memory_model4kick17h0E:\n\tret\n_ZN4vgic12memory_model5kicks17hE:";
        let assembly = Assembly::parse(text).unwrap();
        assert_eq!(assembly.probe("kick").unwrap(), 0);
        assert_eq!(assembly.probe("kicks").unwrap(), 1);
        assert!(assembly.probe("kic").is_err());
    }
}
