//! Follows a newcomer's steps: creates crates from the packages' READMEs alone, in an empty folder
//! outside the repository, against the packaged archives, and runs them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use doorbell_harness::archives::Archives;
use doorbell_harness::dtb::Tools;
use doorbell_harness::suite::{Case, OrAbsent, Shared};
use doorbell_harness::temporary::Folder;
use doorbell_harness::toolchain::{BARE_TARGET, need_target};
use doorbell_harness::{hang, process, qemu, workspace};

/// A program shown in a package's README.
struct ReadmeProgram {
    package: &'static str,
    /// File names of the program, in the page's order.
    files: &'static [&'static str],
    /// The last line of its output.
    says: &'static str,
}

const MONITOR: ReadmeProgram =
    ReadmeProgram { package: "vgic", files: &["main.rs"], says: "the guest took LPI 8192" };
const KERNEL: ReadmeProgram =
    ReadmeProgram { package: "gic-driver", files: &["main.rs", "virt.rs"], says: "tick" };

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::of("a monitor", || {
            let empty = Folder::new()?;
            let mut made = MONITOR.made(archives()?, &empty)?;
            MONITOR.is_said_by(made.cargo.args(["run", "--quiet"]))
        }),
        Case::of("a kernel", || {
            let workspace = workspace::this()?;
            need_target(&workspace.root, BARE_TARGET).or_absent(BARE_TARGET)?;
            let tools = qemu::fetch(workspace, qemu::Version::Stable).or_absent("QEMU")?;
            run_kernel(archives()?, &Folder::new()?, &tools)
        }),
    ]
}

fn archives() -> Result<&'static Archives> {
    static ARCHIVES: Shared<Archives> = Shared::new();
    ARCHIVES.get(|| Archives::make(workspace::this()?))
}

/// Follows the README's two commands.
fn run_kernel(archives: &Archives, empty: &Folder, tools: &Tools) -> Result<()> {
    let Made { mut cargo, folder } = KERNEL.made(archives, empty)?;
    cargo.env("RUSTFLAGS", "-C link-arg=--image-base=0x40200000");
    cargo.args(["build", "--quiet", "--target", BARE_TARGET, "--target-dir", "target"]);
    process::must(&mut cargo)?;
    let mut machine = tools.command(qemu::PROGRAM);
    machine.args(["-M", "virt,gic-version=3", "-cpu", "cortex-a57", "-nodefaults"]);
    machine.args(["-display", "none", "-serial", "stdio", "-kernel"]);
    machine.arg(folder.join("target").join(BARE_TARGET).join("debug").join(KERNEL.name()));
    KERNEL.is_said_by(&mut machine)
}

/// A newly created crate, in whose folder cargo can be run.
struct Made {
    cargo: Command,
    folder: PathBuf,
}

impl ReadmeProgram {
    /// Creates a crate from the README.
    fn made(&self, archives: &Archives, empty: &Folder) -> Result<Made> {
        let page = fs::read_to_string(archives.package(self.package)?.join("README.md"))?;
        let folder = empty.path().join(self.name());
        fs::create_dir_all(folder.join("src"))?;
        let dependencies =
            blocks(&page, "toml").next().context("the README names no dependencies")?;
        let header = format!("[package]\nname = {:?}\nedition = \"2024\"\n", self.name());
        let manifest = format!("{header}\n[workspace]\n\n{dependencies}\n{}", archives.patch());
        fs::write(folder.join("Cargo.toml"), manifest)?;
        let mut shown = blocks(&page, "rust");
        for file in self.files {
            let text = shown.next().with_context(|| format!("the README does not show {file}"))?;
            fs::write(folder.join("src").join(file), text)?;
        }
        archives.lock(&folder)?;
        let mut cargo = archives.cargo(None);
        cargo.current_dir(&folder);
        Ok(Made { cargo, folder })
    }

    fn is_said_by(&self, program: &mut Command) -> Result<()> {
        let mut lines = Vec::new();
        let said = |line: &str| lines.push(line.trim_end().to_owned());
        let status = process::watch(program, hang::RUN, said)?;
        ensure!(status.success(), "ended with {status}");
        ensure!(lines.last().is_some_and(|line| line == self.says), "the program prints {lines:?}");
        Ok(())
    }

    fn name(&self) -> String {
        format!("{}-user", self.package)
    }
}

/// Returns the fenced blocks in this language, in order.
pub(crate) fn blocks<'a>(page: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let head = format!("{language}\n");
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.filter_map(move |block| block.strip_prefix(head.as_str()))
}
