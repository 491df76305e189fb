//! The cost of a message on QEMU's model of the i.MX 8M Plus's evaluation kit, whose host bridge
//! has an MSI controller of its own.
//!
//! QEMU's controller is no judge of masks, because an unmask does not raise its line, nor of more
//! than one line; `doorbell-hardware` has a strict model.

use anyhow::{Result, ensure};
use doorbell_harness::image::Image;
use doorbell_harness::qemu::cost::measure;
use doorbell_harness::workspace;

pub(crate) use super::board::VERSION;
use super::{board, cost};

const DISK: &[&str] = &[
    "-blockdev",
    "null-co,node-name=disk,size=1048576,read-zeroes=on",
    "-device",
    "nvme,serial=1,drive=disk,bus=dw-pcie,addr=0.1",
];
/// Another device without a driver, because only a device with a function 0 has further functions.
const FIRST: &[&str] = &["-device", "pci-testdev,bus=dw-pcie,addr=0.0,multifunction=on"];
/// Most instructions from IAR to EOI that a message at the bridge's line may take more than one
/// that is an LPI. Of these, 69 are the second dispatch, and most others read and acknowledge the
/// status word.
const CHAINED: usize = 120;

/// Checks what a message at the bridge's line costs, compared with the test bench's LPI.
///
/// # Errors
/// Fails if it takes too many instructions more, or if no interrupt was observed.
pub(crate) fn judge_cost() -> Result<()> {
    let kernel = Image::build(workspace::this()?, "minimal", "chained")?;
    let mut qemu = board::with(&kernel)?;
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
