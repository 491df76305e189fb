//! Runs a kernel and the test bench on QEMU's model of the i.MX 8M Plus's evaluation kit, whose host
//! bridge has an MSI controller of its own. Both read the devicetree of Debian's kernel for this
//! board.
//!
//! QEMU's controller is no judge of masks, because an unmask does not raise its line, nor of more
//! than one line; `doorbell-hardware` has a strict model.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Fact, MinimalFact};
use doorbell_harness::dtb::{self, Tree};
use doorbell_harness::image::Image;
use doorbell_harness::qemu::{PROGRAM, Version};
use doorbell_harness::suite::{OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{cache, process};

use super::cost;
use super::virt::{Boot, Device, ITS, Machine, device};
use crate::fetched;

/// Time limit of a run, which takes seconds on an idle machine.
pub const LIMIT: Duration = Duration::from_mins(5);
/// The first version that has the board.
pub const VERSION: Version = Version::Backports;
const DISK: &[&str] = &[
    "-blockdev",
    "null-co,node-name=disk,size=1048576,read-zeroes=on",
    "-device",
    "nvme,serial=1,drive=disk,bus=dw-pcie,addr=0.1",
];
const EDU: &[&str] = &["-device", "edu,bus=dw-pcie,addr=0.0,multifunction=on"];
/// The device must send a message for each request, even if its driver has seen the data before.
const RNG: &[&str] =
    &["-device", "virtio-rng-pci,disable-legacy=on,event_idx=off,bus=dw-pcie,addr=0.2"];
/// Another device without a driver, because only a device with a function 0 has further functions.
const FIRST: &[&str] = &["-device", "pci-testdev,bus=dw-pcie,addr=0.0,multifunction=on"];
/// Messages of each function.
const MESSAGES: u32 = 33_334;
/// Most instructions from IAR to EOI that a message at the bridge's line may take more than one
/// that is an LPI. Of these, 69 are the second dispatch, and most others read and acknowledge the
/// status word.
const CHAINED: usize = 120;

/// Vendor and device ID of the host bridge.
pub const HOST_BRIDGE: &str = "16c3:abcd";
/// All functions of the only slot. Both `edu` assert the same pin.
pub(super) const DEVICES: &[Device] = &[
    device("edu,bus=dw-pcie,addr=0.0,multifunction=on", "1234:11e8"),
    device("nvme,drive=d0,serial=1,bus=dw-pcie,addr=0.1", "1b36:0010"),
    device("virtio-blk-pci,drive=d1,disable-legacy=on,bus=dw-pcie,addr=0.2", "1af4:1042"),
    device("virtio-net-pci,disable-legacy=on,romfile=,bus=dw-pcie,addr=0.3", "1af4:1041"),
    device("virtio-rng-pci,disable-legacy=on,bus=dw-pcie,addr=0.4", "1af4:1044"),
    device("edu,bus=dw-pcie,addr=0.5", "1234:11e8"),
    device("e1000e,romfile=,bus=dw-pcie,addr=0.6", "8086:10d3"),
];

/// The board with the test bench, whose vectors share a single line.
pub const BENCH: Machine = Machine {
    name: "imx8mp",
    options: "imx8mp-evk",
    cpu: "cortex-a53",
    cpus: 4,
    boot: Boot::Board,
    expected: "el=el2 gic=3 its=off imsi-rx=on security=one",
    load: 100_000,
    lacks: &[
        ITS,
        "no CPU can send a message to a host bridge",
        "the vectors of a line share its priority",
    ],
};

/// Checks that each message of three functions behind the bridge runs its handler once.
///
/// # Errors
/// Fails if the kernel prints anything other than its fact.
pub fn judge() -> Result<()> {
    let mut qemu = machine()?;
    qemu.args(EDU).args(DISK).args(RNG).args(["-smp", "4"]);
    let mut lines = Vec::new();
    let status = process::watch(&mut qemu, LIMIT, |line| lines.push(line.trim_end().to_owned()))?;
    ensure!(status.success(), "QEMU ended with {status}");
    let expected = Fact::from(MinimalFact::Chained { taken: [MESSAGES; 3] });
    let [line] = lines.as_slice() else { anyhow::bail!("the kernel prints {lines:?}") };
    ensure!(Fact::parse(line) == Some(expected), "the kernel prints {line}");
    Ok(())
}

/// Checks what a message at the bridge's line costs, compared with the test bench's LPI.
///
/// # Errors
/// Fails if it takes too many instructions more, or if no interrupt was observed.
pub fn judge_cost() -> Result<()> {
    let mut qemu = machine()?;
    qemu.args(FIRST).args(DISK).args(["-smp", "1", "-icount", "shift=0,sleep=off"]);
    let folder = workspace::this()?.target.join("qemu/imx8mp");
    std::fs::create_dir_all(&folder)?;
    let chained = cost::measure(qemu, &folder, |_| ())?;
    let direct = cost::of_testbench(VERSION)?;
    eprintln!("a message at a bridge's line takes {chained}; an LPI: {direct}");
    let more = chained.core().saturating_sub(direct.core());
    ensure!(more <= CHAINED, "a message at a bridge's line takes {more} instructions more");
    Ok(())
}

/// Returns the board with the kernel, without functions behind the host bridge.
fn machine() -> Result<Command> {
    static IMAGE: Shared<Image> = Shared::new();
    board(IMAGE.get(|| Image::build(workspace::this()?, "minimal", "chained"))?)
}

/// Returns the board with an image, without functions behind the host bridge.
pub(super) fn board(image: &Image) -> Result<Command> {
    let mut qemu = fetched::qemu(VERSION)?.command(PROGRAM);
    // The console is the second UART.
    qemu.args(["-nodefaults", "-display", "none", "-serial", "null", "-serial", "stdio"]);
    qemu.args(["-M", "imx8mp-evk", "-m", "1G", "-kernel"]).arg(&image.flat);
    qemu.arg("-dtb").arg(devicetree(workspace::this()?)?);
    Ok(qemu)
}

/// Returns the board's devicetree, of the kernel in Debian's backports.
///
/// # Errors
/// Fails if the package cannot be fetched, or does not have the board.
pub fn devicetree(workspace: &Workspace) -> Result<PathBuf> {
    for (tree, fetched) in dtb::fetch(workspace) {
        if tree == Tree::Backports {
            fetched.or_absent("devicetrees of Debian's kernel")?;
        }
    }
    let folder = Tree::Backports.folder(workspace);
    ensure!(cache::is_filled(&folder), "the devicetrees were not fetched");
    let board = folder.join("freescale/imx8mp-evk.dtb");
    board.exists().then_some(board).context("Debian's kernel has no i.MX 8M Plus")
}
