//! Counts the boards with a PCI host whose controller a driver serves, and compares the numbers
//! with those in `docs/status.md`.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::{fmt, fs};

use anyhow::{Context, Result, ensure};
use doorbell_harness::command::Doorbell;
use doorbell_harness::dtb::{self, Tools};
use doorbell_harness::suite::{Absent, OrAbsent};
use doorbell_harness::workspace::Workspace;
use serde_json::Value;

use super::devicetree::Tree;
use crate::said::{list, text};

/// The numbers of boards with an enabled PCI host.
#[derive(Debug, Default)]
struct Boards {
    /// By the version of the GIC, all boards, and those with a served host.
    by_version: BTreeMap<u64, [usize; 2]>,
    /// Boards without a served host, by the kind of controller of their hosts.
    others: BTreeMap<String, usize>,
    /// Served boards, by what the driver must set outside of the controller.
    gates: BTreeMap<String, usize>,
}

/// Compares the numbers for Debian's newest kernel with those in `docs/status.md`.
///
/// # Errors
/// Fails if the numbers differ. Is absent if they are of another kernel.
pub(crate) fn compare(workspace: &Workspace, command: &Doorbell, tools: &Tools) -> Result<()> {
    let status = fs::read_to_string(workspace.root.join("docs/status.md"))?;
    let (version, trees) = dtb::fetch_newest(workspace).or_absent("Debian's newest kernel")?;
    let version = version.split('-').next().unwrap_or(&version);
    if !status.contains(&format!("Linux {version} ")) {
        return Err(Absent::new(format!("the numbers are not those of Linux {version}")).into());
    }
    let mut boards = Boards::default();
    for (board, file) in dtb::files(&trees)? {
        boards.count(command, tools, &file).with_context(|| board.clone())?;
    }
    let counted = boards.to_string();
    eprintln!("{counted}");
    ensure!(status.contains(&counted), "docs/status.md differs from\n{counted}");
    Ok(())
}

impl Boards {
    fn count(&mut self, command: &Doorbell, tools: &Tools, file: &Path) -> Result<()> {
        let tree = Tree::read(tools, file)?;
        let hosts = tree.enabled_hosts();
        if hosts.is_empty() {
            return Ok(());
        }
        let said = command.inspect(file)?;
        let mut used = HashSet::new();
        for device in list(&said, "devices")?.iter().filter(|it| hosts.contains(text(&it["id"]))) {
            used.extend(list(device, "routes")?.iter().map(|route| text(&route["controller"])));
        }
        let controllers = list(&said, "controllers")?.iter();
        let used: Vec<_> = controllers.filter(|one| used.contains(text(&one["id"]))).collect();
        let is_driven = |one: &&&Value| one["driven"] == true && one["enabled"] == true;
        let served = used.iter().find(is_driven);
        if let Some((one, gate)) = served.and_then(|one| Some((one, one["gate"].as_str()?))) {
            *self.gates.entry(on_any_board(gate, &tree, text(&one["id"]))?).or_default() += 1;
        }
        let is_served = served.is_some();
        let version = said["gic"]["version"].as_u64().unwrap_or(0);
        let [all, served] = self.by_version.entry(version).or_default();
        *all += 1;
        *served += usize::from(is_served);
        if !is_served {
            let kind = used.first().map_or("none", |one| text(&one["kind"]));
            *self.others.entry(kind.to_owned()).or_default() += 1;
        }
        Ok(())
    }
}

/// Returns the text of a host's gate with an offset in one of its regions in place of the address,
/// which differs between boards.
fn on_any_board(gate: &str, tree: &Tree, host: &str) -> Result<String> {
    let Some((bits, address)) = gate.split_once(" in the register 0x") else {
        return Ok(gate.to_owned());
    };
    let address = u64::from_str_radix(address, 16)?;
    let node = tree.nodes.iter().find(|node| node.path == host).context("no such host")?;
    let mut regions =
        tree.regions(node).into_iter().flatten().map(|(base, size)| base..base + size);
    let region = regions.find(|region| region.contains(&address)).context("no such region")?;
    Ok(gate_at(bits, address - region.start))
}

/// Returns the text of bits in a register at an offset in a region.
pub(super) fn gate_at(bits: &str, offset: u64) -> String {
    format!("{bits} at offset {offset:#x}")
}

/// The tables of the numbers, of the boards without a served host, and of what served boards need.
impl fmt::Display for Boards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("| GIC | boards | served |\n|---|---|---|\n")?;
        for (version, [all, served]) in &self.by_version {
            writeln!(f, "| GICv{version} | {all} | {served} |")?;
        }
        f.write_str("\n| controller without a driver | boards |\n|---|---|\n")?;
        self.others.iter().try_for_each(|(kind, boards)| writeln!(f, "| {kind} | {boards} |"))?;
        f.write_str("\n| what the driver sets, and reads back | served boards |\n|---|---|\n")?;
        self.gates.iter().try_for_each(|(gate, boards)| writeln!(f, "| {gate} | {boards} |"))
    }
}
