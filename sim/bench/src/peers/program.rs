//! Peers that run as separate programs because they can't be linked here, e.g. because they need
//! another compiler.
//!
//! The program answers each line on its standard input with one line on its standard output. The
//! answer to `cases` is the names of the program's cases, separated by spaces. The answer to the
//! name of a case is the nanoseconds per operation, or the reason why the case cannot be measured.
//! The program must exit at the end of its input.

use crate::probe::{Fallible, Probe, floor};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

/// Maximum number of bytes read from an answer.
const LONGEST: u64 = 1 << 16;

/// A running program that answers each line with a line.
pub(crate) struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Returns the cases of `program`, each prefixed with `peer-`.
///
/// # Errors
/// Returns an error if the program cannot be started or doesn't list its cases.
pub(crate) fn probes(program: &mut Command) -> Fallible<Vec<Probe>> {
    let program = Rc::new(RefCell::new(Program::start(program)?));
    let cases = program.borrow_mut().ask("cases")?;
    let probe = |case: &str| {
        let (program, case) = (Rc::clone(&program), case.to_owned());
        floor(&format!("peer-{case}"), move || program.borrow_mut().sample(&case))
    };
    Ok(cases.split_whitespace().map(probe).collect())
}

impl Program {
    pub(crate) fn start(program: &mut Command) -> Fallible<Self> {
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => {
                Ok(Self { child, input, output: BufReader::new(output) })
            }
            _ => Err("the program has no standard input or output".into()),
        }
    }

    /// Sends a line and returns the answer.
    pub(crate) fn ask(&mut self, line: &str) -> Fallible<String> {
        let mut answer = String::new();
        writeln!(self.input, "{line}")?;
        match (&mut self.output).take(LONGEST).read_line(&mut answer)? {
            0 => Err("it has ended".into()),
            _ => Ok(answer.trim_end().to_owned()),
        }
    }

    fn sample(&mut self, case: &str) -> Fallible<f64> {
        let answer = self.ask(case)?;
        let time = answer.parse().ok().filter(|time: &f64| time.is_finite() && *time >= 0.0);
        time.ok_or_else(|| answer.into())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Errors are ignored, because the program may already have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
