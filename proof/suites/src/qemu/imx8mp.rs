//! Runs a kernel on QEMU's model of the i.MX 8M Plus's evaluation kit, whose host bridge has an MSI
//! controller of its own.
//!
//! QEMU's controller is no judge of masks, because an unmask does not raise its line, nor of more
//! than one line; `doorbell-hardware` has a strict model.

use std::process::Command;

use anyhow::{Result, ensure};
use doorbell_facts::{Fact, MinimalFact};
use doorbell_harness::image::Image;
use doorbell_harness::qemu::cost::measure;
use doorbell_harness::suite::Shared;
use doorbell_harness::{hang, process, workspace};

pub(crate) use super::board::{VERSION, devicetree};
use super::{board, cost};

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

/// Checks that each message of three functions behind the bridge runs its handler once.
///
/// # Errors
/// Fails if the kernel prints anything other than its fact.
pub(crate) fn judge() -> Result<()> {
    let mut qemu = machine()?;
    qemu.args(EDU).args(DISK).args(RNG).args(["-smp", "4"]);
    let mut lines = Vec::new();
    let status =
        process::watch(&mut qemu, hang::RUN, |line| lines.push(line.trim_end().to_owned()))?;
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
pub(crate) fn judge_cost() -> Result<()> {
    let mut qemu = machine()?;
    qemu.args(FIRST).args(DISK).args(["-smp", "1", "-icount", "shift=0,sleep=off"]);
    let folder = workspace::this()?.target.join("qemu/imx8mp");
    std::fs::create_dir_all(&folder)?;
    let chained = measure(qemu, &folder, |_| ())?;
    let direct = cost::of_testbench(VERSION)?;
    eprintln!("a message at a bridge's line takes {chained}; an LPI: {direct}");
    let more = chained.core().saturating_sub(direct.core());
    ensure!(more <= CHAINED, "a message at a bridge's line takes {more} instructions more");
    Ok(())
}

/// Returns the board with the kernel, without functions behind the host bridge.
fn machine() -> Result<Command> {
    static IMAGE: Shared<Image> = Shared::new();
    board::with(IMAGE.get(|| Image::build(workspace::this()?, "minimal", "chained"))?)
}
