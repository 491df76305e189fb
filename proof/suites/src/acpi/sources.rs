//! Changes the values of a machine's sources one at a time: the findings must be those of the
//! tables that `iasl` compiles from them, and point at the lines that were changed.

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use doorbell_harness::process;
use serde_json::Value;

use super::judge::{AcpiJudge, TABLES};

/// Number of values from one changed value to the next.
const STRIDE: usize = 2;
/// Minimum share of the values with findings, in percent, whose line is among those of the
/// findings. Findings of the other values are about a different field, for example about the ID
/// mapping that leads to a changed node.
const NAMED: usize = 70;

/// Changes values of the sources in `folder`, and compares the findings.
pub(crate) fn judge(judge: &AcpiJudge, folder: &Path) -> Result<()> {
    let work = judge.folder.join("changed").join(folder.file_name().unwrap_or_default());
    let compiled = work.join("compiled");
    fs::create_dir_all(&compiled)?;
    for name in TABLES.map(Path::new) {
        for (extension, copies) in [("asl", &work), ("aml", &compiled)] {
            let name = name.with_extension(extension);
            fs::copy(folder.join(&name), copies.join(&name))?;
        }
    }
    let source = |name: &str| work.join(name).with_extension("asl");
    let before = compare(judge, &source("iort"), &compiled)?;
    ensure!(before.is_empty(), "findings in the machine itself: {before:?}");
    let (mut found, mut named) = (0, 0);
    for name in TABLES {
        let source = source(name);
        let table = compiled.join(name).with_extension("aml");
        let (text, blob) = (fs::read_to_string(&source)?, fs::read(&table)?);
        let values = text.lines().enumerate().filter_map(|(at, line)| Some((at, changed(line)?)));
        for (at, line) in values.step_by(STRIDE) {
            let lines = text.lines().enumerate();
            let lines = lines.map(|(number, old)| if number == at { &line } else { old });
            fs::write(&source, lines.collect::<Vec<_>>().join("\n"))?;
            let mut iasl = judge.iasl()?;
            // `iasl` refuses some values.
            if process::capture(iasl.arg("-p").arg(table.with_extension("")).arg(&source)).is_ok() {
                let lines = compare(judge, &source, &compiled)
                    .with_context(|| format!("{name}.asl:{}: {}", at + 1, line.trim()))?;
                found += usize::from(!lines.is_empty());
                let is_own = |(file, lines): &(String, [u64; 2])| {
                    let number = at as u64 + 1;
                    Path::new(file) == source && lines[0] <= number && number <= lines[1]
                };
                named += usize::from(lines.iter().any(is_own));
            }
        }
        fs::write(&source, text)?;
        fs::write(&table, blob)?;
    }
    println!("{found} changed values have findings, {named} of them in their lines");
    ensure!(found > 0 && named * 100 >= found * NAMED, "too few findings are in their lines");
    Ok(())
}

/// Returns a line with another value; `None` if the line has no number.
fn changed(line: &str) -> Option<String> {
    let (name, value) = line.split_once(':')?;
    let digits = value.trim_start().split(|one: char| !one.is_ascii_hexdigit()).next()?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    Some(format!("{name}: {:0width$X}", number ^ 1, width = digits.len()))
}

/// Returns the files and the first and last lines of the findings in a source, which must be the
/// findings in the tables.
fn compare(judge: &AcpiJudge, source: &Path, tables: &Path) -> Result<Vec<(String, [u64; 2])>> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [judge.iasl_folder()?].into_iter().chain(env::split_paths(&path));
    let mut lint = judge.lint_command();
    lint.env("PATH", env::join_paths(folders)?).arg("--json").args([source, tables]);
    let output = process::output(&mut lint)?;
    let said: Vec<Value> = serde_json::from_slice(&output.stdout).context("not JSON")?;
    let is_of_tables = |one: &&Value| one["source"] == tables.to_string_lossy().as_ref();
    let (of_tables, of_source): (Vec<_>, Vec<_>) = said.iter().partition(is_of_tables);
    let facts = |one: &&Value| ["rule", "where", "message"].map(|key| one[key].clone());
    let (expected, actual): (Vec<_>, Vec<_>) =
        (of_tables.iter().map(facts).collect(), of_source.iter().map(facts).collect());
    ensure!(expected == actual, "findings {actual:?} instead of {expected:?}");
    let place = |one: &&Value| {
        let lines = [&one["line"], &one["end_line"]].map(Value::as_u64);
        let file = one["file"].as_str().map(str::to_owned);
        file.zip(lines[0].zip(lines[1]).map(|(first, last)| [first, last]))
            .with_context(|| format!("no line for {one}"))
    };
    of_source.iter().map(place).collect()
}
