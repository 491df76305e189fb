//! A path's state, and the lines of a litmus test's thread.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::alu::{self, Nzcv};
use crate::assembly::{Instruction, Operand, REGISTERS, Register, ZERO};
use crate::heap::Bytes;

/// Labels of paths that were cut off, and of the thread's end.
pub(crate) const CUT: usize = 0;
pub(crate) const END: usize = 1;

/// A register's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Value {
    Known(u64),
    Live,
}

/// A word that the threads of a test share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// Name in the litmus test.
    pub name: String,
    /// Address on the heap.
    pub address: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Bits that no thread changes, and their values.
    pub constant: (u64, u64),
}

/// Part of a thread.
#[derive(Clone, Debug)]
pub enum Step {
    /// Calls a probe, and keeps its result under this name.
    Call(String, Vec<u64>, String),
    /// Stores a value to a location without ordering, as a device or sender does.
    Write(String, u64),
    /// Loads a location without ordering, and keeps the value under this name.
    Read(String, String),
    /// Ends the thread if the result of this name is 0.
    Require(String),
}

/// A line of a thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// A branch target.
    Label(usize),
    /// An instruction: its mnemonic and its operands. Names in braces stand for registers. Accesses
    /// to locations have the index of their instruction in the assembly.
    Code(String, String, Option<usize>),
}

/// A path's state.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct State {
    /// Index of the next instruction.
    pub(crate) at: usize,
    pub(crate) registers: [Value; REGISTERS],
    /// Bits of live registers that no thread changes, and their values.
    pub(crate) constant: [(u64, u64); REGISTERS],
    /// Condition flags, or `None` if they are live.
    pub(crate) flags: Option<Nzcv>,
    pub(crate) memory: Bytes,
    pub(crate) returns: Vec<usize>,
    /// Number of completed steps of the thread.
    pub(crate) step: usize,
    /// Instructions that the current step has executed, with the number of lines emitted before
    /// each.
    pub(crate) visited: BTreeMap<usize, u32>,
    /// Number of lines emitted on this path.
    pub(crate) emitted: u32,
    /// The status register of the latest live store-exclusive.
    pub(crate) status: Option<usize>,
    /// For registers that were copied from another one, that register's number.
    pub(crate) copied: [Option<usize>; REGISTERS],
    /// Result register of the latest live compare-and-swap, and the value that it expected. Between
    /// a load-exclusive and its store-exclusive, the register of the load-exclusive.
    pub(crate) swap: Option<(usize, Expected)>,
    /// `true` if the live flags are those of comparing the latest compare-and-swap's result with
    /// the value that it expected.
    pub(crate) is_swapped: bool,
}

/// The value that a compare-and-swap expects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Expected {
    Known(u64),
    Register(usize),
    /// Any value with which the result is compared between a load-exclusive and its
    /// store-exclusive.
    Any,
}

impl State {
    /// Notes a comparison of two registers. Callers must have made the flags live.
    pub(crate) fn compare(&mut self, one: Register, other: Register) {
        self.is_swapped = self.swap.is_some_and(|(result, expected)| {
            [(one, other), (other, one)].into_iter().any(|(found, wanted)| {
                let is_expected = match expected {
                    Expected::Known(value) => read(self, wanted) == Value::Known(value),
                    Expected::Register(number) => wanted.number == number,
                    Expected::Any => true,
                };
                found.number == result && is_expected
            })
        });
    }
}

/// Lines of a thread, and paths that have a label but no lines yet.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) lines: Vec<Line>,
    pub(crate) open: Vec<(usize, State)>,
    labels: usize,
}

impl Output {
    pub(crate) const fn new() -> Self {
        Self { lines: Vec::new(), open: Vec::new(), labels: END + 1 }
    }

    /// Returns a new label.
    pub(crate) const fn label(&mut self) -> usize {
        self.labels += 1;
        self.labels - 1
    }

    pub(crate) fn emit(
        &mut self,
        state: &mut State,
        name: &str,
        operands: String,
        site: Option<usize>,
    ) {
        state.emitted += 1;
        // herd7 accepts only one name for each condition.
        let name = match name {
            "b.lo" => "b.cc",
            "b.hs" => "b.cs",
            _ => name,
        };
        self.lines.push(Line::Code(name.to_uppercase(), operands, site));
    }

    /// Emits a known register's value, so that an emitted instruction can use the register.
    pub(crate) fn materialize(&mut self, state: &mut State, register: Register) {
        if register.number < ZERO
            && let Value::Known(value) = state.registers[register.number]
        {
            let number = register.number;
            self.emit(state, "MOV", format!("X{number},{}", constant(value)), None);
        }
    }
}

/// Writes a value as an operand of `MOV`: small values as immediates, others as a register that
/// the test's initial state sets.
pub(crate) fn constant(value: u64) -> String {
    let signed = value.cast_signed();
    if signed.unsigned_abs() < 1 << 16 { format!("#{signed}") } else { format!("{{#{value}}}") }
}

pub(crate) fn register(code: &Instruction, index: usize) -> Result<Register> {
    match code.operands.get(index) {
        Some(Operand::Register(register)) => Ok(*register),
        _ => bail!("operand {index} is not a register"),
    }
}

pub(crate) fn read(state: &State, register: Register) -> Value {
    match (register.number, state.registers.get(register.number)) {
        (ZERO, _) | (_, None) => Value::Known(0),
        (_, Some(Value::Known(value))) => Value::Known(alu::low(*value, register.wide)),
        (_, Some(Value::Live)) => Value::Live,
    }
}

pub(crate) fn write(state: &mut State, register: Register, value: Value) {
    if register.number == ZERO {
        return;
    }
    let number = register.number;
    state.constant[number] = (0, 0);
    if state.status == Some(number) {
        state.status = None;
    }
    state.copied[number] = None;
    for copied in &mut state.copied {
        *copied = copied.filter(|from| *from != number);
    }
    state.swap = state
        .swap
        .filter(|(result, expected)| *result != number && *expected != Expected::Register(number));
    if let Some(content) = state.registers.get_mut(register.number) {
        *content = match value {
            Value::Known(value) => Value::Known(alu::low(value, register.wide)),
            Value::Live => Value::Live,
        };
    }
}
