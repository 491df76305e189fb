//! Runs the command on real machines' devicetrees. The totals of each run must be consistent, and
//! if a machine doesn't use an MSI controller, the command must say so.

mod addresses;
mod devicetree;
mod fields;
pub(crate) mod findings;
mod recognized;
mod registers;
mod served;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use doorbell_harness::command::{Doorbell, judge_totals};
use doorbell_harness::dtb::{self, Tools, Tree, VIRT};
use doorbell_harness::suite::{self, Absent, Case, Shared};
use doorbell_harness::{hang, process, workspace};
use serde_json::Value;

use self::devicetree::Tree as Source;
use self::sources::Sources;
use crate::said::{list, same, text};

/// Boards of Debian's kernels, each with a distinct structure.
const BOARDS: &[&str] = &[
    // GICv2m frames of a GICv2, with SPIs from registers and from firmware.
    "amd/amd-overdrive-rev-b1",
    "apm/apm-merlin",
    "arm/juno-r2",
    "marvell/armada-8040-mcbin",
    // An ITS, with a simulated PCI host bridge and an SMMU that signals through it.
    "arm/fvp-base-revc",
    // No node refers to the ITS.
    "arm/foundation-v8-gicv3-psci",
    // GICv2.
    "broadcom/bcm2711-rpi-4-b",
    // 48 CPUs; no node refers to the ITS.
    "cavium/thunder-88xx",
    // `msi-parent` without a cell.
    "cavium/thunder2-99xx",
    // `msi-map` for 14 requesters, in addition to `msi-parent`.
    "freescale/fsl-ls1028a-kontron-sl28",
    // A bus other than PCI.
    "freescale/fsl-ls1088a-rdb",
    // 16 CPUs, six disabled PCI host bridges.
    "freescale/fsl-lx2160a-rdb",
    // GICv3 without an ITS.
    "freescale/imx8mq-evk",
    // Four ITSes, `redistributor-stride`.
    "hisilicon/hip05-d02",
    // Wire-to-message bridges.
    "hisilicon/hip06-d03",
    // 64 CPUs, 8 ITSes, four redistributor regions, `msi-map-mask`.
    "hisilicon/hip07-d05",
    // Platform devices.
    "marvell/armada-8080-db",
    // A disabled ITS.
    "qcom/sdm845-db845c",
    // Two entries in `msi-map` and a mask.
    "qcom/sm8450-hdk",
    // Several PCI host bridges on one ITS.
    "qcom/sa8295p-adp",
    "rockchip/rk3399-rockpro64",
    // Message-based SPIs, no ITS.
    "rockchip/rk3566-quartz64-a",
    "rockchip/rk3568-rock-3a",
    "ti/k3-am6548-iot2050-advanced-pg2",
    "ti/k3-am642-evm",
    "ti/k3-j721e-sk",
];

/// Boards that the kernel of Debian's stable release does not support yet.
const NEWER_BOARDS: &[&str] = &[
    // Non-coherent ITS.
    "freescale/imx95-19x19-evk",
    // Two entries in `msi-map`.
    "qcom/sm8550-mtp",
    // Two ITSes, two to five PCI host bridges.
    "rockchip/rk3588-evb1-v10",
    "rockchip/rk3588-friendlyelec-cm3588-nas",
    // Two ITSes; every PCI host bridge is disabled.
    "rockchip/rk3588-toybrick-x0",
    "ti/k3-j784s4-evm",
];

/// Interval at which an ordinary run picks boards from a tree's sorted list.
const STEP: usize = 4;

/// Kinds of controllers that the command runs.
const RUN: &[&str] = &["its", "v2m", "mbi", "direct-lpi", "imsi-rx", "mediatek-gen3"];

