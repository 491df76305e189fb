//! Boots Debian's installer as an unmodified guest, up to its first question.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_harness::qemu::{HumanMonitor, Version};
use doorbell_harness::suite::{Case, OrAbsent};
use doorbell_harness::{process, workspace};

use crate::board::Board;
use crate::files::Files;
use crate::{built, debian};

const PACKAGE: &str = "debian-installer-12-netboot-arm64";
/// Folder of the package's kernel and initial file system, for a text console.
const FOLDER: &str = "usr/lib/debian-installer/images/12/arm64/text/debian-installer/arm64";
const COMMAND_LINE: &str = "console=ttyAMA0 quiet DEBIAN_FRONTEND=text";
/// The beginning of the first question.
const QUESTION: &str = "Choose the language to be used for the installation process.";
const CPUS: u8 = 2;
/// Memory in MiB. The unpacked initial file system takes 120 MiB.
const MEMORY: u32 = 1024;
/// A run takes 20 seconds on an idle machine.
const LIMIT: Duration = Duration::from_mins(3);

/// Lists the only case, which boots the installer of Debian 12.
pub(crate) fn cases() -> Vec<Case> {
    vec![built::case("Debian's installer asks its first question", LIMIT, || {
        let files = ["linux", "initrd.gz"].map(|file| format!("{FOLDER}/{file}"));
        let folder = debian::fetch(workspace::this()?, "bookworm", PACKAGE, &files)
            .or_absent("Debian's installer")?;
        let board = Board { vcpus: CPUS, cpus: CPUS, ..Board::plain(Version::Stable, MEMORY)? };
        let [kernel, initrd] = files.map(|file| folder.join(file));
        asks(&board, Files { kernel: &kernel, initrd: Some(&initrd), append: COMMAND_LINE })
    })]
}

/// Runs the installer until it asks its first question.
fn asks(board: &Board<'_>, files: Files<'_>) -> Result<()> {
    let mut qemu = board.command(&[files])?;
    let monitor = HumanMonitor::offered_by(&mut qemu);
    let (mut asked, mut ended, mut last) = (false, Ok(()), String::new());
    process::watch(&mut qemu, LIMIT, |line| {
        line.trim_end().clone_into(&mut last);
        if !asked && line.starts_with(QUESTION) {
            asked = true;
            ended = monitor.quit();
        }
    })
    .with_context(|| format!("the last line is `{last}`"))?;
    ensure!(asked, "the last line is `{last}`");
    ended
}
