//! Data processing on a path: computed if the operands are known, and emitted otherwise.

use anyhow::{Context, Result, bail};

use crate::alu::{self, Nzcv};
use crate::assembly::{Instruction, Operand, Register, ZERO};
use crate::heap::{self, Heap};
use crate::rewrite;
use crate::state::{Output, State, Value, read, register, write};

pub(crate) fn select(state: &mut State, output: &mut Output, code: &Instruction) -> Result<()> {
    let to = register(code, 0)?;
    let Some(Operand::Name(condition)) = code.operands.last() else { bail!("no condition") };
    let zero = Register { number: ZERO, wide: to.wide };
    let (one, other, change, condition) = match code.name.as_str() {
        "cset" => (zero, zero, "csinc", alu::opposite(condition)?),
        "csetm" => (zero, zero, "csinv", alu::opposite(condition)?),
        "cinc" => (register(code, 1)?, register(code, 1)?, "csinc", alu::opposite(condition)?),
        name => (register(code, 1)?, register(code, 2)?, name, condition.as_str()),
    };
    let values = (read(state, one), read(state, other));
    let changed = |value: u64| match change {
        "csinc" => value.wrapping_add(1),
        "csinv" => !value,
        "csneg" => value.wrapping_neg(),
        _ => value,
    };
    match (state.flags, values) {
        (Some(flags), (Value::Known(value), _)) if flags.holds(condition)? => {
            write(state, to, Value::Known(value));
        }
        (Some(flags), (_, Value::Known(value))) if !flags.holds(condition)? => {
            write(state, to, Value::Known(changed(value)));
        }
        (Some(flags), _) if flags.holds(condition)? || change == "csel" => {
            let from = if flags.holds(condition)? { one } else { other };
            output.emit(state, "MOV", format!("{to},{from}"), None);
            write(state, to, Value::Live);
        }
        (Some(_), _) => bail!("a live value is changed by known flags"),
        // An address is selected: emit a branch, and follow both paths.
        (None, (Value::Known(first), Value::Known(second)))
            if change == "csel" && first.min(second) >= heap::SPACING =>
        {
            let label = output.label();
            output.emit(state, &format!("b.{condition}"), format!("L{label}"), None);
            let mut selected = state.clone();
            write(&mut selected, to, Value::Known(first));
            output.open.push((label, selected));
            write(state, to, Value::Known(second));
        }
        (None, _) => {
            output.materialize(state, one);
            output.materialize(state, other);
            let condition = condition.to_uppercase();
            output.emit(state, change, format!("{to},{one},{other},{condition}"), None);
            write(state, to, Value::Live);
        }
    }
    Ok(())
}

/// Translates `ccmp`, which herd7 doesn't support, into a branch and a comparison.
pub(crate) fn compare_if(
    state: &mut State,
    output: &mut Output,
    heap: &mut Heap,
    code: &Instruction,
) -> Result<()> {
    let [one, other, Operand::Number(bits), Operand::Name(condition)] = &code.operands[..] else {
        bail!("unknown operands")
    };
    let compare =
        Instruction { name: "cmp".to_owned(), operands: vec![one.clone(), other.clone()] };
    match state.flags {
        Some(flags) if flags.holds(condition)? => compute(state, output, heap, &compare),
        Some(_) => {
            state.flags = Some(Nzcv::of(*bits));
            Ok(())
        }
        None => {
            let label = output.label();
            let name = format!("b.{}", alu::opposite(condition)?);
            output.emit(state, &name, format!("L{label}"), None);
            let mut otherwise = state.clone();
            otherwise.flags = Some(Nzcv::of(*bits));
            output.open.push((label, otherwise));
            compute(state, output, heap, &compare)
        }
    }
}

/// Computes an instruction without a memory access, or emits it if its result is live.
pub(crate) fn compute(
    state: &mut State,
    output: &mut Output,
    heap: &mut Heap,
    code: &Instruction,
) -> Result<()> {
    let name = code.name.as_str();
    let compares = ["cmp", "cmn", "tst"].contains(&name);
    let to = register(code, 0)?;
    let first = usize::from(!compares);
    if name == "movk" {
        let [_, Operand::Number(part), shift @ ..] = &code.operands[..] else {
            bail!("unknown operands")
        };
        let shift = if let [Operand::Shift(_, amount)] = shift { *amount } else { 0 };
        let Value::Known(old) = read(state, to) else { bail!("movk changes a live value") };
        write(state, to, Value::Known(old & !(0xffff << shift) | part << shift));
        return Ok(());
    }
    let inserts = ["bfi", "bfxil"].contains(&name);
    let inputs = inputs(heap, state, &code.operands[first..], to.wide)?;
    let old = read(state, to);
    match (inputs, old) {
        (Some(inputs), Value::Known(old)) => {
            let (value, flags) = alu::evaluate(name, &inputs, old, to.wide)?;
            finish(state, to, compares, value, flags);
            Ok(())
        }
        (Some(inputs), Value::Live) if !inserts => {
            let (value, flags) = alu::evaluate(name, &inputs, 0, to.wide)?;
            finish(state, to, compares, value, flags);
            Ok(())
        }
        _ => {
            let constant = constant_bits(state, code);
            if let (u64::MAX, value) = constant {
                write(state, to, Value::Known(value));
                return Ok(());
            }
            compute_live(state, output, code, to, compares)?;
            if !compares {
                state.constant[to.number] = constant;
            }
            Ok(())
        }
    }
}

