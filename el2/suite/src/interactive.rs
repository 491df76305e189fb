//! Runs a guest interactively on this terminal.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};
use doorbell_facts::{Ending, Fact, HypervisorFact};
use doorbell_harness::qemu::Version;

use crate::board::{Board, MEMORY, Record};
use crate::controller::Controller;
use crate::files::{self, Files, Start};
use crate::machine::Machine;
use crate::trace::Trace;
use crate::{built, debian, kvm};

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
    /// Number of guests with these files, each with these numbers of vCPUs and MiB; the devices are
    /// distributed among them in turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    guests: u8,
    /// Saves and rebuilds the guests' GICs at this interval
    #[arg(long, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    move_every: Option<u32>,
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
    /// Writes what happens to interrupts to a file, in Chrome's trace format
    #[arg(long, value_name = "FILE.json")]
    trace: Option<PathBuf>,
    /// Ends the machine after this time, with its trace and its counts, even if a guest hangs
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Prints exits as they occur, with the counter's value
    #[arg(long)]
    exits: bool,
    /// Counts exits and interrupts by reason, and prints the counts at the end
    #[arg(long)]
    stats: bool,
    /// QEMU version to use
    #[arg(long, value_enum, default_value = "stable")]
    qemu: Version,
    /// Counts the instructions and the exits of a guest's operations, on this hypervisor and on
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
        return kvm::compare();
    };
    let absolute =
        |path: &Path| fs::canonicalize(path).with_context(|| format!("no file {}", path.display()));
    let initrd = wanted.initrd.as_deref().map(absolute).transpose()?;
    let own = Some(kernel).filter(|kernel| *kernel != Path::new(DEBIAN));
    if let Some(kernel) = own.filter(|_| !wanted.raw && !wanted.firmware) {
        files::check_kernel(kernel)?;
    }
    let own = own.map(absolute).transpose()?;
    // A run whose trace can't be written would be useless.
    let create = |path: &Path| {
        File::create(path).with_context(|| format!("cannot write {}", path.display()))
    };
    let file = wanted.trace.as_deref().map(create).transpose()?;
    let (image, tools) = (built::hypervisor()?, built::tools(wanted.qemu)?);
    let kernel = own.map_or_else(|| debian::kernel(wanted.qemu.suite()), Ok)?;
    let (start, kernel) = if wanted.firmware {
        (Start::Flash, kernel)
    } else {
        files::placed(kernel, built::folder()?.join("kernel"))?
    };
    let files = Files { kernel: &kernel, initrd: initrd.as_deref(), append: &wanted.append };
    let guests = vec![files; wanted.guests.into()];
    let board = Board {
        machine: wanted.machine,
        tools,
        image,
        vcpus: wanted.cpus,
        cpus: wanted.machine_cpus.unwrap_or(wanted.cpus),
        move_every: wanted.move_every,
        memory: wanted.memory,
        controller: wanted.controller,
        devices: &wanted.device,
        trusted: wanted.trusted_guest,
        guest_smmu: false,
        direct: wanted.direct,
        start,
        record: Record { exits: wanted.exits, stats: wanted.stats, trace: file.is_some() },
        limit: wanted.limit,
    };
    let mut qemu = board.command(&guests)?;
    let mut child = qemu.stdin(Stdio::inherit()).stdout(Stdio::piped()).spawn()?;
    let console = child.stdout.take().context("QEMU has no output")?;
    let mut trace = Trace::default();
    let endings = show(console, &mut trace)?;
    child.wait()?;
    if let Some(file) = file {
        trace.write(BufWriter::new(file))?;
        if trace.left_out > 0 {
            eprintln!("{} events of the trace are left out", trace.left_out);
        }
    }
    let all_off = endings.len() == guests.len() && endings.iter().all(|it| *it == Ending::Off);
    Ok(if all_off { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Copies console output to the terminal as it arrives, except for the trace. Returns how the
/// machines ended.
fn show(mut console: impl Read, trace: &mut Trace) -> Result<Vec<Ending>> {
    let (mut line, mut endings) = (Vec::new(), Vec::new());
    let mut bytes = [0; 4096];
    loop {
        let count = console.read(&mut bytes)?;
        if count == 0 {
            return Ok(endings);
        }
        for part in bytes[..count].split_inclusive(|byte| *byte == b'\n') {
            if trace.events.len() == trace.announced {
                io::stdout().write_all(part)?;
            }
            line.extend(part);
            if part.ends_with(b"\n") {
                let fact = Fact::parse(&String::from_utf8_lossy(&line));
                if let Some(Fact::Hypervisor(HypervisorFact::Ended { how, .. })) = fact {
                    endings.push(how);
                } else if let Some(fact) = fact {
                    trace.fact(&fact);
                }
                line.clear();
            }
        }
        io::stdout().flush()?;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        wanted: Wanted,
    }

    /// Runs a command line that must fail, and returns the error.
    fn error_of(kernel: &Path) -> Result<String> {
        let line = Line::try_parse_from([Path::new("hypervisor"), Path::new("--kernel"), kernel])?;
        let error = run(&line.wanted).err().context("the command line did not fail")?;
        Ok(format!("{error:#}"))
    }

    #[test]
    fn an_unusable_kernel_file_is_refused_with_advice() -> Result<()> {
        let absent = error_of(Path::new("/nowhere/vmlinuz"))?;
        assert!(absent.starts_with("cannot read /nowhere/vmlinuz; `--kernel debian`"), "{absent}");
        let file = std::env::temp_dir().join(format!("doorbell-kernel-{}", std::process::id()));
        fs::write(&file, "quiet\n")?;
        let text = error_of(&file);
        fs::remove_file(&file)?;
        let text = text?;
        assert!(text.contains("is text") && text.contains("--kernel debian"), "{text}");
        Ok(())
    }
}
