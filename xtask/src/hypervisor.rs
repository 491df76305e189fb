//! The hypervisor on QEMU, with Debian's kernels as its guests, or a person's.

mod bench;
mod controller;
mod costs;
mod debian;
mod delay;
mod dma;
mod files;
mod hostile;
mod installer;
mod kvm;
mod leaks;
mod linux;
mod machine;
mod microbench;
mod record;
mod report;
mod traffic;

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use self::controller::Controller;
use self::files::{Files, MACHINE_BYTES_BELOW};
use self::hostile::Hostile;
pub(crate) use self::installer::run as run_installer;
use self::linux::Linux;
use self::machine::{GICV3, Machine};
use self::report::Ending;
use crate::dtb::Tools;
use crate::parallel::{self, Trial};
use crate::qemu::{self, Version};
use crate::step::Tally;
use crate::workspace::Workspace;
use doorbell_harness::image::Image;

/// A run takes 5 to 15 seconds, on a busy machine more; what takes longer hangs.
const LIMIT: Duration = Duration::from_mins(2);
/// An SMMU between PCI and memory.
const CONFINED: &[&str] = &["-M", "iommu=smmuv3"];
const SURROUNDINGS: &[&str] =
    &["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"];
const COMMAND_LINE: &str = "console=ttyAMA0 quiet panic=-1";
/// Fewest moves of a guest that is moved.
const MOVES: u64 = 10;
/// MiB of a guest of the test.
const MEMORY: u32 = 512;

/// Name of the kernel that is downloaded.
const DEBIAN: &str = "debian";

/// Options of a person's run.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// The guest's kernel: an arm64 Image, or `debian` for Debian's, which is downloaded
    #[arg(long, required_unless_present = "cost")]
    kernel: Option<PathBuf>,
    /// The kernel is a flat program without the header of an Image
    #[arg(long)]
    raw: bool,
    /// Its first file system
    #[arg(long)]
    initrd: Option<PathBuf>,
    /// Its command line
    #[arg(long, default_value = "console=ttyAMA0")]
    append: String,
    /// Its vCPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    cpus: u8,
    /// CPUs of the machine, if they are not as many
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=8))]
    machine_cpus: Option<u8>,
    /// Guests with these files, each with so many vCPUs and so much memory; devices go round
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    guests: u8,
    /// Saves and rebuilds the guests' GICs each time that so many milliseconds have passed
    #[arg(long, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    move_every: Option<u32>,
    /// MiB of its memory
    #[arg(long, default_value_t = MEMORY, value_parser = clap::value_parser!(u32).range(64..=1792))]
    memory: u32,
    #[command(flatten)]
    machine: Machine,
    /// Its controller of messages
    #[arg(long, value_enum, default_value = "its")]
    controller: Controller,
    /// A device of QEMU's behind PCI that has MSI or MSI-X, for the guest. An SMMU confines what it
    /// reads and writes, for which a virtio device wants iommu_platform=on,disable-legacy=on
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// The guest is trusted: nothing confines what its devices read and write
    #[arg(long)]
    trusted_guest: bool,
    /// Prints exits and injections as they happen, by the counter's ticks
    #[arg(long)]
    trace: bool,
    /// Counts exits and injections by reason, and prints the counts at the end
    #[arg(long)]
    stats: bool,
    /// QEMU to run it on
    #[arg(long, value_enum, default_value = "stable")]
    qemu: Version,
    /// Count the instructions and the exits of a guest's operations, here and under Linux's KVM
    #[arg(long, exclusive = true)]
    cost: bool,
}

