//! Compares the findings of `doorbell lint` in Debian's devicetrees with reviewed lists.
//!
//! The lists apply to particular kernels. If the cache contains a different kernel, the comparison
//! is skipped. In that case, `cargo xtask findings` writes new lists; review them before
//! committing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use doorbell_harness::dtb::{self, Tree};
use doorbell_harness::suite::{Absent, OrAbsent};
use doorbell_harness::workspace::Workspace;
use doorbell_harness::{changes, command, process};
use serde_json::Value;

/// Folder of the lists.
const FOLDER: &str = "docs/findings";
/// The kernels' devicetrees.
pub const TREES: [Tree; 2] = [Tree::Debian, Tree::Backports];
/// Maximum time to lint a thousand devicetrees, which takes seconds unless the host is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lists the findings in the devicetrees of Debian's newest kernel, which have not been reviewed.
///
/// # Errors
/// Fails if the kernel cannot be fetched, or if its devicetrees cannot be linted.
pub fn list_newest(workspace: &Workspace, command: &Path) -> Result<()> {
    let (version, trees) = dtb::fetch_newest(workspace).or_absent("Debian's newest kernel")?;
    let list = list("debian-unstable", &trees, command)?;
    let folder = workspace.target.join("boards");
    fs::create_dir_all(&folder)?;
    let path = folder.join("debian-unstable.txt");
    fs::write(&path, &list)?;
    eprintln!("findings in Linux {version} of Debian's sid, listed in {}:", path.display());
    for (rule, (count, trees)) in by_rule(&list) {
        eprintln!("  {count:5} {rule} in {} trees", trees.len());
    }
    Ok(())
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

/// Writes new lists, for review before they are committed.
///
/// # Errors
/// Fails if the devicetrees cannot be fetched or linted.
pub fn accept(workspace: &Workspace) -> Result<()> {
    let command = command::build(workspace)?;
    for (tree, fetched) in dtb::fetch(workspace) {
        if TREES.contains(&tree) {
            fetched?;
            let list = list(tree.name(), &tree.folder(workspace), &command)?;
            let path = path(workspace, tree);
            fs::write(&path, list).with_context(|| format!("cannot write {}", path.display()))?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// Compares the findings in a tree of devicetrees with its list.
///
/// # Errors
/// Fails if the findings differ from the list, or if the list is for another kernel's devicetrees.
pub fn compare(workspace: &Workspace, command: &Path, tree: Tree) -> Result<()> {
    let expected = fs::read_to_string(path(workspace, tree))?;
    let found = list(tree.name(), &tree.folder(workspace), command)?;
    if found.lines().next() != expected.lines().next() {
        return Err(Absent::new("the list is for another kernel's devicetrees").into());
    }
    let changes = changes::between(&expected, &found);
    ensure!(found == expected, "{} findings changed:\n  {}", changes.len(), changes.join("\n  "));
    Ok(())
}

fn path(workspace: &Workspace, tree: Tree) -> PathBuf {
    workspace.root.join(FOLDER).join(tree.name()).with_extension("txt")
}

/// Returns the findings as lines of rule, devicetree, place and count. The first line identifies
/// the devicetrees.
fn list(name: &str, folder: &Path, command: &Path) -> Result<String> {
    let files = dtb::files(folder)?;
    let bytes = files.iter().map(|(_, file)| Ok(fs::metadata(file)?.len())).sum::<Result<u64>>()?;
    let mut judge = process::command(&command.to_string_lossy(), Path::new("/"));
    let start = Instant::now();
    let output =
        process::output(judge.args(["lint", "--json"]).arg(folder).stderr(Stdio::piped()))?;
    let taken = start.elapsed();
    eprintln!("{name}: {} trees linted in {:.1} s", files.len(), taken.as_secs_f32());
    ensure!(taken < PATIENCE, "took {:.1} s", taken.as_secs_f32());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_and_trees_are_counted_by_rule() {
        let list = "# 3 devicetrees of 9 bytes\n\
                    a vendor/one /x: reg 2\na vendor/one /y: reg 1\na vendor/two /x: reg 1\n\
                    b vendor/two /x,1 y: reg 1\n";
        let trees = |names: &[&'static str]| names.iter().copied().collect::<BTreeSet<_>>();
        let one = ("a", (4, trees(&["vendor/one", "vendor/two"])));
        assert_eq!(by_rule(list), BTreeMap::from([one, ("b", (1, trees(&["vendor/two"])))]));
    }
}
