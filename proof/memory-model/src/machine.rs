//! Translates compiled functions into a litmus test's thread.
//!
//! The machine runs a function's instructions. Registers and memory with known values are computed
//! here. A value that depends on a load from one of the test's locations is *live*; instructions
//! that use it are emitted unchanged, with the location's name in place of the address. A branch on
//! a live value is emitted, and both of its paths are followed.

mod accesses;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use crate::access::Access;
use crate::alu::Nzcv;
use crate::assembly::{Assembly, Instruction, Operand, REGISTERS, STACK};
use crate::data;
use crate::heap::{self, Bytes, Heap};
use crate::state::{
    CUT, END, Line, Location, Output, State, Step, Value, constant, read, register,
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
    fn a_required_result_of_zero_ends_the_thread() {
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
    fn the_path_of_a_failed_compare_and_swap_is_optional() {
        let (followed, cut) = (translated(true), translated(false));
        assert!(followed.contains("Label(3)"), "{followed}");
        assert!(!cut.contains("Label(3)"), "{cut}");
        assert!(cut.contains(r#"Code("B.NE", "L0""#), "{cut}");
    }
}
