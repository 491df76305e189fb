//! Counts the instructions and locked operations of the hot paths, and compares them with their
//! budgets in `docs/measurements.md`.

#![forbid(unsafe_code)]

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use doorbell_harness::suite::{self, Absent, Case, Shared};
use doorbell_harness::workspace;
use doorbell_suites::figures;
use doorbell_suites::instructions::{Record, SLOWED};

/// Time limit of a case. The first case fetches valgrind, and builds and runs the program.
const LIMIT: Duration = Duration::from_mins(30);

fn main() -> Result<ExitCode> {
    let recorded = Record::of_page(&fs::read_to_string(figures::page(workspace::this()?))?)?;
    let names = recorded.counts.iter().map(|count| count.name.clone());
    let budgets = names
        .map(|name| case(name.clone(), move |here, recorded| here.judge(&name, recorded, &name)));
    let others = [
        case("each operation has a budget".into(), |here, recorded| {
            let mut names = here.counts.iter().map(|count| &count.name);
            names.try_for_each(|name| {
                let has = recorded.counts.iter().any(|count| count.name == *name);
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
                Ok(()) => anyhow::bail!("the budget does not notice"),
            }
        }),
    ];
    Ok(suite::main(budgets.chain(others).collect()))
}

/// Creates a case that judges the counts of this machine by the recorded ones.
fn case(name: String, judge: impl FnOnce(&Record, &Record) -> Result<()> + Send + 'static) -> Case {
    static HERE: Shared<Record> = Shared::new();
    Case::new(name, LIMIT, move || {
        let workspace = workspace::this()?;
        let here = HERE.get(|| Record::measure(workspace))?;
        judge(here, &Record::of_page(&fs::read_to_string(figures::page(workspace))?)?)
    })
}
