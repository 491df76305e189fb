//! Findings of `doorbell lint` in Debian's devicetrees, compared with those that people have read.
//!
//! The lists are of certain kernels. With another kernel in the cache the comparison is skipped:
//! `cargo xtask findings` writes the lists anew, to be read before they are committed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::dtb::{self, Tree};
use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{changes, machine, process};

/// Kernels' devicetrees.
const TREES: [Tree; 2] = [Tree::Debian, Tree::Backports];
/// A thousand devicetrees are judged within seconds; on a busy host, within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Compares the findings in each tree of devicetrees with its list.
pub(crate) fn check(workspace: &Workspace, command: &Path, tally: &mut Tally) {
    for tree in TREES {
        let name = format!("findings in {}", tree.name());
        match compare(workspace, command, tree) {
            Ok(Compared::Same) => tally.case(&name, Ok(())),
            Ok(Compared::OtherKernel) => {
                tally.skip(format!("{name}: the list is of another kernel's devicetrees"));
            }
            Err(error) => tally.case(&name, Err(error)),
        }
    }
}

/// Writes the lists anew.
pub(crate) fn accept(workspace: &Workspace) -> Result<ExitCode> {
    let command = machine::build(workspace)?;
    for (tree, fetched) in dtb::fetch(workspace) {
        if TREES.contains(&tree) {
            fetched?;
            let list = list(workspace, &command, tree)?;
            let path = path(workspace, tree);
            fs::write(&path, list).with_context(|| format!("cannot write {}", path.display()))?;
            println!("{}", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

enum Compared {
    Same,
    OtherKernel,
}

fn compare(workspace: &Workspace, command: &Path, tree: Tree) -> Result<Compared> {
    let expected = fs::read_to_string(path(workspace, tree))?;
    let found = list(workspace, command, tree)?;
    if found == expected {
        return Ok(Compared::Same);
    }
    if found.lines().next() != expected.lines().next() {
        return Ok(Compared::OtherKernel);
    }
    let changes = changes::between(&expected, &found);
    bail!("{} findings changed:\n  {}", changes.len(), changes.join("\n  "))
}

fn path(workspace: &Workspace, tree: Tree) -> PathBuf {
    workspace.root.join("xtask/src/boards/findings").join(tree.name()).with_extension("txt")
}

/// The findings as lines: rule, devicetree, place, and how many. The first line says which
/// devicetrees they are.
fn list(workspace: &Workspace, command: &Path, tree: Tree) -> Result<String> {
    let folder = tree.folder(workspace);
    let files = dtb::files(&folder)?;
    let bytes = files.iter().map(|(_, file)| Ok(fs::metadata(file)?.len())).sum::<Result<u64>>()?;
    let mut judge = process::command(&command.to_string_lossy(), Path::new("/"));
    let start = Instant::now();
    let output =
        process::output(judge.args(["lint", "--json"]).arg(&folder).stderr(Stdio::piped()))?;
    let taken = start.elapsed();
    println!("{}: {} trees linted in {:.1} s", tree.name(), files.len(), taken.as_secs_f32());
    ensure!(taken < PATIENCE, "took {:.1} s", taken.as_secs_f32());
    let findings: Value = serde_json::from_slice(&output.stdout).context("not JSON")?;
    let mut counts: BTreeMap<[String; 3], usize> = BTreeMap::new();
    for finding in findings.as_array().context("no list")? {
        let field = |name: &str| finding[name].as_str().context("a field is missing");
        let source = Path::new(field("source")?).strip_prefix(&folder)?.with_extension("");
        let line = [field("rule")?.into(), source.display().to_string(), field("where")?.into()];
        *counts.entry(line).or_default() += 1;
    }
    let mut text = format!("# {} devicetrees of {bytes} bytes\n", files.len());
    for ([rule, source, place], count) in counts {
        writeln!(text, "{rule} {source} {place} {count}")?;
    }
    Ok(text)
}