/// Number of messages of each vector in the cases that test many boards.
const FEW_MESSAGES: &str = "50";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // The longest cases start first.
    cases.push(case("boards that are served, of Debian's newest kernel".into(), |judge| {
        served::compare(workspace::this()?, &judge.command, &judge.tools)
    }));
    for tree in findings::TREES {
        cases.push(case(format!("the rest of {}", tree.name()), move |judge| judge.sweep(tree)));
    }
    for tree in Tree::ALL {
        for board in chosen(tree) {
            cases.push(case(format!("{}/{board}", tree.name()), move |judge| {
                let said = judge.try_board(&file_of(tree, board)?, &[])?;
                eprintln!("board {}/{board}: {said}", tree.name());
                Ok(())
            }));
        }
    }
    cases.push(case("registers that no emulator has, in Linux's source".into(), |_| {
        registers::compare(workspace::this()?)
    }));
    for tree in findings::TREES {
        cases.push(case(format!("findings in {}", tree.name()), move |judge| {
            tree.fetched(workspace::this()?)?;
            findings::compare(workspace::this()?, &judge.command, tree)
        }));
    }
    cases.push(case("findings in published firmware".into(), |judge| {
        findings::compare_published(workspace::this()?, &judge.command)
    }));
    cases.push(case("names by which Linux recognizes controllers".into(), |judge| {
        recognized::compare(workspace::this()?, &judge.tools)
    }));
    cases.push(case("devicetree sources, by cpp and dtc".into(), BoardJudge::test_sources));
    if suite::is_long() {
        cases.push(case("findings in the kernel's sources".into(), |judge| {
            Tree::Debian.fetched(workspace::this()?)?;
            judge.sources()?.compare_findings()
        }));
        cases.push(case("overlays, by fdtoverlay".into(), |judge| {
            let output = judge.output.join("overlays");
            fs::create_dir_all(&output)?;
            judge.sources()?.compare_overlays(&output)
        }));
    }
    cases
}

/// Returns the boards of a tree that are separate cases.
fn chosen(tree: Tree) -> Vec<&'static str> {
    match tree {
        Tree::Debian => BOARDS.to_vec(),
        Tree::Backports => [BOARDS, NEWER_BOARDS].concat(),
        Tree::Qemu => VIRT.iter().map(|virt| virt.0).collect(),
    }
}

fn case(name: String, run: impl FnOnce(&BoardJudge) -> Result<()> + Send + 'static) -> Case {
    static JUDGE: Shared<BoardJudge> = Shared::new();
    Case::of(name, || run(JUDGE.get(BoardJudge::new)?))
}

/// The `doorbell` command, and the checks of its output.
struct BoardJudge {
    command: Doorbell,
    tools: Tools,
    /// Folder for files of the cases.
    output: PathBuf,
}

impl BoardJudge {
    fn new() -> Result<Self> {
        let workspace = workspace::this()?;
        let (command, tools) = (Doorbell::build(workspace)?, Tools::of(workspace));
        Ok(Self { command, tools, output: workspace.target.join("boards") })
    }

    /// Runs the command's tests of sources, with the features that the step `test` has built.
    fn test_sources(&self) -> Result<()> {
        if !self.tools.root().join("usr/bin/dtc").exists() {
            return Err(Absent::new("Debian's `dtc` could not be fetched").into());
        }
        let tests = ["test", "--workspace", "--all-features", "--test", "dts"];
        process::must(process::cargo(&workspace::this()?.root).args(tests))
    }

    /// Returns the sources of Debian's kernel.
    fn sources(&self) -> Result<Sources<'_>> {
        Sources::fetch(workspace::this()?, &self.command, &self.tools)
    }

    /// Runs the command, and compares its output with that of the devicetree compiler. Returns a
    /// short description of the result.
    fn try_board(&self, file: &Path, arguments: &[&str]) -> Result<String> {
        // The command need not be able to run the board that it describes.
        let said = self.command.inspect(file)?;
        fields::compare(&said, &Source::read(&self.tools, file)?)?;
        let referring = referring(&said)?;
        let mut run = self.command.command(&["run", "--json", "--dtb"]);
        run.arg(file).args(arguments).stderr(Stdio::null());
        let mut text = String::new();
        let status = process::watch(&mut run, hang::RUN, |line| {
            text.push_str(line);
            text.push('\n');
        })?;
        match (status.code(), referring.first()) {
            (Some(code @ (0 | 1)), Some(_)) => {
                let report: Value = serde_json::from_str(&text).context("not JSON")?;
                let short = explained_shortage(&report)?;
                let totals = &report["totals"];
                ensure!((code == 1) == short, "the command ended with {status}: {totals}");
                judge(&report, &said, &referring)
            }
            (Some(2), None) if !enabled(&said, "v2m")?.is_empty() => self.say_why(file),
            (Some(2), None) => Ok("no MSI controller in use".into()),
            (Some(2), Some(node)) => {
                bail!("the command refused the board although {node} refers to an MSI controller")
            }
            (Some(0), None) => {
                bail!("the command ran although no node refers to an MSI controller")
            }
            _ => bail!("the command ended with {status}"),
        }
    }

    /// Checks that the command refuses to run a board with a GICv2, and states this reason.
    fn say_why(&self, file: &Path) -> Result<String> {
        let output = process::output(self.command.command(&["run", "--dtb"]).arg(file))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(said.contains("is a GICv2"), "refused, but not for its GICv2: {said}");
        Ok("a GICv2, inspected and not run".into())
    }

    /// Tests the other boards of a tree with few messages: all of them in a long run, otherwise
    /// every [`STEP`]th board. An error names the failed boards.
    fn sweep(&self, tree: Tree) -> Result<()> {
        let mut boards = dtb::files(&tree.fetched(workspace::this()?)?)?;
        boards.retain(|(board, _)| !chosen(tree).contains(&board.as_str()));
        let step = if suite::is_long() { 1 } else { STEP };
        let boards: Vec<_> = boards.into_iter().step_by(step).collect();
        eprintln!("{} more boards of {}", boards.len(), tree.name());
        ensure!(!boards.is_empty(), "the tree has no other board");
        let mut failed = Vec::new();
        for (board, file) in &boards {
            if let Err(error) = self.try_board(file, &["--messages", FEW_MESSAGES]) {
                failed.push(format!("{board}: {error:#}"));
            }
        }
        ensure!(
            failed.is_empty(),
            "{} of {}:\n  {}",
            failed.len(),
            boards.len(),
            failed.join("\n  ")
        );
        Ok(())
    }
}

