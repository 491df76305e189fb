//! The hypervisor on QEMU, with Debian's kernels as its guests, or a person's.

mod guest;
mod report;

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use self::guest::{Files, MACHINE_BYTES_BELOW};
use self::report::{Ending, Report};
use crate::dtb::Tools;
use crate::initramfs::{self, Content, File};
use crate::qemu::image::Image;
use crate::qemu::{self, Version};
use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{apt, cache, kvm, process};

/// A run takes 5 to 10 seconds, on a busy machine more; what takes longer hangs.
const LIMIT: Duration = Duration::from_mins(2);
/// A CPU with list registers.
const MACHINE: &[&str] = &["-M", "virt,gic-version=3,virtualization=on", "-cpu", "neoverse-n1"];
const SURROUNDINGS: &[&str] =
    &["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"];
const COMMAND_LINE: &str = "console=ttyAMA0 quiet panic=-1";
/// vCPUs of the guests of the test. The newer kernel takes twice the time.
const fn guests(version: Version) -> &'static [u8] {
    match version {
        Version::Stable => &[1, 4],
        Version::Backports => &[2],
    }
}
/// MiB of a guest of the test.
const MEMORY: u32 = 512;
/// Text that the guest reads from its UART, by interrupts.
const TYPED: &str = "by interrupt";

/// Options of a person's run.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// The guest's kernel: anything that boots by the Linux protocol for arm64
    #[arg(long)]
    kernel: PathBuf,
    /// Its first file system
    #[arg(long)]
    initrd: Option<PathBuf>,
    /// Its command line
    #[arg(long, default_value = "console=ttyAMA0")]
    append: String,
    /// Its vCPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    cpus: u8,
    /// MiB of its memory
    #[arg(long, default_value_t = MEMORY, value_parser = clap::value_parser!(u32).range(64..=1792))]
    memory: u32,
    /// QEMU to run it on
    #[arg(long, value_enum, default_value = "stable")]
    qemu: Version,
}

/// A guest on this terminal. Success means that it turned its machine off.
pub(crate) fn run_alone(workspace: &Workspace, wanted: &Wanted) -> Result<ExitCode> {
    let image = Image::build(workspace, "hypervisor", "hypervisor")?;
    let tools = qemu::fetch(workspace, wanted.qemu)?;
    let absolute =
        |path: &Path| fs::canonicalize(path).with_context(|| format!("no file {}", path.display()));
    let initrd = wanted.initrd.as_deref().map(absolute).transpose()?;
    let kernel = absolute(&wanted.kernel)?;
    let files = Files { kernel: &kernel, initrd: initrd.as_deref(), append: &wanted.append };
    let mut qemu = machine(&tools, &image, &files, wanted.cpus, wanted.memory)?;
    let mut child = qemu.stdin(Stdio::inherit()).stdout(Stdio::piped()).spawn()?;
    let console = child.stdout.take().context("QEMU has no output")?;
    let ending = show(console)?;
    child.wait()?;
    Ok(if ending == Ending::Off { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Copies the console to the terminal as it comes. Says how the machine ended.
fn show(mut console: impl Read) -> Result<Ending> {
    let (mut line, mut ending) = (Vec::new(), Ending::Other);
    let mut bytes = [0; 4096];
    loop {
        let count = console.read(&mut bytes)?;
        if count == 0 {
            return Ok(ending);
        }
        io::stdout().write_all(&bytes[..count])?;
        io::stdout().flush()?;
        for byte in &bytes[..count] {
            match byte {
                b'\n' => {
                    ending = Ending::after(&String::from_utf8_lossy(&line)).unwrap_or(ending);
                    line.clear();
                }
                byte => line.push(*byte),
            }
        }
    }
}

/// Debian's kernels as guests, on the QEMU of the same suite.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let image = Image::build(workspace, "hypervisor", "hypervisor")?;
    let initrd = match busybox(workspace) {
        Ok(busybox) => initramfs_of(workspace, &busybox)?,
        Err(absent) => {
            tally.skip(format!("Linux as a guest: busybox: {absent:#}"));
            return Ok(());
        }
    };
    for version in Version::ALL {
        let tools = qemu::fetch(workspace, version).context("QEMU");
        let both = tools.and_then(|tools| Ok((tools, kvm::kernel(workspace, version)?)));
        let (tools, kernel) = match both {
            Ok(both) => both,
            Err(absent) => {
                tally.skip(format!("{version:?}'s kernel as a guest: {absent:#}"));
                continue;
            }
        };
        let files = Files { kernel: &kernel, initrd: Some(&initrd), append: COMMAND_LINE };
        for cpus in guests(version) {
            let name = format!("{version:?}'s kernel on {cpus} vCPUs");
            let qemu = machine(&tools, &image, &files, *cpus, MEMORY)?;
            tally.case(&name, watch(qemu, &name, *cpus));
        }
    }
    Ok(())
}

/// Runs a guest of the test, types when it wants that, and judges what it reports.
fn watch(mut qemu: Command, name: &str, cpus: u8) -> Result<()> {
    let (keyboard, mut typist) = io::pipe()?;
    let mut report = Report::default();
    let mut typed = Ok(());
    process::watch(qemu.stdin(keyboard), LIMIT, |line| {
        if report.line(line) {
            typed = typist.write_all(format!("{TYPED}\n").as_bytes());
        }
    })
    .with_context(|| format!("the last line is `{}`", report.last))?;
    typed?;
    println!("{name}: {}", report.summary());
    report.judge(cpus.into(), TYPED)
}

/// QEMU with the hypervisor and a guest's files.
fn machine(
    tools: &Tools,
    image: &Image,
    files: &Files<'_>,
    cpus: u8,
    memory: u32,
) -> Result<Command> {
    let mut qemu = tools.command(qemu::PROGRAM);
    qemu.args(MACHINE).args(SURROUNDINGS);
    qemu.args(["-smp", &cpus.to_string()]);
    qemu.arg("-m").arg(format!("{}M", (MACHINE_BYTES_BELOW >> 20) + u64::from(memory)));
    qemu.arg("-kernel").arg(&image.flat);
    qemu.args(files.loaders(memory)?);
    Ok(qemu)
}

/// The program that is the guest's user space, in the cache.
fn busybox(workspace: &Workspace) -> Result<PathBuf> {
    let folder = cache::folder(workspace).join("busybox");
    if !cache::is_filled(&folder) {
        let index = apt::Apt::update(&cache::folder(workspace).join("apt"))?;
        cache::fill(&folder, || index.unpack_busybox(&folder))?;
    }
    Ok(folder.join(apt::BUSYBOX))
}

fn initramfs_of(workspace: &Workspace, busybox: &Path) -> Result<PathBuf> {
    let folder = |path| File { path, content: Content::Folder };
    let program = |path, bytes| File { path, content: Content::Program(bytes) };
    let console = Content::CharacterDevice { major: 5, minor: 1 };
    let archive = initramfs::pack(&[
        folder("dev"),
        folder("proc"),
        folder("sys"),
        File { path: "dev/console", content: console },
        program("busybox", fs::read(busybox)?),
        program("init", guest::INIT.into()),
    ]);
    let folder = workspace.target.join("hypervisor");
    fs::create_dir_all(&folder)?;
    let initrd = folder.join("initramfs");
    fs::write(&initrd, archive)?;
    Ok(initrd)
}
