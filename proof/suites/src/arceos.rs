//! Runs ArceOS, another project's kernel, on QEMU, with its own interrupt drivers and with
//! `gic-driver`. A program on it reads and writes an NVMe disk. The verdict is based on QEMU's
//! trace of the GIC and the disk's contents.

mod boot;
mod cost;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Error, Result, ensure};
use doorbell_harness::arceos::{self, Drivers};
use doorbell_harness::dtb::Tools;
use doorbell_harness::suite::{self, Case, OrAbsent};
use doorbell_harness::temporary::Folder;
use doorbell_harness::workspace;
use doorbell_harness::{hang, process, qemu};

use self::boot::{Boot, EVENTS, Output, Trace};
use self::cost::Cost;

const ITS: &str = "virt,gic-version=3,its=on";
const V2M: &str = "virt,gic-version=2";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![case("as it is", ITS, 4, Drivers::Stock, Boot::judge_stock)];
    for (name, cpus) in [("1 CPU", 1), ("2 CPUs", 2), ("4 CPUs", 4), ("8 CPUs", 8)] {
        let name = format!("on our ITS driver, {name}");
        cases.push(case(&name, ITS, cpus, Drivers::Ours, Boot::judge_its));
    }
    cases.push(case("as it is, GICv2", V2M, 2, Drivers::Stock, Boot::judge_stock_v2));
    for (name, cpus) in [("1 CPU", 1), ("2 CPUs", 2), ("4 CPUs", 4)] {
        let name = format!("on our GICv2m driver, {name}");
        cases.push(case(&name, V2M, cpus, Drivers::Ours, Boot::judge_v2m));
    }
    // The suite's ordinary build is not optimized, and says nothing about the cost.
    if suite::is_long() {
        let name = "cost of an interrupt, as it is and on our ITS driver";
        cases.push(Case::of(name, judge_cost));
    }
    cases
}

fn judge_cost() -> Result<()> {
    let [stock, ours] = [Drivers::Stock, Drivers::Ours].map(|drivers| {
        let workspace = workspace::this()?;
        let image = arceos::image(workspace, drivers)?;
        let tools = qemu::fetch(workspace, qemu::Version::Stable).or_absent("QEMU")?;
        let folder = Folder::new()?;
        let disk = folder.path().join("disk");
        fs::write(&disk, arceos::disk(&arceos::input())).context("cannot write the disk")?;
        let mut qemu = machine(&tools, ITS, 1, &image.flat, &disk);
        // Virtual time must not jump while ArceOS waits for its disk, or its requests time out.
        qemu.args(["-append", cost::WORD, "-icount", "shift=0"]);
        let cost = Cost::of(image, qemu, folder.path())?;
        eprintln!("{drivers:?}: {cost}");
        Ok::<_, Error>(cost)
    });
    ours?.judge(&stock?)
}

fn case(
    name: &str,
    machine: &'static str,
    cpus: u64,
    drivers: Drivers,
    judge: fn(&Boot) -> Result<()>,
) -> Case {
    Case::of(name, move || {
        let workspace = workspace::this()?;
        let image = &arceos::image(workspace, drivers)?.flat;
        let tools = qemu::fetch(workspace, qemu::Version::Stable).or_absent("QEMU")?;
        let boot = boot(&tools, machine, cpus, image)?;
        eprintln!("{boot}");
        judge(&boot)
    })
}

/// Boots the image until the program ends.
fn boot(tools: &Tools, machine: &str, cpus: u64, image: &Path) -> Result<Boot> {
    let folder = Folder::new()?;
    let (disk, trace) = (folder.path().join("disk"), folder.path().join("trace"));
    let input = arceos::input();
    fs::write(&disk, arceos::disk(&input)).context("cannot write the disk")?;
    let mut qemu = self::machine(tools, machine, cpus, image, &disk);
    qemu.arg("-D").arg(&trace);
    qemu.args(EVENTS.iter().flat_map(|event| ["-trace", event]));
    let mut output = Output::default();
    let status = process::watch(&mut qemu, hang::RUN, |line| output.line(line))
        .with_context(|| format!("the program printed {output:?}"))?;
    ensure!(status.success(), "QEMU ended with {status}");
    let trace = Trace::read(&fs::read_to_string(&trace).context("QEMU wrote no trace")?);
    Ok(Boot { cpus, input, disk: fs::read(&disk)?, output, trace })
}

/// Returns a QEMU with the image and the disk.
fn machine(tools: &Tools, machine: &str, cpus: u64, image: &Path, disk: &Path) -> Command {
    let mut qemu = tools.command(qemu::PROGRAM);
    qemu.arg("-L").arg(tools.root().join("usr/share/qemu"));
    qemu.args(["-M", machine, "-cpu", "cortex-a72", "-m", "1G", "-smp"]).arg(cpus.to_string());
    qemu.args(qemu::CONSOLE).arg("-kernel").arg(image);
    let drive = format!("if=none,id=d0,format=raw,file={}", disk.display());
    // ArceOS requests all vectors of the disk, and a GICv2m frame has 64 SPIs.
    let vectors = if machine == V2M { 8 } else { 65 };
    let device = format!("nvme,serial=1,drive=d0,msix_qsize={vectors}");
    qemu.args(["-drive", &drive, "-device", &device]);
    qemu
}