/// Returns the devicetree of a board.
fn file_of(tree: Tree, board: &str) -> Result<PathBuf> {
    let file = tree.fetched(workspace::this()?)?.join(format!("{board}.dtb"));
    if !file.exists() {
        return Err(Absent::new("this kernel does not support the board").into());
    }
    Ok(file)
}

/// Returns the enabled controllers of a kind. A run has no others.
fn enabled<'v>(said: &'v Value, kind: &str) -> Result<Vec<&'v Value>> {
    let is_meant = |one: &&Value| one["kind"] == kind && one["enabled"] != false;
    Ok(list(said, "controllers")?.iter().filter(is_meant).collect())
}

/// Returns the enabled devices with a route to a controller that the command runs: of a GICv3, and
/// not without vectors.
fn referring(said: &Value) -> Result<Vec<&str>> {
    let mut run = Vec::new();
    for kind in RUN.iter().filter(|_| said["gic"]["version"] == 3) {
        run.extend(enabled(said, kind)?.into_iter().map(|one| &one["id"]));
    }
    let without = list(said, "capacity")?.iter().filter(|row| row["interrupts"] == 0);
    let without: Vec<_> = without.map(|row| &row["controller"]).collect();
    run.retain(|id| !without.contains(id));
    let mut referring = Vec::new();
    for device in list(said, "devices")?.iter().filter(|device| device["enabled"] == true) {
        if list(device, "routes")?.iter().any(|route| run.contains(&&route["controller"])) {
            referring.push(text(&device["id"]));
        }
    }
    Ok(referring)
}

/// Judges a run by the board's description, which is that of the devicetree compiler.
fn judge(report: &Value, said: &Value, referring: &[&str]) -> Result<String> {
    let its = [report, said].map(|of| enabled(of, "its").map(|its| its.len()));
    let [run, described] = its;
    same("ITSes", &run?, &described?)?;
    let devices = list(report, "devices")?;
    for node in referring {
        ensure!(
            devices.iter().any(|device| is_served(device, node)),
            "{node} refers to an MSI controller, but got no vector"
        );
    }
    judge_totals(&report["totals"])
}

/// Returns `true` if a device has fewer vectors than it needs, which is permitted only for SPIs and
/// for controllers inside bridges: a board may have fewer than the functions that the machine puts
/// behind its bridges request.
/// Other controllers have enough vectors for all devices.
fn explained_shortage(report: &Value) -> Result<bool> {
    let kind = |controller: &Value| {
        let controllers = report["controllers"].as_array().into_iter().flatten();
        controllers.clone().find(|one| one["id"] == *controller).map(|one| one["kind"].clone())
    };
    let mut shortage = false;
    for device in list(report, "devices")? {
        let vectors = list(device, "vectors")?.len() as u64;
        let needed = device["useful_minimum"].as_u64().context("no minimum")?;
        if vectors < needed {
            let kind = kind(&device["controller"]);
            ensure!(
                kind.is_some_and(|kind| ["mbi", "v2m", "imsi-rx"].iter().any(|few| kind == *few)),
                "{} got {vectors} vectors of {needed}",
                device["id"]
            );
            shortage = true;
        }
    }
    Ok(shortage)
}

/// Returns `true` if this device has vectors, and is either the node itself or a function behind
/// it.
fn is_served(device: &Value, node: &str) -> bool {
    text(&device["id"]).starts_with(node)
        && device["vectors"].as_array().is_some_and(|vectors| !vectors.is_empty())
}