/// Returns the values of operands, or `None` if one of them is live.
fn inputs(
    heap: &mut Heap,
    state: &State,
    operands: &[Operand],
    wide: bool,
) -> Result<Option<Vec<u64>>> {
    let mut values = Vec::new();
    for operand in operands {
        match operand {
            Operand::Number(number) => values.push(*number),
            Operand::Register(register) => match read(state, *register) {
                Value::Known(value) => values.push(value),
                Value::Live => return Ok(None),
            },
            Operand::Shift(kind, amount) => {
                let last = values.last_mut().context("a shift without an operand")?;
                *last = alu::shifted(*last, kind, *amount, wide)?;
            }
            // `adrp` and `add :lo12:` together form the address.
            Operand::Name(symbol) if values.is_empty() => {
                values.push(heap.object(symbol) & !0xfff);
            }
            Operand::Name(symbol) => values.push(heap.object(symbol) & 0xfff),
            Operand::Memory(..) => bail!("{operand:?} is not a value"),
        }
    }
    Ok(Some(values))
}

fn compute_live(
    state: &mut State,
    output: &mut Output,
    code: &Instruction,
    to: Register,
    compares: bool,
) -> Result<()> {
    let sources = code.operands.iter().skip(usize::from(!compares));
    for operand in sources {
        if let Operand::Register(register) = operand {
            output.materialize(state, *register);
        }
    }
    let name = code.name.as_str();
    let flags = compares || ["adds", "subs", "ands", "bics"].contains(&name);
    if ["bfi", "bfxil"].contains(&name) {
        output.materialize(state, to);
    }
    for (name, operands) in rewrite::for_herd(code)? {
        output.emit(state, &name, operands, None);
    }
    if !compares {
        write(state, to, Value::Live);
    }
    if flags {
        state.flags = None;
        state.is_swapped = false;
    }
    match (name, &code.operands[..]) {
        ("mov", [_, Operand::Register(from)]) => state.copied[to.number] = Some(from.number),
        ("cmp", [Operand::Register(one), Operand::Register(other)]) => state.compare(*one, *other),
        _ => {}
    }
    Ok(())
}

/// Returns the bits of an instruction's result that are constant although an operand is live.
fn constant_bits(state: &State, code: &Instruction) -> (u64, u64) {
    let ones = |count: u64| if count >= 64 { u64::MAX } else { (1 << count) - 1 };
    let of = |register: &Register| {
        let (mask, value) = match read(state, *register) {
            Value::Known(value) => (u64::MAX, value),
            Value::Live => state.constant[register.number],
        };
        let high = if register.wide { 0 } else { !0xffff_ffff };
        (mask | high, value & !high)
    };
    match (code.name.as_str(), &code.operands[..]) {
        ("mov", [_, Operand::Register(from)]) if from.number != ZERO => of(from),
        (
            "add",
            [_, Operand::Register(one), other @ (Operand::Register(_) | Operand::Number(_))],
        ) => {
            let (one, other) = match other {
                Operand::Register(other) => (of(one), of(other)),
                Operand::Number(other) => (of(one), (u64::MAX, *other)),
                _ => return (0, 0),
            };
            let (mask, sum) = (one.0 & other.0, one.1.wrapping_add(other.1));
            // Bits that are not constant cause no carry if the corresponding bits of the sum are
            // zero.
            let is_carried = sum & !mask != 0 || !one.0 & !other.0 != 0;
            if is_carried { (0, 0) } else { (mask, sum) }
        }
        ("and", [_, Operand::Register(from), Operand::Number(bits)]) => {
            let (mask, value) = of(from);
            (mask | !bits, value & bits)
        }
        ("orr", [_, Operand::Register(from), Operand::Number(bits)]) => {
            let (mask, value) = of(from);
            (mask | bits, value | bits)
        }
        ("lsr", [_, Operand::Register(from), Operand::Number(at)]) => {
            let (mask, value) = of(from);
            (mask >> at | !(u64::MAX >> at), value >> at)
        }
        ("ubfx", [_, Operand::Register(from), Operand::Number(at), Operand::Number(count)]) => {
            let (mask, value) = of(from);
            (mask >> at | !ones(*count), value >> at & ones(*count))
        }
        _ => (0, 0),
    }
}
fn finish(state: &mut State, to: Register, compares: bool, value: u64, flags: Option<Nzcv>) {
    if !compares {
        write(state, to, Value::Known(value));
    }
    if flags.is_some() {
        state.flags = flags;
    }
}
