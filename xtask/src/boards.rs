//! The command on real machines' devicetrees: its totals must add up, and a machine without an MSI
//! controller in use must be reported as such.

mod devicetree;
mod fields;
pub(crate) mod findings;
mod large;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::devicetree::{Facts, Tree as Source};
use crate::dtb::{self, Tools, Tree};
use crate::process;
use crate::step::Tally;
use crate::workspace::Workspace;
use doorbell_harness::command;

/// Boards of Debian's kernels, each for a shape of its own.
const BOARDS: &[&str] = &[
    // GICv2m frames beside a GICv2; the SPIs by their registers, and by firmware.
    "amd/amd-overdrive-rev-b1",
    "apm/apm-merlin",
    "arm/juno-r2",
    "marvell/armada-8040-mcbin",
    // An ITS beside a simulated PCI host bridge and an SMMU that signals through it.
    "arm/fvp-base-revc",
    // Nothing refers to the ITS.
    "arm/foundation-v8-gicv3-psci",
    // GICv2.
    "broadcom/bcm2711-rpi-4-b",
    // 48 CPUs, nothing refers to the ITS.
    "cavium/thunder-88xx",
    // `msi-parent` without a cell.
    "cavium/thunder2-99xx",
    // `msi-map` of 14 requesters beside `msi-parent`.
    "freescale/fsl-ls1028a-kontron-sl28",
    // A bus that is not PCI.
    "freescale/fsl-ls1088a-rdb",
    // 16 CPUs, six PCI host bridges switched off.
    "freescale/fsl-lx2160a-rdb",
    // Non-coherent ITS.
    "freescale/imx95-19x19-evk",
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
    // The ITS is switched off.
    "qcom/sdm845-db845c",
    // Two entries in `msi-map` and a mask.
    "qcom/sm8450-hdk",
    // Two entries in `msi-map`.
    "qcom/sm8550-mtp",
    // Several PCI host bridges on one ITS.
    "qcom/sa8295p-adp",
    "rockchip/rk3399-rockpro64",
    // Message-based SPIs, no ITS.
    "rockchip/rk3566-quartz64-a",
    "rockchip/rk3568-rock-3a",
    // Two ITSes, two to five PCI host bridges.
    "rockchip/rk3588-evb1-v10",
    "rockchip/rk3588-friendlyelec-cm3588-nas",
    // Two ITSes, every PCI host bridge switched off.
    "rockchip/rk3588-toybrick-x0",
    "ti/k3-am6548-iot2050-advanced-pg2",
    "ti/k3-am642-evm",
    "ti/k3-j721e-sk",
    "ti/k3-j784s4-evm",
];

/// A machine is built, run and judged within seconds; on a busy host, within this.
const LIMIT: Duration = Duration::from_mins(1);

/// Messages of each vector where a board is only one of many.
const FEW_MESSAGES: &str = "50";

/// The chosen boards, each counted as one case, and every other devicetree of each tree together as
/// one.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let bench = Bench { command: command::build(workspace)?, tools: Tools::of(workspace) };
    let mut unseen = BOARDS.to_vec();
    for (tree, fetched) in dtb::fetch(workspace) {
        if let Err(absent) = fetched {
            tally.skip(format!("{}: {absent:#}", tree.name()));
            continue;
        }
        let all = dtb::files(&tree.folder(workspace))?;
        let (chosen, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(board, _)| is_chosen(tree, board));
        for (board, file) in chosen {
            let outcome = bench.try_board(&file, &[]);
            unseen.retain(|name| *name != board);
            println!(
                "board {}/{board} ... {}",
                tree.name(),
                outcome.as_deref().unwrap_or("FAILED")
            );
            tally.case(&format!("{}/{board}", tree.name()), outcome.map(drop));
        }
        if !others.is_empty() {
            tally.case(&format!("the rest of {}", tree.name()), bench.sweep(&others));
        }
    }
    findings::check(workspace, &bench.command, tally);
    findings::list_newest(workspace, &bench.command, tally);
    bench.inspect_large(workspace, tally);
    for board in unseen {
        tally.skip(format!("{board}: no kernel here knows the board"));
    }
    Ok(())
}

fn is_chosen(tree: Tree, board: &str) -> bool {
    tree == Tree::Qemu || BOARDS.contains(&board)
}

/// The command, and its checks.
struct Bench {
    command: PathBuf,
    tools: Tools,
}

