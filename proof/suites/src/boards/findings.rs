//! Compares the findings of `doorbell lint` in Debian's devicetrees, by rule, with reviewed
//! numbers.
//!
//! The numbers apply to particular kernels. If the cache contains a different kernel, the
//! comparison is skipped. In that case, `cargo xtask findings` writes new numbers; review the
//! findings before committing them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use doorbell_harness::command::Doorbell;
use doorbell_harness::dtb::{self, Tree};
use doorbell_harness::suite::Absent;
use doorbell_harness::workspace::Workspace;
use doorbell_harness::{cache, process};
use serde_json::Value;

/// File with the numbers: a paragraph for each tree.
const FILE: &str = "docs/findings.txt";
const REVIEW: &str = "write them by `cargo xtask findings`, and review what git shows";
/// The kernels' devicetrees.
pub(crate) const TREES: [Tree; 2] = [Tree::Debian, Tree::Backports];
/// Folder of the cache for firmware that no package contains, and the name of its list.
const PUBLISHED: &str = "published";

/// Returns the paragraph of a tree: its name, its devicetrees, and the findings of each rule.
fn summary(name: &str, list: &str) -> String {
    let trees = list.lines().next().unwrap_or_default().trim_start_matches("# ");
    let rows = by_rule(list).into_iter();
    let rows =
        rows.map(|(rule, (count, trees))| format!("{rule}: {count} in {} trees\n", trees.len()));
    format!("{name}: {trees}\n{}", rows.collect::<String>())
}

/// Counts the findings of each rule in a list, and collects the devicetrees in which they occur.
fn by_rule(list: &str) -> BTreeMap<&str, (usize, BTreeSet<&str>)> {
    let mut rules: BTreeMap<_, (usize, BTreeSet<_>)> = BTreeMap::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        if let (Some(rule), Some(tree), Some(count)) =
            (words.next(), words.next(), words.next_back())
        {
            let (total, trees) = rules.entry(rule).or_default();
            *total += count.parse().unwrap_or(0);
            trees.insert(tree);
        }
    }
    rules
}

/// Writes new numbers, for review before they are committed.
///
/// # Errors
/// Fails if the devicetrees cannot be fetched or linted.
pub(crate) fn accept(workspace: &Workspace) -> Result<()> {
    let command = Doorbell::build(workspace)?;
    let mut paragraphs = Vec::new();
    for (tree, fetched) in dtb::fetch(workspace) {
        if TREES.contains(&tree) {
            fetched?;
            let list = list(tree.name(), &tree.folder(workspace), &command)?;
            paragraphs.push(summary(tree.name(), &list));
        }
    }
    let published = published(workspace);
    if published.exists() {
        paragraphs.push(summary(PUBLISHED, &list(PUBLISHED, &published, &command)?));
    }
    let path = workspace.root.join(FILE);
    fs::write(&path, paragraphs.join("\n")).with_context(|| format!("cannot write {FILE}"))?;
    println!("{}", path.display());
    Ok(())
}

/// Compares the findings in a tree of devicetrees with its numbers.
///
/// # Errors
/// Fails if the numbers differ, or if they are for another kernel's devicetrees.
pub(crate) fn compare(workspace: &Workspace, command: &Doorbell, tree: Tree) -> Result<()> {
    compare_numbers(workspace, command, tree.name(), &tree.folder(workspace))
}

/// Compares the findings in firmware that no package contains with their numbers, if the cache has
/// the folder `published` (see `docs/lint.md`).
///
/// # Errors
/// As [`compare`].
pub(crate) fn compare_published(workspace: &Workspace, command: &Doorbell) -> Result<()> {
    let folder = published(workspace);
    if !folder.exists() {
        return Err(Absent::new(format!("there is no {}", folder.display())).into());
    }
    compare_numbers(workspace, command, PUBLISHED, &folder)
}

fn compare_numbers(
    workspace: &Workspace,
    command: &Doorbell,
    name: &str,
    folder: &Path,
) -> Result<()> {
    let expected = fs::read_to_string(workspace.root.join(FILE))?;
    let found = summary(name, &list(name, folder, command)?);
    let first = found.lines().next();
    let mut paragraphs = expected.split("\n\n").map(str::trim_end);
    let Some(expected) = paragraphs.find(|paragraph| paragraph.lines().next() == first) else {
        return Err(Absent::new("the numbers are for other files").into());
    };
    ensure!(found.trim_end() == expected, "findings changed: {REVIEW}\n{found}");
    Ok(())
}

fn published(workspace: &Workspace) -> PathBuf {
    cache::folder(workspace).join(PUBLISHED)
}

/// Returns the folders below `folder` that contain a machine's tables.
fn tables(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let madts = cache::files_below(folder)?.into_iter().filter(|file| file.ends_with("APIC"));
    Ok(madts.filter_map(|madt| madt.parent().map(Path::to_path_buf)).collect())
}

/// Returns the findings as lines of rule, source, place and count. The first line identifies the
/// devicetrees.
fn list(name: &str, folder: &Path, command: &Doorbell) -> Result<String> {
    let files = dtb::files(folder)?;
    let bytes = files.iter().map(|(_, file)| Ok(fs::metadata(file)?.len())).sum::<Result<u64>>()?;
    let start = Instant::now();
    let mut judge = command.command(&["lint", "--json"]);
    let output = process::output(judge.arg(folder).args(tables(folder)?))?;
    let taken = start.elapsed();
    eprintln!("{name}: {} trees linted in {:.1} s", files.len(), taken.as_secs_f32());
    let findings: Value = serde_json::from_slice(&output.stdout).context("not JSON")?;
    let mut counts: BTreeMap<[String; 3], usize> = BTreeMap::new();
    for finding in findings.as_array().context("the findings are not a list")? {
        let field = |name: &str| finding[name].as_str().context("a field is missing");
        let source = Path::new(field("source")?).strip_prefix(folder)?.with_extension("");
        let line = [field("rule")?.into(), source.display().to_string(), field("where")?.into()];
        *counts.entry(line).or_default() += 1;
    }
    let mut text = format!("# {} devicetrees of {bytes} bytes\n", files.len());
    for ([rule, source, place], count) in counts {
        writeln!(text, "{rule} {source} {place} {count}")?;
    }
    Ok(text)
}
