//! QEMU from Debian's packages, and its monitor.

pub mod cost;
mod human_monitor;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

pub use self::human_monitor::HumanMonitor;
use crate::apt::{self, Suite};
use crate::dtb::Tools;
use crate::suite::is_long;
use crate::workspace::Workspace;

/// The program for 64-bit Arm machines.
pub const PROGRAM: &str = "qemu-system-aarch64";
/// Options of a machine without other devices, whose console is the terminal, and whose reset ends
/// QEMU.
pub const CONSOLE: &[&str] = &["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"];
/// The package of the program.
const PACKAGE: &str = "qemu-system-arm";
/// Number of sectors of the disk. Each sector starts with its own number.
const SECTORS: u64 = 2048;
const SECTOR: usize = 512;

/// One of Debian's QEMUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Version {
    /// The release's QEMU.
    Stable,
    /// The QEMU in the release's backports.
    Backports,
}

impl Version {
    /// Both versions.
    pub const ALL: [Self; 2] = [Self::Stable, Self::Backports];

    /// Returns the suite that has this version.
    pub fn suite(self) -> Suite {
        match self {
            Self::Stable => Suite::Stable,
            Self::Backports => Suite::Backports,
        }
    }

    /// Distributes cases over the versions: the first case runs on the first version, the second
    /// case on the second version, and so on. Half as many runs thus cover every case and both
    /// versions. If long cases are requested, each case runs on both versions.
    ///
    /// `cases` must return the same cases, in the same order, for each version.
    pub fn in_turn<C, I: IntoIterator<Item = C>>(cases: impl Fn(Self) -> I) -> Vec<C> {
        let chosen = |(turn, version): (usize, Self)| {
            let is_chosen = move |index| is_long() || index % Self::ALL.len() == turn;
            let cases = cases(version).into_iter().enumerate();
            cases.filter(move |(index, _)| is_chosen(*index)).map(|(_, case)| case)
        };
        Self::ALL.into_iter().enumerate().flat_map(chosen).collect()
    }
}

/// Unpacks a QEMU into the cache.
pub fn fetch(workspace: &Workspace, version: Version) -> Result<Tools> {
    let name = match version {
        Version::Stable => "qemu-stable",
        Version::Backports => "qemu-backports",
    };
    apt::cached_with_needs(workspace, version.suite(), name, &[PACKAGE]).map(Tools::at)
}

/// Unpacks the QEMU of the unstable suite into the cache. It has boards and mends that the others
/// lack.
pub fn fetch_unstable(workspace: &Workspace) -> Result<Tools> {
    apt::cached_with_needs(workspace, Suite::Unstable, "qemu-unstable", &[PACKAGE]).map(Tools::at)
}

/// Returns arguments that define the drives `d0` and `d1`, both backed by `disk`.
pub fn drives(disk: &Path) -> [String; 4] {
    let drive = |id| format!("if=none,id={id},format=raw,readonly=on,file={}", disk.display());
    ["-drive".into(), drive("d0"), "-drive".into(), drive("d1")]
}

/// Writes the disk that the image's drivers read.
pub fn write_disk(file: &Path) -> Result<()> {
    let mut content = Vec::new();
    for number in 0..SECTORS {
        content.extend(number.to_le_bytes());
        content.resize(content.len() + SECTOR - 8, 0);
    }
    fs::write(file, content).with_context(|| format!("cannot write {}", file.display()))
}
