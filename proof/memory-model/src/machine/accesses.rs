//! Loads and stores: of the test's locations, which are emitted, and of other memory, whose
//! contents are known.

use anyhow::{Context, Result, bail, ensure};

use super::Machine;
use crate::access::{Access, Kind};
use crate::alu;
use crate::assembly::{Instruction, Operand, Register, Update};
use crate::heap;
use crate::state::{Expected, Location, State, Value, read, register, write};

impl Machine<'_> {
    /// If only one bit of a live address isn't constant, emits a branch on that bit and follows
    /// both resulting addresses. Returns the address in which the bit is 0.
    fn select(&mut self, state: &mut State, base: Register) -> Result<u64> {
        let (constant, address) = state.constant[base.number];
        ensure!((!constant).is_power_of_two(), "the address is live");
        let label = self.output.label();
        let bit = (!constant).trailing_zeros();
        self.output.emit(state, "tbnz", format!("{base},#{bit},L{label}"), None);
        let mut other = state.clone();
        other.at -= 1;
        write(&mut other, base, Value::Known(address | !constant));
        self.output.open.push((label, other));
        write(state, base, Value::Known(address));
        Ok(address)
    }

    /// Returns the address that a memory operand refers to, and updates its base register.
    fn address(&mut self, state: &mut State, operand: &Operand) -> Result<u64> {
        let Operand::Memory(base, offset, update) = operand else { bail!("no memory operand") };
        let start = match read(state, *base) {
            Value::Known(start) => start,
            Value::Live => self.select(state, *base)?,
        };
        let offset = match offset.as_slice() {
            [] => 0,
            [Operand::Number(number)] => *number,
            [Operand::Name(symbol)] => self.heap.object(symbol) & 0xfff,
            [Operand::Register(index), shift @ ..] => {
                let Value::Known(index_value) = read(state, *index) else {
                    bail!("the index is live")
                };
                match shift {
                    [Operand::Shift(kind, amount)] => {
                        alu::shifted(index_value, kind, *amount, true)?
                    }
                    _ => index_value,
                }
            }
            _ => bail!("unknown address"),
        };
        let moved = start.wrapping_add(offset);
        if *update != Update::None {
            write(state, *base, Value::Known(moved));
        }
        Ok(if *update == Update::After { start } else { moved })
    }

    pub(super) fn pair(&mut self, state: &mut State, code: &Instruction) -> Result<()> {
        let (one, other) = (register(code, 0)?, register(code, 1)?);
        let address = self.address(state, code.operands.get(2).context("no address")?)?;
        let size = if one.wide { 8 } else { 4 };
        for (register, address) in [(one, address), (other, address + size)] {
            ensure!(self.location(address).is_none(), "a location is accessed by a pair");
            if code.name == "ldp" {
                let value = self.heap.load(&state.memory, address, size);
                write(state, register, Value::Known(value));
            } else {
                let Value::Known(value) = read(state, register) else {
                    bail!("a live value is stored outside of the test's locations")
                };
                heap::store(&mut state.memory, address, size, value);
            }
        }
        Ok(())
    }

    fn location(&self, address: u64) -> Option<&Location> {
        self.locations
            .iter()
            .find(|other| (other.address..other.address + other.bytes).contains(&address))
    }

    pub(super) fn access(
        &mut self,
        state: &mut State,
        code: &Instruction,
        access: Access,
        at: usize,
    ) -> Result<()> {
        let (memory, registers) = code.operands.split_last().context("no operands")?;
        let (memory, registers) = match memory {
            Operand::Memory(..) => (memory, registers),
            _ => bail!("no memory operand"),
        };
        let registers: Vec<Register> =
            (0..registers.len()).map(|index| register(code, index)).collect::<Result<_>>()?;
        let data = *registers.last().context("no register")?;
        let size = access.bytes.unwrap_or(if data.wide { 8 } else { 4 });
        let address = self.address(state, memory)?;
        let Some(location) = self.location(address).cloned() else {
            if address >> 24 != self.heap.object("stack") >> 24 {
                self.latest = Some((address, size));
            }
            return self.access_known(state, access, &registers, address, size);
        };
        ensure!(
            (location.address, location.bytes) == (address, size),
            "an access to {} has another size",
            location.name
        );
        let sources: &[Register] = match access.kind {
            Kind::Load | Kind::Reserve => &[],
            Kind::Conclude => &registers[1..],
            Kind::Store | Kind::CompareAndSwap => &registers,
            Kind::Swap | Kind::Atomic(..) => &registers[..1],
        };
        for source in sources {
            self.output.materialize(state, *source);
        }
        let expected = match read(state, registers[0]) {
            Value::Known(value) => Some(Expected::Known(value)),
            Value::Live => state.copied[registers[0].number].map(Expected::Register),
        };
        let list: Vec<_> = registers.iter().map(Register::to_string).collect();
        let name = code.name.replace("ldur", "ldr").replace("stur", "str");
        let operands = format!("{},[{{{}}}]", list.join(","), location.name);
        self.output.emit(state, &name, operands, Some(at));
        let changed = match access.kind {
            Kind::Store | Kind::Atomic(_, false) => None,
            Kind::Conclude => {
                state.status = Some(registers[0].number);
                Some(registers[0])
            }
            Kind::CompareAndSwap => Some(registers[0]),
            Kind::Load | Kind::Reserve | Kind::Swap | Kind::Atomic(..) => Some(data),
        };
        if let Some(changed) = changed {
            write(state, changed, Value::Live);
            if access.kind != Kind::Conclude {
                state.constant[changed.number] = location.constant;
            }
        }
        if access.kind == Kind::Conclude {
            state.status = Some(registers[0].number);
        }
        match access.kind {
            Kind::Reserve => state.swap = Some((data.number, Expected::Any)),
            Kind::Conclude => state.swap = None,
            Kind::CompareAndSwap => {
                state.swap = expected.map(|expected| (registers[0].number, expected));
            }
            _ => {}
        }
        Ok(())
    }

    /// Performs an access to memory that no other thread of the test accesses.
    fn access_known(
        &mut self,
        state: &mut State,
        access: Access,
        registers: &[Register],
        address: u64,
        size: u64,
    ) -> Result<()> {
        let old = self.heap.load(&state.memory, address, size);
        let value = |state: &State, register: Register| match read(state, register) {
            Value::Known(value) => Ok(value),
            Value::Live => bail!("a live value is stored outside of the test's locations"),
        };
        let data = registers[registers.len() - 1];
        let (result, stored) = match access.kind {
            Kind::Load if access.is_signed => {
                let shift = u32::try_from(64 - 8 * size)?;
                let extended = (old << shift).cast_signed() >> shift;
                (Some((data, extended.cast_unsigned())), None)
            }
            Kind::Load | Kind::Reserve => (Some((data, old)), None),
            Kind::Store => (None, Some(value(state, data)?)),
            Kind::Conclude => (Some((registers[0], 0)), Some(value(state, data)?)),
            Kind::Swap => (Some((data, old)), Some(value(state, registers[0])?)),
            Kind::Atomic(operation, _) => {
                let new = Access::apply(operation, old, value(state, registers[0])?);
                (Some((data, old)).filter(|_| registers.len() > 1), Some(new))
            }
            Kind::CompareAndSwap => {
                let is_equal = value(state, registers[0])? == old;
                let new = value(state, data)?;
                (Some((registers[0], old)), is_equal.then_some(new))
            }
        };
        if let Some(stored) = stored {
            heap::store(&mut state.memory, address, size, stored);
        }
        if let Some((register, value)) = result {
            write(state, register, Value::Known(value));
        }
        Ok(())
    }
}
