//! Descriptions of programs for `virt`, as the hypervisor's README defines them.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use doorbell_harness::image::Image;
use doorbell_harness::suite::{OrAbsent, Shared};
use doorbell_harness::workspace;

use crate::board::LIMIT;
use crate::debian;
use crate::output::Output;

/// Name of the disk's file that an EFI shell executes.
const SCRIPT: &str = "startup.nsh";
/// Package and file of an EFI shell.
const SHELL: (&str, &str) = ("efi-shell-aa64", "usr/share/efi-shell-aa64/shellaa64.efi");

/// A program for `virt`.
#[derive(Clone, Debug, Default)]
pub(super) struct Program {
    pub(super) name: String,
    source: Source,
    /// Debian's release with the package.
    release: &'static str,
    pub(super) is_firmware: bool,
    /// Numbers of vCPUs, and of CPUs that they share.
    pub(super) machines: Vec<(u8, u8)>,
    /// Time limit of a run.
    pub(super) limit: Duration,
    /// Guest memory in MiB.
    pub(super) memory: u32,
    /// Command line.
    pub(super) append: String,
    pub(super) devices: Vec<String>,
    /// Arguments of QEMU that runs the program without the hypervisor.
    pub(super) own: Vec<String>,
    /// Contents of the script on the disk, and the disk's other files.
    script: String,
    files: Vec<PathBuf>,
    /// `true` if the disk has an EFI shell to boot. Since 2025.05, EDK2 starts its own only from a
    /// menu.
    has_shell: bool,
    /// Keys that are typed from the start, and after the first lines that contain these words.
    pub(super) keys: String,
    pub(super) dialog: Vec<(String, String)>,
    /// Parts of the lines that the program must print.
    pub(super) lines: Vec<String>,
    /// Parts of the lines that must be the same on both machines.
    same: Vec<String>,
    /// `true` if the results of Arm's compliance suite must be the same on both machines.
    pub(super) has_rules: bool,
    /// Numbers of timer interrupts and of SGIs that the program must take.
    pub(super) takes: Option<[RangeInclusive<u64>; 2]>,
}

/// Origin of a program's file.
#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    None,
    File(PathBuf),
    /// A file of a package of Debian's.
    Debian(String, String),
    /// `el2/newcomer`, which is a flat program.
    Newcomer,
}

impl Program {
    /// Reads a description. The error names the file and the line.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let unreadable = || format!("cannot read {}", file.display());
        Self::parse(file, &fs::read_to_string(file).with_context(unreadable)?)
    }

    /// Parses the description in a file.
    pub(super) fn parse(file: &Path, text: &str) -> Result<Self> {
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut program = Self {
            name: file.file_stem().unwrap_or_default().to_string_lossy().into(),
            release: "bookworm",
            limit: LIMIT,
            memory: 256,
            ..Self::default()
        };
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#')) {
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            let at = || format!("{}:{number}: `{line}`", file.display());
            program.set(word, value, folder).with_context(at)?;
        }
        let missing = |what| format!("{} states no {what}", file.display());
        ensure!(!matches!(program.source, Source::None), missing("image"));
        ensure!(!program.lines.is_empty(), missing("line to expect"));
        Ok(program)
    }

    fn set(&mut self, word: &str, value: &str, folder: &Path) -> Result<()> {
        match word {
            "" => {}
            "name" => self.name = value.into(),
            "image" => self.source = Source::File(existing(folder.join(value))?),
            "debian" => {
                let (package, file) = value.split_once(' ').context("not a package and a file")?;
                self.source = Source::Debian(package.into(), file.into());
            }
            "newcomer" => self.source = Source::Newcomer,
            "firmware" => self.is_firmware = true,
            "vcpus" => {
                self.machines = value.split_whitespace().map(machine).collect::<Result<_>>()?;
            }
            "limit" => self.limit = Duration::from_secs(parsed(value)?),
            "memory" => self.memory = parsed(value)?,
            "append" => self.append = value.into(),
            "device" => self.devices.push(value.into()),
            "own" => self.own.extend(value.split_whitespace().map(String::from)),
            "script" => self.script.extend([value, "\r\n"]),
            "shell" => self.has_shell = true,
            "file" => self.files.push(existing(folder.join(value))?),
            "wait" => self.dialog.push((value.into(), String::new())),
            "type" => {
                let keys = self.dialog.last_mut().map_or(&mut self.keys, |(_, keys)| keys);
                keys.extend([value, "\r"]);
            }
            "expect" => self.lines.push(value.into()),
            "same" => self.same.push(value.into()),
            "rules" => self.has_rules = true,
            "takes" => {
                self.takes = Some(match value {
                    "nothing" => [0..=0, 0..=0],
                    "timer" => [1..=u64::MAX, 0..=u64::MAX],
                    times => {
                        let times = parsed(times)?;
                        [times..=times, times..=times]
                    }
                });
            }
            _ => bail!("an unknown word"),
        }
        Ok(())
    }

    /// Writes the disk's files into a folder.
    pub(super) fn write_disk(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join(SCRIPT), &self.script)?;
        if self.has_shell {
            let (boot, (package, file)) = (folder.join("EFI/BOOT"), SHELL);
            fs::create_dir_all(&boot)?;
            fs::copy(of_debian("sid", package, file)?, boot.join("BOOTAA64.EFI"))?;
        }
        for file in &self.files {
            fs::copy(file, folder.join(file.file_name().context("not a file")?))?;
        }
        Ok(())
    }

    /// Returns the lines that must be the same on both machines.
    pub(super) fn same_of<'a>(&self, output: &'a Output) -> Vec<&'a str> {
        let is_same = |line: &&str| self.same.iter().any(|part| line.contains(part));
        output.lines.iter().map(|line| line.trim()).filter(is_same).collect()
    }

    /// Selects the release of Debian with the package.
    pub(super) fn of_release(self, release: &'static str) -> Self {
        Self { name: format!("{release}'s {}", self.name), release, ..self }
    }

    /// Fetches the package's file into the cache, or builds the program.
    pub(super) fn fetch(&self) -> Result<PathBuf> {
        static NEWCOMER: Shared<Image> = Shared::new();
        let workspace = workspace::this()?;
        match &self.source {
            Source::None => bail!("the program has no image"),
            Source::File(file) => Ok(file.clone()),
            Source::Debian(package, file) => of_debian(self.release, package, file),
            Source::Newcomer => {
                let build = || Image::build(workspace, "newcomer", "newcomer");
                Ok(NEWCOMER.get(build)?.flat.clone())
            }
        }
    }
}

/// Fetches a file of a package of a release of Debian into the cache.
fn of_debian(release: &str, package: &str, file: &str) -> Result<PathBuf> {
    debian::fetch(workspace::this()?, release, package, file).or_absent(package)
}

fn existing(file: PathBuf) -> Result<PathBuf> {
    ensure!(file.is_file(), "there is no file {}", file.display());
    Ok(file)
}

fn parsed<T: FromStr>(value: &str) -> Result<T> {
    value.parse().ok().with_context(|| format!("`{value}` is not a number in range"))
}

/// Parses a number of vCPUs, and of CPUs if they share CPUs: `4` or `8/2`.
fn machine(word: &str) -> Result<(u8, u8)> {
    let (vcpus, cpus) = word.split_once('/').unwrap_or((word, word));
    let (vcpus, cpus) = (parsed(vcpus)?, parsed(cpus)?);
    ensure!((1..=8).contains(&vcpus) && (1..=vcpus).contains(&cpus), "1 to 8 vCPUs are possible");
    Ok((vcpus, cpus))
}
