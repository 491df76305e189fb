//! QEMU's model of the i.MX 8M Plus's evaluation kit, with the devicetree of Debian's kernel.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use doorbell_harness::dtb::Tree;
use doorbell_harness::image::Image;
use doorbell_harness::qemu::{PROGRAM, Version};
use doorbell_harness::workspace::{self, Workspace};

use crate::fetched;

/// The first version that has the board.
pub(crate) const VERSION: Version = Version::Backports;

/// Returns the board with an image, without functions behind the host bridge.
pub(super) fn with(image: &Image) -> Result<Command> {
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
fn devicetree(workspace: &Workspace) -> Result<PathBuf> {
    let board = Tree::Backports.fetched(workspace)?.join("freescale/imx8mp-evk.dtb");
    board.exists().then_some(board).context("Debian's kernel has no i.MX 8M Plus")
}