/// A guest on this terminal. Success means that it turned its machine off.
pub(crate) fn run_alone(workspace: &Workspace, wanted: &Wanted) -> Result<ExitCode> {
    let Some(kernel) = wanted.kernel.as_deref().filter(|_| !wanted.cost) else {
        return kvm::compare(workspace);
    };
    let absolute =
        |path: &Path| fs::canonicalize(path).with_context(|| format!("no file {}", path.display()));
    let initrd = wanted.initrd.as_deref().map(absolute).transpose()?;
    let own = Some(kernel).filter(|kernel| *kernel != Path::new(DEBIAN));
    if let Some(kernel) = own.filter(|_| !wanted.raw) {
        files::check_kernel(kernel)?;
    }
    let own = own.map(absolute).transpose()?;
    let image = Image::build(workspace, "hypervisor", "hypervisor")?;
    let tools = qemu::fetch(workspace, wanted.qemu)?;
    let kernel = own.map_or_else(|| debian::kernel(workspace, wanted.qemu), Ok)?;
    let files = Files { kernel: &kernel, initrd: initrd.as_deref(), append: &wanted.append };
    let guests = vec![files; wanted.guests.into()];
    let board = Board {
        machine: wanted.machine,
        tools: &tools,
        image: &image,
        vcpus: wanted.cpus,
        cpus: wanted.machine_cpus.unwrap_or(wanted.cpus),
        move_every: wanted.move_every,
        memory: wanted.memory,
        controller: wanted.controller,
        devices: &wanted.device,
        trusted: wanted.trusted_guest,
        record: Record { trace: wanted.trace, stats: wanted.stats },
    };
    let mut qemu = board.command(&guests)?;
    let mut child = qemu.stdin(Stdio::inherit()).stdout(Stdio::piped()).spawn()?;
    let console = child.stdout.take().context("QEMU has no output")?;
    let endings = show(console)?;
    child.wait()?;
    let all_off = endings.len() == guests.len() && endings.iter().all(|it| *it == Ending::Off);
    Ok(if all_off { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Copies the console to the terminal as it comes. Says how the machines ended.
fn show(mut console: impl Read) -> Result<Vec<Ending>> {
    let (mut line, mut endings) = (Vec::new(), Vec::new());
    let mut bytes = [0; 4096];
    loop {
        let count = console.read(&mut bytes)?;
        if count == 0 {
            return Ok(endings);
        }
        io::stdout().write_all(&bytes[..count])?;
        io::stdout().flush()?;
        for byte in &bytes[..count] {
            match byte {
                b'\n' => {
                    let ending = Ending::after(&String::from_utf8_lossy(&line));
                    endings.extend(ending.map(|(_, ending)| ending));
                    line.clear();
                }
                byte => line.push(*byte),
            }
        }
    }
}

/// The hypervisor's guests, side by side: Debian's kernels, and those of ours that judge it.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let image = &Image::build(workspace, "hypervisor", "hypervisor")?;
    let kernels = Linux::fetch_all(workspace, tally);
    let hostile = Hostile::build(workspace, tally)?;
    let mut trials: Vec<Trial<'_>> = Vec::new();
    for linux in &kernels {
        trials.extend(linux.trials(workspace, image, linux::CASES));
        trials.extend(linux.pairs(workspace, image));
    }
    for run in [dma::run, bench::run, microbench::run] {
        trials.push(Box::new(move |tally| run(workspace, image, tally)));
    }
    if let Some(hostile) = &hostile {
        trials.extend(hostile.trials(image));
        trials.extend(leaks::trials(hostile, image));
        trials.extend(delay::trials(hostile, image));
    }
    parallel::tallied(&trials, tally);
    Ok(())
}

/// Debian's kernels with more traffic, and on more machines.
pub(crate) fn run_long(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let image = &Image::build(workspace, "hypervisor", "hypervisor")?;
    let kernels = Linux::fetch_all(workspace, tally);
    let trials = kernels.iter().flat_map(|linux| linux.trials(workspace, image, linux::LONG_CASES));
    parallel::tallied(&trials.collect::<Vec<_>>(), tally);
    Ok(())
}

/// The folder of the runs' disks and sockets.
fn folder(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("hypervisor");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A machine for the hypervisor.
#[derive(Clone, Copy)]
struct Board<'a> {
    machine: Machine,
    tools: &'a Tools,
    image: &'a Image,
    /// Of each guest.
    vcpus: u8,
    /// Of the machine.
    cpus: u8,
    /// MiB of each guest.
    memory: u32,
    /// Of each guest.
    controller: Controller,
    /// Devices for the guests in turn.
    devices: &'a [String],
    /// Nothing confines the devices, else an SMMU.
    trusted: bool,
    /// Milliseconds from one move of the guests to the next.
    move_every: Option<u32>,
    record: Record,
}

/// The hypervisor's records of exits and injections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Record {
    trace: bool,
    stats: bool,
}

impl Board<'_> {
    /// QEMU with the hypervisor and the guests' files.
    fn command(&self, guests: &[Files<'_>]) -> Result<Command> {
        let mut qemu = self.tools.command(qemu::PROGRAM);
        qemu.args(self.machine.arguments()).args(SURROUNDINGS);
        qemu.args(["-smp", &self.cpus.to_string()]);
        let memory = (MACHINE_BYTES_BELOW >> 20) + guests.len() as u64 * u64::from(self.memory);
        qemu.args(["-m", &format!("{memory}M")]);
        qemu.arg("-kernel").arg(&self.image.flat);
        for (others, files) in guests.iter().enumerate() {
            qemu.args(files.loaders(self.memory, others)?);
        }
        let confined = !self.devices.is_empty() && !self.trusted;
        qemu.args(if confined { CONFINED } else { &[] });
        let trusted = if self.trusted { " trusted-guest" } else { "" };
        let moves = self.move_every.map_or(String::new(), |time| format!(" moves={time}"));
        let trace = if self.record.trace { " trace" } else { "" };
        let stats = if self.record.stats { " stats" } else { "" };
        let words = format!(
            "vcpus={} {}{moves}{trusted}{trace}{stats}",
            self.vcpus,
            self.controller.word()
        );
        qemu.args(["-append", &words]);
        for device in self.devices {
            qemu.args(["-device", device]);
        }
        Ok(qemu)
    }
}

#[cfg(test)]
mod test {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        wanted: Wanted,
    }

    /// Runs a command line in a workspace where nothing can be built. Returns the error.
    fn error_of(kernel: &Path) -> Result<String> {
        let nowhere = PathBuf::from("/nowhere");
        let workspace = Workspace { root: nowhere.clone(), target: nowhere, packages: vec![] };
        let line = Line::try_parse_from([Path::new("hypervisor"), Path::new("--kernel"), kernel])?;
        let error = run_alone(&workspace, &line.wanted).err().context("it runs")?;
        Ok(format!("{error:#}"))
    }

    #[test]
    fn files_are_judged_before_anything_is_built() -> Result<()> {
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