impl Bench {
    /// Inspects descriptions of a megabyte, each counted as a case.
    fn inspect_large(&self, workspace: &Workspace, tally: &mut Tally) {
        let folder = workspace.target.join("boards");
        let devicetree = || large::devicetree(&self.command, &self.tools, &folder);
        let tables = || large::tables(&self.command, &workspace.root, &folder);
        let cases: [(&str, &dyn Fn() -> Result<Duration>); 2] =
            [("a devicetree of 1 MB", &devicetree), ("ACPI tables of 1 MB", &tables)];
        for (name, inspect) in cases {
            let taken = inspect();
            if let Ok(taken) = &taken {
                println!("{name}: inspected in {} ms", taken.as_millis());
            }
            tally.case(name, taken.map(drop));
        }
    }

    /// Runs the command and compares what it says with what the devicetree compiler reads; a word
    /// on what happened.
    fn try_board(&self, file: &Path, arguments: &[&str]) -> Result<String> {
        let source = Source::read(&self.tools, file)?;
        let facts = Facts::of(&source);
        self.inspect(file, &source)?;
        let mut run = process::command(&self.command.to_string_lossy(), Path::new("/"));
        run.args(["run", "--json", "--dtb"]).arg(file).args(arguments).stderr(Stdio::null());
        let mut text = String::new();
        let status = process::watch(&mut run, LIMIT, |line| {
            text.push_str(line);
            text.push('\n');
        })?;
        match (status.code(), facts.referring.first()) {
            (Some(code @ (0 | 1)), Some(_)) => {
                let report = serde_json::from_str(&text).context("not JSON")?;
                let short = explained_shortage(&report)?;
                ensure!((code == 1) == short, "ended with {status}");
                judge(&report, &facts)
            }
            (Some(2), None) if facts.beside_gicv2 => self.say_why(file),
            (Some(2), None) => Ok("no MSI controller in use".into()),
            (Some(2), Some(node)) => bail!("refused, although {node} refers to an MSI controller"),
            (Some(0), None) => bail!("ran, although nothing refers to an MSI controller"),
            _ => bail!("ended with {status}"),
        }
    }

    /// Compares what the command shows of a board that it need not be able to run.
    fn inspect(&self, file: &Path, source: &Source) -> Result<()> {
        let mut inspect = process::command(&self.command.to_string_lossy(), Path::new("/"));
        let output = process::output(inspect.args(["inspect", "--json"]).arg(file))?;
        fields::compare(&serde_json::from_slice(&output.stdout)?, source)
    }

    /// A board with a GICv2 is refused by the sentence that says so.
    fn say_why(&self, file: &Path) -> Result<String> {
        let mut run = process::command(&self.command.to_string_lossy(), Path::new("/"));
        let output = process::output(run.args(["run", "--dtb"]).arg(file))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(said.contains("is a GICv2"), "refused, but not for its GICv2: {said}");
        Ok("a GICv2, inspected and not run".into())
    }

    /// Tries them all, briefly; an error names those that failed.
    fn sweep(&self, boards: &[(String, PathBuf)]) -> Result<()> {
        println!("{} more boards", boards.len());
        let mut failed = Vec::new();
        for (board, file) in boards {
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

fn judge(report: &Value, facts: &Facts) -> Result<String> {
    let controllers = report["controllers"].as_array().context("no controllers")?;
    let its = controllers.iter().filter(|controller| controller["kind"] == "its").count();
    ensure!(its == facts.its, "{its} ITSes, but the devicetree has {}", facts.its);
    let devices = report["devices"].as_array().context("no devices")?;
    for node in &facts.referring {
        ensure!(
            devices.iter().any(|device| is_served(device, node)),
            "{node} refers to an MSI controller, but got no vector"
        );
    }
    command::judge_totals(&report["totals"])
}

/// Got some device fewer vectors than it needs? SPIs can be fewer than those that the functions
/// want which the machine puts behind a board's bridges; other controllers have enough for all.
fn explained_shortage(report: &Value) -> Result<bool> {
    let kind = |controller: &Value| {
        let controllers = report["controllers"].as_array().into_iter().flatten();
        controllers.clone().find(|one| one["id"] == *controller).map(|one| one["kind"].clone())
    };
    let mut shortage = false;
    for device in report["devices"].as_array().context("no devices")? {
        let vectors = device["vectors"].as_array().context("no vectors")?.len() as u64;
        let needed = device["useful_minimum"].as_u64().context("no minimum")?;
        if vectors < needed {
            let kind = kind(&device["controller"]);
            ensure!(
                kind.is_some_and(|kind| kind == "mbi" || kind == "v2m"),
                "{} got {vectors} vectors of {needed}",
                device["id"]
            );
            shortage = true;
        }
    }
    Ok(shortage)
}

/// Returns true if this is a device of the node, the node itself or a function behind it, that got
/// vectors.
fn is_served(device: &Value, node: &str) -> bool {
    let belongs = device["id"].as_str().is_some_and(|id| id.starts_with(node));
    belongs && device["vectors"].as_array().is_some_and(|vectors| !vectors.is_empty())
}
