//! Runs a guest interactively on this terminal.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};
use doorbell_facts::Ending;
use doorbell_harness::qemu::Version;

use crate::board::{Board, Controller, MEMORY, Machine};
use crate::files::{self, Files, Start};
use crate::output::Output;
use crate::{built, debian, microbench};

/// Name of the kernel that is downloaded.
const DEBIAN: &str = "debian";

/// Options of an interactive run.
#[derive(Debug, clap::Args)]
pub struct Wanted {
    /// The guest's kernel: an arm64 Image, an ELF file for `virt`, or `debian` to download Debian's
    /// kernel
    #[arg(long, required_unless_present = "cost")]
    kernel: Option<PathBuf>,
    /// The kernel is a flat program without an Image header, linked for 0x4008_0000
    #[arg(long)]
    raw: bool,
    /// The kernel is firmware for `virt`, such as U-Boot or EDK2, which starts from flash
    #[arg(long, conflicts_with_all = ["raw", "initrd", "trusted_guest"])]
    firmware: bool,
    /// The guest's initial file system
    #[arg(long)]
    initrd: Option<PathBuf>,
    /// The guest's command line
    #[arg(long, default_value = "console=ttyAMA0")]
    append: String,
    /// Number of vCPUs of the guest
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    cpus: u8,
    /// Number of CPUs of the machine, by default the number of vCPUs
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    machine_cpus: Option<u8>,
    /// Memory of the guest in MiB
    #[arg(long, default_value_t = MEMORY, value_parser = clap::value_parser!(u32).range(64..=1792))]
    memory: u32,
    #[command(flatten)]
    machine: Machine,
    /// MSI controller of the guest
    #[arg(long, value_enum, default_value = "its")]
    controller: Controller,
    /// An emulated PCI device with MSI or MSI-X for the guest. An SMMU confines its memory
    /// accesses, for which a virtio device requires iommu_platform=on,disable-legacy=on
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// The guest is trusted: nothing confines the memory accesses of its devices
    #[arg(long)]
    trusted_guest: bool,
    /// Injects devices' messages directly, which requires --gic-version 4 and an ITS
    #[arg(long)]
    direct: bool,
    /// Counts exits and interrupts by reason, and prints the counts at the end
    #[arg(long)]
    stats: bool,
    /// QEMU version to use
    #[arg(long, value_enum, default_value = "stable")]
    qemu: Version,
    /// Counts the instructions and the exits of a guest's operations, and prints those recorded on
    /// Linux's KVM
    #[arg(long, exclusive = true)]
    cost: bool,
}

/// Runs a guest on this terminal. Success means that the guest turned its machine off.
///
/// # Errors
/// Fails if a file cannot be read, or if an image or a package cannot be built or fetched.
pub fn run(wanted: &Wanted) -> Result<ExitCode> {
    let Some(kernel) = wanted.kernel.as_deref().filter(|_| !wanted.cost) else {
        return microbench::compare();
    };
    let absolute =
        |path: &Path| fs::canonicalize(path).with_context(|| format!("no file {}", path.display()));
    let initrd = wanted.initrd.as_deref().map(absolute).transpose()?;
    let own = Some(kernel).filter(|kernel| *kernel != Path::new(DEBIAN));
    if let Some(kernel) = own.filter(|_| !wanted.raw && !wanted.firmware) {
        files::check_kernel(kernel)?;
    }
    let own = own.map(absolute).transpose()?;
    let kernel = own.map_or_else(|| debian::kernel(wanted.qemu.suite()), Ok)?;
    let (start, kernel) = if wanted.firmware {
        (Start::Flash, kernel)
    } else {
        files::placed(kernel, built::folder()?.join("kernel"))?
    };
    let files = Files { kernel: &kernel, initrd: initrd.as_deref(), append: &wanted.append };
    let devices: Vec<_> = wanted.device.iter().map(String::as_str).collect();
    let board = Board {
        machine: wanted.machine,
        vcpus: wanted.cpus,
        cpus: wanted.machine_cpus.unwrap_or(wanted.cpus),
        controller: wanted.controller,
        devices: &devices,
        trusted: wanted.trusted_guest,
        direct: wanted.direct,
        start,
        stats: wanted.stats,
        ..Board::plain(wanted.qemu, wanted.memory)
    };
    let mut qemu = board.command(&[files])?;
    let mut child = qemu.stdin(Stdio::inherit()).stdout(Stdio::piped()).spawn()?;
    let ending = show(child.stdout.take().context("QEMU has no output")?)?;
    child.wait()?;
    Ok(if ending == Some(Ending::Off) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Copies console output to the terminal as it arrives. Returns how the guest's machine ended.
fn show(mut console: impl Read) -> Result<Option<Ending>> {
    let (mut shown, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        let count = console.read(&mut bytes)?;
        if count == 0 {
            let mut output = Output::default();
            String::from_utf8_lossy(&shown).lines().for_each(|line| output.line(line));
            return Ok(output.ending(0));
        }
        io::stdout().write_all(&bytes[..count])?;
        io::stdout().flush()?;
        shown.extend(&bytes[..count]);
    }
}
