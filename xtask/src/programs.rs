//! Test programs and examples, as built by cargo. If a program hangs, it is killed and its
//! unfinished tests are listed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use doorbell_harness::parallel::on_each_cpu;
use serde_json::Value;

use crate::counted;
use crate::tally::Tally;
use doorbell_harness::workspace::Workspace;
use doorbell_harness::{hang, process};

/// The tests of a program that are run.
#[derive(Clone, Copy, Debug)]
enum Extent {
    /// All but those ignored as slow.
    Ordinary,
    /// Those ignored as slow.
    Slow,
}

/// Kind of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Tests, run by libtest or a harness with the same interface.
    Test,
    /// An example.
    Example,
}

/// A program that was built, and the folder in which cargo would run it.
#[derive(Debug)]
struct Program {
    kind: Kind,
    file: PathBuf,
    folder: PathBuf,
}

/// Runs the workspace's unit, property, integration and documentation tests, except those ignored
/// as slow, and runs the examples. The suites' cases, which take minutes each, run by name only.
pub(crate) fn run_all(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let programs = build(workspace, &["--workspace"])?;
    run_tests(&programs, Extent::Ordinary, tally);
    run_examples(&programs, tally);
    let mut examples = process::cargo(&workspace.root);
    examples.args(["test", "--workspace", "--all-features", "--no-fail-fast", "--doc"]);
    counted::count_all(&mut examples, hang::CASE, tally)
}

/// Runs the tests that [`run_all`] skips.
pub(crate) fn run_slow(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let programs = build(workspace, &["--workspace"])?;
    run_tests(&programs, Extent::Slow, tally);
    Ok(())
}

/// Builds a suite with the same features as the tests of all packages, so that cargo does not build
/// dependencies twice, and returns the command that runs the suite.
pub(crate) fn suite(workspace: &Workspace, name: &str) -> Result<Command> {
    let programs = build(workspace, &["--workspace", "--test", name])?;
    Ok(programs.first().with_context(|| format!("no suite {name}"))?.command())
}

/// Builds the test programs and the examples that `chosen` selects.
fn build(workspace: &Workspace, chosen: &[&str]) -> Result<Vec<Program>> {
    let mut cargo = process::cargo(&workspace.root);
    cargo.arg("test").args(chosen).args(["--all-features", "--no-run"]);
    cargo.args(["--message-format", "json"]);
    let (mut programs, mut errors) = (Vec::new(), Vec::new());
    let status = process::watch(&mut cargo, 2 * hang::CASE, |line| {
        let Ok(message) = serde_json::from_str::<Value>(line) else { return };
        programs.extend(program(&message));
        if let Some(text) = message["message"]["rendered"].as_str() {
            eprint!("{text}");
            errors.extend((message["message"]["level"] == "error").then(|| text.trim().to_owned()));
        }
    })?;
    // A summary is all that remains of some runs. The linker, for instance, names a full disk.
    let first = errors.first().map_or("no compiler error was printed", String::as_str);
    ensure!(status.success(), "the tests do not compile: {status}, {first}");
    Ok(programs)
}

/// Parses a message of cargo's.
fn program(message: &Value) -> Option<Program> {
    let kind = match message["target"]["kind"][0].as_str() {
        Some("example") => Kind::Example,
        _ if message["profile"]["test"].as_bool()? => Kind::Test,
        _ => return None,
    };
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.into();
    Some(Program { kind, file: message["executable"].as_str()?.into(), folder })
}

/// Runs the test programs.
fn run_tests(programs: &[Program], extent: Extent, tally: &mut Tally) {
    // Run these programs one at a time: each uses all CPUs, and some fail if messages are delayed.
    for program in programs.iter().filter(|program| program.kind == Kind::Test) {
        program.run_tests(extent, tally);
    }
}

fn run_examples(programs: &[Program], tally: &mut Tally) {
    let examples: Vec<_> =
        programs.iter().filter(|program| program.kind == Kind::Example).collect();
    let outcomes = on_each_cpu(&examples, |_, program| program.run_example());
    for (program, outcome) in examples.iter().zip(outcomes) {
        tally.case(&program.name(), outcome);
    }
}

impl Program {
    fn name(&self) -> String {
        self.file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns a command that runs the program as cargo would.
    fn command(&self) -> Command {
        let mut command = process::command(&self.file.to_string_lossy(), &self.folder);
        command.env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }

    fn run_example(&self) -> Result<()> {
        let mut command = self.command();
        let mut output = vec![format!("example {}", self.name())];
        let status =
            process::watch(&mut command, hang::RUN, |line| output.push(format!("  {line}")))?;
        println!("{}", output.join("\n"));
        ensure!(status.success(), "ended with {status}");
        Ok(())
    }

    fn run_tests(&self, extent: Extent, tally: &mut Tally) {
        let (name, failures) = (self.name(), tally.failures());
        let mut unfinished = self.listed();
        let mut command = self.command();
        if let Extent::Slow = extent {
            command.arg("--ignored");
        }
        let mut output = vec![name.clone()];
        let outcome = process::watch_each(&mut command, hang::CASE, |line| {
            counted::count(line, tally);
            let verdict = line.strip_prefix("test ").and_then(|case| case.rsplit_once(" ... "));
            if let (Some((test, _)), Ok(unfinished)) = (verdict, &mut unfinished) {
                unfinished.remove(test.trim_end());
            }
            let is_ok = verdict.is_some_and(|(_, verdict)| verdict.starts_with("ok"));
            if !is_ok && !line.is_empty() {
                output.push(line.to_owned());
            }
        });
        println!("{}", output.join("\n"));
        match outcome {
            Ok(status) if status.success() || tally.failures() > failures => {}
            Ok(status) => tally.fail(format!("{name} ended with {status}")),
            Err(error) => {
                let unfinished = unfinished.unwrap_or_default().into_iter().collect::<Vec<_>>();
                tally.fail(format!("{name}: {error:#}; unfinished: {}", unfinished.join(", ")));
            }
        }
    }

    /// Returns the names of a program's tests.
    fn listed(&self) -> Result<BTreeSet<String>> {
        let list = process::capture(self.command().args(["--list", "--format", "terse"]))?;
        Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(line: &str) -> Value {
        serde_json::from_str(line).unwrap_or_default()
    }

    #[test]
    fn programs_are_read_from_cargos_json_messages() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/d/vgic/Cargo.toml",
            "target":{"kind":["lib"]},"profile":{"test":true},
            "executable":"/d/target/debug/deps/vgic-1"}"#
            .replace('\n', "");
        let found = program(&message(&line)).unwrap();
        assert_eq!((found.kind, &*found.folder), (Kind::Test, Path::new("/d/vgic")));
        assert!(program(&message(&line.replace("true", "false"))).is_none());
        let example = line.replace("lib", "example").replace("true", "false");
        assert_eq!(program(&message(&example)).unwrap().kind, Kind::Example);
        assert!(program(&message("   Compiling vgic")).is_none());
    }
}
