//! Instructions and locked operations of each operation of the hot paths, counted by callgrind, and
//! their budgets: the counts that `docs/measurements.md` records.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use doorbell_harness::apt::{self, Suite};
use doorbell_harness::suite::{Absent, Case, OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{process, temporary};

use crate::figures;

/// Name of the table's mark in the page.
pub(crate) const TABLE: &str = "instructions";
/// An operation that the program slows down on purpose, to show that its budget notices.
const SLOWED: (&str, &str) = ("message-pending-slowed", "message-pending");
/// Maximum deviation from a budget.
const TOLERANCE: f64 = 0.02;
/// The function whose instructions are counted, and the function that ends an operation.
const COUNTED: &str = "doorbell_bench::operations::counter::counted";
const FINISHED: &str = "doorbell_bench::operations::finished";
/// Text before the compiler's version in the page.
const COMPILER: &str = "Compiled by ";

pub(crate) fn cases() -> Result<Vec<Case>> {
    let recorded = Record::of_page(&fs::read_to_string(figures::page(workspace::this()?))?)?;
    let names = recorded.counts.iter().map(|(name, _)| name.clone());
    let budgets = names
        .map(|name| case(name.clone(), move |here, recorded| here.judge(&name, recorded, &name)));
    let others = [
        case("each operation has a budget".into(), |here, recorded| {
            here.counts.iter().try_for_each(|(name, _)| {
                let has = recorded.counts.iter().any(|(other, _)| other == name);
                ensure!(has || name == SLOWED.0, "`{name}` has no budget");
                Ok(())
            })
        }),
        case("a slowed operation exceeds its budget".into(), |here, recorded| {
            match here.judge(SLOWED.0, recorded, SLOWED.1) {
                Err(error) if error.is::<Absent>() => Err(error),
                Err(error) => {
                    eprintln!("noticed: {error}");
                    Ok(())
                }
                Ok(()) => bail!("the budget does not notice"),
            }
        }),
    ];
    Ok(budgets.chain(others).collect())
}

/// Creates a case that judges the counts of this machine by the recorded ones.
fn case(name: String, judge: impl FnOnce(&Record, &Record) -> Result<()> + Send + 'static) -> Case {
    static HERE: Shared<Record> = Shared::new();
    Case::of(name, move || {
        let workspace = workspace::this()?;
        let here = HERE.get(|| Record::measure(workspace))?;
        judge(here, &Record::of_page(&fs::read_to_string(figures::page(workspace))?)?)
    })
}

/// The table of a compiler, as it prints its version: the name of each operation, and its mean
/// numbers of instructions and of locked operations.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    compiler: String,
    counts: Vec<(String, [f64; 2])>,
}

impl Record {
    /// Counts each operation, by this machine's compiler.
    ///
    /// # Errors
    /// Fails if the program cannot be built, or fails. A machine without x86-64 or callgrind lacks
    /// a component.
    pub(crate) fn measure(workspace: &Workspace) -> Result<Self> {
        if !cfg!(target_arch = "x86_64") {
            return Err(Absent::new("the instructions are those of x86-64").into());
        }
        let needs = ["valgrind"];
        let valgrind = apt::cached_with_needs(workspace, Suite::Stable, "valgrind", &needs);
        let valgrind = valgrind.or_absent("valgrind")?;
        let compiler = compiler(workspace)?;
        // With the command among the packages, its dependencies are not built with other features.
        let mut cargo = process::cargo(&workspace.root);
        cargo.args(["build", "--release", "--package", "doorbell", "--package", "doorbell-bench"]);
        process::must(cargo.args(["--bin", "doorbell-operations"]))?;
        let folder = temporary::Folder::new()?;
        let mut callgrind = process::unpacked(
            &valgrind.join("usr/bin/valgrind.bin").to_string_lossy(),
            folder.path(),
        );
        callgrind.env("VALGRIND_LIB", valgrind.join("usr/libexec/valgrind")).args([
            "--tool=callgrind",
            "--quiet",
            "--collect-bus=yes",
            "--collect-atstart=no",
            "--callgrind-out-file=counts",
            &format!("--toggle-collect={COUNTED}"),
            &format!("--dump-after={FINISHED}"),
        ]);
        let printed =
            process::capture(callgrind.arg(workspace.target.join("release/doorbell-operations")))?;
        let count = |(line, number): (&str, u32)| {
            let counts = fs::read_to_string(folder.path().join(format!("counts.{number}")))?;
            parse(line, &counts).with_context(|| format!("callgrind's counts for `{line}`"))
        };
        let counts = printed.lines().zip(1..).map(count).collect::<Result<_>>()?;
        Ok(Self { compiler, counts })
    }

