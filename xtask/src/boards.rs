//! The command on real machines' devicetrees: what the devices say must add up, and who has no ITS in use is
//! answered so.

mod devicetree;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::devicetree::{Facts, Tree as Source};
use crate::dtb::{self, Tools, Tree};
use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{machine, process};

/// Boards of Debian's kernels, each for a shape of its own.
const BOARDS: &[&str] = &[
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

/// Every board of every tree, each counted as one case.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let command = machine::build(workspace)?;
    let tools = Tools::of(workspace);
    for (tree, fetched) in dtb::fetch(workspace) {
        if let Err(absent) = fetched {
            tally.skip(format!("{}: {absent:#}", tree.name()));
            continue;
        }
        let folder = tree.folder(workspace);
        for board in boards_of(tree) {
            let name = format!("{}/{board}", tree.name());
            let file = folder.join(board).with_added_extension("dtb");
            if !file.exists() {
                tally.skip(format!("{name}: this kernel does not know the board"));
                continue;
            }
            let outcome = try_board(&command, &tools, &file);
            println!("board {name} ... {}", outcome.as_deref().unwrap_or("FAILED"));
            tally.case(&name, outcome.map(drop));
        }
    }
    Ok(())
}

fn boards_of(tree: Tree) -> Vec<&'static str> {
    if tree == Tree::Qemu { dtb::virt_names() } else { BOARDS.to_vec() }
}

/// Runs the command and compares what it says with what the devicetree compiler reads; a word on what happened.
fn try_board(command: &Path, tools: &Tools, file: &Path) -> Result<String> {
    let facts = Facts::of(&Source::read(tools, file)?);
    let mut run = process::command(&command.to_string_lossy(), Path::new("/"));
    let mut text = String::new();
    let status = process::watch(run.args(["run", "--json", "--dtb"]).arg(file), LIMIT, |line| {
        text.push_str(line);
        text.push('\n');
    })?;
    match (status.code(), facts.referring.is_empty()) {
        (Some(0), false) => judge(&serde_json::from_str(&text).context("not JSON")?, &facts),
        (Some(2), true) => Ok("no ITS in use".into()),
        (Some(2), false) => bail!("refused, although {} refers to an ITS", facts.referring[0]),
        (Some(0), true) => bail!("ran, although nothing refers to an ITS"),
        (code, _) => bail!("exit {code:?}: {}", text.lines().last().unwrap_or_default()),
    }
}

fn judge(report: &Value, facts: &Facts) -> Result<String> {
    let controllers = report["controllers"].as_array().context("no controllers")?;
    let its = controllers.iter().filter(|controller| controller["kind"] == "its").count();
    ensure!(its == facts.its, "{its} ITSes, but the devicetree has {}", facts.its);
    let devices = report["devices"].as_array().context("no devices")?;
    for node in &facts.referring {
        let served =
            devices.iter().any(|device| device["id"].as_str().is_some_and(|id| id.starts_with(node)));
        ensure!(served, "{node} refers to an ITS, but no device of it was served");
    }
    machine::judge_totals(&report["totals"])
}
