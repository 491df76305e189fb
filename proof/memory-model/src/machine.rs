//! Translates compiled functions into a litmus test's thread.
//!
//! The machine runs a function's instructions. Registers and memory with known values are computed
//! here. A value that depends on a load from one of the test's locations is *live*; instructions
//! that use it are emitted unchanged, with the location's name in place of the address. A branch on
//! a live value is emitted, and both of its paths are followed.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use crate::access::{Access, Kind};
use crate::alu::{self, Nzcv};
use crate::assembly::{Assembly, Instruction, Operand, REGISTERS, Register, STACK, Update};
use crate::data;
use crate::heap::{self, Bytes, Heap};
use crate::state::{
    CUT, END, Expected, Line, Location, Output, State, Step, Value, constant, read, register, write,
};

/// Maximum number of instructions on one path.
const STEPS: u32 = 20_000;

/// Substrings of function names. A call of such a function ends the thread with the result
/// `stopped`. They match panics, and the handler's run in `irq-domain`.
const STOPS: [&str; 4] = ["panic", "unwrap_failed", "expect", "10Dispatcher3run"];

/// Result of an instruction.
enum Next {
    /// The path continues at the state's next instruction.
    Continue,
    /// The path is complete.
    End,
}

/// Translation of one thread.
pub(crate) struct Machine<'a> {
    assembly: &'a Assembly,
    heap: &'a mut Heap,
    locations: &'a [Location],
    steps: &'a [Step],
    /// `true` if paths with a failing compare-and-swap are also followed.
    pub(crate) fails: bool,
    output: Output,
    /// Address and size of the latest access to memory that is neither live nor on the stack.
    latest: Option<(u64, u64)>,
    /// `true` if a path was cut off because its loop exceeded its bound.
    is_cut: bool,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(
        assembly: &'a Assembly,
        heap: &'a mut Heap,
        locations: &'a [Location],
        steps: &'a [Step],
    ) -> Self {
        Self {
            assembly,
            heap,
            locations,
            steps,
            fails: true,
            output: Output::new(),
            latest: None,
            is_cut: false,
        }
    }

    /// Runs all paths of a thread that starts with this memory. Returns the thread's lines, and
    /// whether a path was cut off.
    pub(crate) fn translate(mut self, memory: &Bytes) -> Result<(Vec<Line>, bool)> {
        let state = self.start(memory)?;
        let label = self.output.label();
        self.output.open.push((label, state));
        while let Some((label, state)) = self.output.open.pop() {
            self.output.lines.push(Line::Label(label));
            self.path(state)?;
        }
        Ok((self.output.lines, self.is_cut))
    }

    /// Runs steps that have no live values. Returns the address and size of the last access outside
    /// of the stack.
    pub(crate) fn run(mut self, memory: &Bytes) -> Result<Option<(u64, u64)>> {
        let state = self.start(memory)?;
        self.path(state)?;
        ensure!(self.output.open.is_empty(), "a path without live values has a branch");
        Ok(self.latest)
    }

    fn start(&mut self, memory: &Bytes) -> Result<State> {
        let mut state = State {
            at: 0,
            registers: [Value::Known(0); REGISTERS],
            constant: [(0, 0); REGISTERS],
            flags: Some(Nzcv::of(0)),
            memory: memory.clone(),
            returns: Vec::new(),
            step: 0,
            visited: BTreeMap::new(),
            emitted: 0,
            status: None,
            copied: [None; REGISTERS],
            swap: None,
            is_swapped: false,
        };
        self.begin(&mut state)?;
        Ok(state)
    }

    /// Emits the steps up to the next call, and enters the called function. Returns `false` if the
    /// thread has no more steps.
    fn begin(&mut self, state: &mut State) -> Result<bool> {
        while let Some(step) = self.steps.get(state.step) {
            match step.clone() {
                Step::Write(location, value) => {
                    let width = self.width(&location)?;
                    self.output.emit(state, "MOV", format!("X{{t}},#{value}"), None);
                    let (name, w) = width;
                    self.output.emit(
                        state,
                        &format!("STR{name}"),
                        format!("{w}{{t}},[{{{location}}}]"),
                        None,
                    );
                }
                Step::Read(location, result) => {
                    let (name, w) = self.width(&location)?;
                    let operands = format!("{w}{{={result}}},[{{{location}}}]");
                    self.output.emit(state, &format!("LDR{name}"), operands, None);
                }
                Step::Require(result) => {
                    self.output.emit(state, "CBZ", format!("X{{={result}}},L{END}"), None);
                }
                Step::Call(probe, arguments, _) => {
                    state.registers = [Value::Known(0); REGISTERS];
                    (state.visited, state.swap) = (BTreeMap::new(), None);
                    for (register, argument) in state.registers.iter_mut().zip(arguments) {
                        *register = Value::Known(argument);
                    }
                    state.registers[STACK] = Value::Known(self.heap.object("stack") + (1 << 20));
                    state.at = self.assembly.probe(&probe)?;
                    return Ok(true);
                }
            }
            state.step += 1;
        }
        Ok(false)
    }

    /// Returns the mnemonic's suffix and the register prefix for a location.
    fn width(&self, location: &str) -> Result<(&'static str, &'static str)> {
        let found = self.locations.iter().find(|other| other.name == location);
        match found.with_context(|| format!("no location `{location}`"))?.bytes {
            1 => Ok(("B", "W")),
            2 => Ok(("H", "W")),
            4 => Ok(("", "W")),
            _ => Ok(("", "X")),
        }
    }

    /// Follows a path to its end.
    fn path(&mut self, mut state: State) -> Result<()> {
        for _ in 0..STEPS {
            let at = state.at;
            let instruction = self.assembly.code.get(at).context("the code has no end")?.clone();
            state.at += 1;
            state.visited.entry(at).or_insert(state.emitted);
            let next = self
                .execute(&mut state, &instruction, at)
                .with_context(|| format!("cannot translate {instruction:?}"))?;
            if matches!(next, Next::End) {
                return Ok(());
            }
        }
        bail!("a path has more than {STEPS} instructions")
    }

    fn execute(&mut self, state: &mut State, code: &Instruction, at: usize) -> Result<Next> {
        let name = code.name.as_str();
        match name {
            "hint" | "nop" | "isb" | "yield" | "clrex" | "bti" => Ok(Next::Continue),
            "dmb" | "dsb" => {
                let Some(Operand::Name(domain)) = code.operands.first() else { bail!("no domain") };
                self.output.emit(state, name, domain.to_uppercase(), Some(at));
                Ok(Next::Continue)
            }
            "ret" | "br" => self.leave(state),
            "b" | "bl" => self.jump_to(state, code, name == "bl"),
            // The callee is code of the crate's user. Assume that it returns 0.
            "blr" => {
                state.registers[0] = Value::Known(0);
                Ok(Next::Continue)
            }
            "cbz" | "cbnz" | "tbz" | "tbnz" => self.test_and_branch(state, code),
            "csel" | "csinc" | "csinv" | "csneg" | "cset" | "csetm" | "cinc" => {
                data::select(state, &mut self.output, code).map(|()| Next::Continue)
            }
            "ccmp" => {
                data::compare_if(state, &mut self.output, self.heap, code).map(|()| Next::Continue)
            }
            "ldp" | "stp" => self.pair(state, code).map(|()| Next::Continue),
            _ if let Some(condition) = name.strip_prefix("b.") => {
                let target = self.target(code)?;
                match state.flags {
                    Some(flags) if flags.holds(condition)? => Ok(self.jump(state, target)),
                    Some(_) => Ok(Next::Continue),
                    None if state.is_swapped && !self.fails => self.swapped(state, name, target),
                    None => Ok(self.fork(state, name, "", target)),
                }
            }
            _ if let Some(access) = Access::of(name) => {
                self.access(state, code, access, at).map(|()| Next::Continue)
            }
            _ => data::compute(state, &mut self.output, self.heap, code).map(|()| Next::Continue),
        }
    }

    fn leave(&mut self, state: &mut State) -> Result<Next> {
        if let Some(back) = state.returns.pop() {
            state.at = back;
            return Ok(Next::Continue);
        }
        if let Some(Step::Call(_, _, result)) = self.steps.get(state.step)
            && !result.is_empty()
        {
            let source = match state.registers[0] {
                Value::Known(value) => constant(value),
                Value::Live => "X0".to_owned(),
            };
            let result = result.clone();
            self.output.emit(state, "MOV", format!("X{{={result}}},{source}"), None);
        }
        state.step += 1;
        if self.begin(state)? {
            return Ok(Next::Continue);
        }
        self.output.emit(state, "B", format!("L{END}"), None);
        Ok(Next::End)
    }

    fn target(&self, code: &Instruction) -> Result<usize> {
        let Some(Operand::Name(label)) = code.operands.last() else { bail!("no branch target") };
        self.assembly.label(label).with_context(|| format!("no label {label}"))
    }

    fn jump_to(&mut self, state: &mut State, code: &Instruction, links: bool) -> Result<Next> {
        let Some(Operand::Name(label)) = code.operands.first() else { bail!("no branch target") };
        if STOPS.iter().any(|stop| label.contains(stop)) {
            self.output.emit(state, "MOV", "X{=stopped},#1".to_owned(), None);
            self.output.emit(state, "B", format!("L{END}"), None);
            return Ok(Next::End);
        }
        if let Some(target) = self.assembly.label(label) {
            if links {
                state.returns.push(state.at);
                state.at = target;
                return Ok(Next::Continue);
            }
            return Ok(self.jump(state, target));
        }
        let known = |register: usize| match state.registers[register] {
            Value::Known(value) => Ok(value),
            Value::Live => bail!("an argument of {label} is live"),
        };
        let (to, from, size) = (known(0)?, known(1)?, known(2)?);
        for at in 0..size {
            let byte = match label.as_str() {
                "memset" => from,
                "memcpy" | "memmove" => self.heap.load(&state.memory, from + at, 1),
                _ => bail!("{label} is not part of the crate"),
            };
            heap::store(&mut state.memory, to + at, 1, byte);
        }
        if links { Ok(Next::Continue) } else { self.leave(state) }
    }

    /// Ends a path whose loop exceeds its bound.
    fn cut(&mut self, state: &mut State) -> Next {
        self.is_cut = true;
        self.output.emit(state, "B", format!("L{CUT}"), None);
        Next::End
    }

    fn jump(&mut self, state: &mut State, target: usize) -> Next {
        // The iterations of a loop without live values are bounded by known values, so they need no
        // other bound. A jump back to code that this path has not visited is not a loop.
        if state.visited.contains_key(&target)
            && state.visited.insert(target, state.emitted) != Some(state.emitted)
        {
            return self.cut(state);
        }
        state.at = target;
        Next::Continue
    }

    /// Emits a conditional branch on a live value. The path continues with the branch not taken.
    fn fork(&mut self, state: &mut State, name: &str, operands: &str, target: usize) -> Next {
        let label = self.output.label();
        self.output.emit(state, name, format!("{operands}L{label}"), None);
        if state.visited.contains_key(&target) {
            self.is_cut = true;
            if let Some(Line::Code(_, operands, _)) = self.output.lines.last_mut() {
                *operands = operands.replace(&format!("L{label}"), &format!("L{CUT}"));
            }
            return Next::Continue;
        }
        let mut taken = state.clone();
        taken.at = target;
        self.output.open.push((label, taken));
        Next::Continue
    }

    /// Follows the path on which a compare-and-swap succeeds, and cuts the other one off.
    fn swapped(&mut self, state: &mut State, name: &str, target: usize) -> Result<Next> {
        self.is_cut = true;
        self.output.emit(state, "b.ne", format!("L{CUT}"), None);
        match name {
            "b.ne" => Ok(Next::Continue),
            "b.eq" => Ok(self.jump(state, target)),
            _ => bail!("a compare-and-swap's success is tested by `{name}`"),
        }
    }

    fn test_and_branch(&mut self, state: &mut State, code: &Instruction) -> Result<Next> {
        let register = register(code, 0)?;
        let target = self.target(code)?;
        let (zero, bit) = match (code.name.as_str(), code.operands.get(1)) {
            ("tbz" | "tbnz", Some(Operand::Number(bit))) => (code.name == "tbz", Some(*bit)),
            (name, _) => (name == "cbz", None),
        };
        if let Value::Known(value) = read(state, register) {
            let tested = bit.map_or(value, |bit| value >> bit & 1);
            return if (tested == 0) == zero {
                Ok(self.jump(state, target))
            } else {
                Ok(Next::Continue)
            };
        }
        let bit = bit.map(|bit| format!("#{bit},")).unwrap_or_default();
        if bit.is_empty() && state.status == Some(register.number) {
            // A store-exclusive that fails has no effect, so the path need not be followed.
            self.is_cut = true;
            self.output.emit(state, "cbnz", format!("{register},L{CUT}"), None);
            return if zero { Ok(self.jump(state, target)) } else { Ok(Next::Continue) };
        }
        Ok(self.fork(state, &code.name, &format!("{register},{bit}"), target))
    }

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

    fn pair(&mut self, state: &mut State, code: &Instruction) -> Result<()> {
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

    fn access(
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A loop that sets bit 0 of the word by a compare-and-swap.
    const LOOP: &str = "_ZN1a12memory_model3setE:\n\tldar w8, [x0]\n.L1:\n\torr w9, w8, #1\n\t\
        mov w10, w8\n\tcasal w10, w9, [x0]\n\tcmp w10, w8\n\tb.ne .L2\n\tret\n.L2:\n\t\
        mov w8, w10\n\tb .L1\n";

    fn translated(fails: bool) -> String {
        let (assembly, mut heap) = (Assembly::parse(LOOP).unwrap(), Heap::default());
        let address = heap.object("word");
        let locations = [Location { name: "word".to_owned(), address, bytes: 4, constant: (0, 0) }];
        let steps = [Step::Call("set".to_owned(), vec![address], String::new())];
        let mut machine = Machine::new(&assembly, &mut heap, &locations, &steps);
        machine.fails = fails;
        format!("{:?}", machine.translate(&Bytes::new()).unwrap())
    }

    #[test]
    fn a_thread_requires_a_result() {
        let (assembly, mut heap) = (Assembly::parse(LOOP).unwrap(), Heap::default());
        let steps = [
            Step::Call("set".to_owned(), vec![heap.object("word")], "got".to_owned()),
            Step::Require("got".to_owned()),
        ];
        let machine = Machine::new(&assembly, &mut heap, &[], &steps);
        let (lines, _) = machine.translate(&Bytes::new()).unwrap();
        let end = Line::Code("CBZ".to_owned(), format!("X{{=got}},L{END}"), None);
        assert!(lines.contains(&end), "{lines:?}");
    }

    #[test]
    fn a_failing_swap_is_followed_or_cut_off() {
        let (followed, cut) = (translated(true), translated(false));
        assert!(followed.contains("Label(3)"), "{followed}");
        assert!(!cut.contains("Label(3)"), "{cut}");
        assert!(cut.contains(r#"Code("B.NE", "L0""#), "{cut}");
    }
}