    /// Reads the table of a page.
    ///
    /// # Errors
    /// Fails if the page has no table, or the table is malformed.
    pub(crate) fn of_page(page: &str) -> Result<Self> {
        let table = figures::of_page(page, TABLE).context("the page has no table")?;
        let compiler = table.lines().find_map(|line| line.strip_prefix(COMPILER));
        let compiler = compiler.context("the table names no compiler")?.trim_end_matches('.');
        let rows = table.lines().filter(|line| line.starts_with("| `"));
        let row = |line: &str| {
            let cells: Vec<_> = line.split(['|', ' ', '`']).filter(|it| !it.is_empty()).collect();
            let [name, instructions, locked] = cells[..] else { return None };
            Some((name.to_owned(), [instructions.parse().ok()?, locked.parse().ok()?]))
        };
        let rows = rows.map(|line| row(line).with_context(|| format!("malformed: {line}")));
        Ok(Self { compiler: compiler.to_owned(), counts: rows.collect::<Result<_>>()? })
    }

    /// Formats the table as in the page.
    pub(crate) fn markdown(&self) -> String {
        let mut table = format!("{COMPILER}{}.\n\n", self.compiler);
        table.push_str("| operation | instructions | locked operations |\n|---|---|---|\n");
        for (name, [instructions, locked]) in &self.counts {
            if name != SLOWED.0 {
                let _ = writeln!(table, "| `{name}` | {instructions:.1} | {locked:.2} |");
            }
        }
        table
    }

    /// Checks an operation against the budget of the operation `budget` in `recorded`.
    ///
    /// # Errors
    /// Fails if the operation costs more or less than its budget. If the budgets are those of
    /// another compiler, they don't apply here.
    pub(crate) fn judge(&self, name: &str, recorded: &Self, budget: &str) -> Result<()> {
        if self.compiler != recorded.compiler {
            let (here, there) = (&self.compiler, &recorded.compiler);
            let why = format!("recorded with {there}, this is {here}: record anew ({RECORD})");
            return Err(Absent::new(why).into());
        }
        let of = |counts: &Self, name: &str| {
            let found = counts.counts.iter().find(|(other, _)| other == name);
            found
                .map(|(_, counts)| *counts)
                .with_context(|| format!("`{name}` has no count: record anew ({RECORD})"))
        };
        let ([instructions, locked], budget) = (of(self, name)?, of(recorded, budget)?);
        within("instructions", instructions, budget[0], 0.05)?;
        within("locked operations", locked, budget[1], 0.005)
    }
}

/// The command that writes the table.
const RECORD: &str = "`cargo xtask instructions`";

/// Checks a count against its budget, which was rounded by up to `rounding`.
fn within(what: &str, count: f64, budget: f64, rounding: f64) -> Result<()> {
    let excess = (count - budget).abs() - rounding;
    ensure!(
        excess <= budget * TOLERANCE,
        "{count:.2} {what}, and {budget:.2} are recorded: if that is intended, run {RECORD}"
    );
    Ok(())
}

/// Parses a line of the program, and callgrind's counts of the operation.
fn parse(line: &str, counts: &str) -> Option<(String, [f64; 2])> {
    let (name, repetitions) = line.split_once(' ')?;
    let repetitions: f64 = repetitions.parse().ok()?;
    let named = |name| counts.lines().find_map(|line| line.strip_prefix(name));
    let column = |event| named("events: ")?.split_whitespace().position(|name| name == event);
    let total = |event| -> Option<f64> {
        named("totals: ")?.split_whitespace().nth(column(event)?)?.parse().ok()
    };
    // callgrind omits columns at the end that are zero.
    let locked = total("Ge").unwrap_or(0.0) / repetitions;
    Some((name.to_owned(), [total("Ir")? / repetitions, locked]))
}

fn compiler(workspace: &Workspace) -> Result<String> {
    let mut rustc = process::command("rustc", &workspace.root);
    Ok(process::capture(rustc.arg("--version"))?.trim().to_owned())
}
