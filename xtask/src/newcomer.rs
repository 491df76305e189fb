//! A newcomer's steps: crates are made from the packages' READMEs alone, in an empty folder outside
//! of the repository, against the packaged archives. Then they are run.

use std::path::PathBuf;
use std::process::{self, Command};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::dtb::Tools;
use crate::package::Archives;
use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{process as children, qemu};
use doorbell_harness::toolchain::{BARE_TARGET, need_target};

/// Building a program and its dependencies takes less, on a busy machine too.
const LIMIT: Duration = Duration::from_mins(10);

/// A program that a package's README shows.
struct Program {
    package: &'static str,
    /// Its files, in the page's order.
    files: &'static [&'static str],
    /// Its output: the last line.
    says: &'static str,
}

const MONITOR: Program =
    Program { package: "vgic", files: &["main.rs"], says: "the guest took LPI 8192" };
const KERNEL: Program =
    Program { package: "gic-driver", files: &["main.rs", "virt.rs"], says: "tick" };

/// Makes and runs a monitor and a kernel, each counted as one case.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let archives = Archives::make(workspace)?;
    let empty = Empty::new()?;
    tally.case(
        "a monitor",
        MONITOR
            .made(&archives, &empty)
            .and_then(|mut made| MONITOR.is_said_by(made.cargo.args(["run", "--quiet"]))),
    );
    let tools = need_target(&workspace.root, BARE_TARGET);
    match tools.and_then(|()| qemu::fetch(workspace, qemu::Version::Stable)) {
        Err(absent) => tally.skip(format!("a kernel: {absent:#}")),
        Ok(tools) => tally.case("a kernel", run_kernel(&archives, &empty, &tools)),
    }
    Ok(())
}

/// Follows the README's two commands.
fn run_kernel(archives: &Archives, empty: &Empty, tools: &Tools) -> Result<()> {
    let Made { mut cargo, folder } = KERNEL.made(archives, empty)?;
    cargo.env("RUSTFLAGS", "-C link-arg=--image-base=0x40200000");
    cargo.args(["build", "--quiet", "--target", BARE_TARGET, "--target-dir", "target"]);
    children::must(&mut cargo)?;
    let mut machine = tools.command(qemu::PROGRAM);
    machine.args(["-M", "virt,gic-version=3", "-cpu", "cortex-a57", "-nodefaults"]);
    machine.args(["-display", "none", "-serial", "stdio", "-kernel"]);
    machine.arg(folder.join("target").join(BARE_TARGET).join("debug").join(KERNEL.name()));
    KERNEL.is_said_by(&mut machine)
}

/// A crate that was made, and cargo in its folder.
struct Made {
    cargo: Command,
    folder: PathBuf,
}

impl Program {
    /// Makes a crate of what the README shows.
    fn made(&self, archives: &Archives, empty: &Empty) -> Result<Made> {
        let page = fs::read_to_string(archives.package(self.package)?.join("README.md"))?;
        let folder = empty.0.join(self.name());
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
        let status = children::watch(program, LIMIT, said)?;
        ensure!(status.success(), "ended with {status}");
        ensure!(lines.last().is_some_and(|line| line == self.says), "it says {lines:?}");
        Ok(())
    }

    fn name(&self) -> String {
        format!("{}-user", self.package)
    }
}

/// The fenced blocks of this language, in their order.
fn blocks<'a>(page: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let head = format!("{language}\n");
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.filter_map(move |block| block.strip_prefix(head.as_str()))
}

/// A folder of the system's for temporary ones, removed in the end.
struct Empty(PathBuf);

impl Empty {
    fn new() -> Result<Self> {
        let folder = env::temp_dir().join(format!("doorbell-newcomer-{}", process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Empty {
    fn drop(&mut self) {
        // The rest is a temporary file.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn blocks_are_found_by_their_language() {
        let page = "text\n```toml\na = 1\n```\n\n```rust\nmod b;\n```\n\n```rust\nfn b() {}\n```\n";
        let found = |language| blocks(page, language).collect::<Vec<_>>();
        assert_eq!(found("rust"), ["mod b;\n", "fn b() {}\n"]);
        assert_eq!(found("toml"), ["a = 1\n"]);
        assert!(found("console").is_empty());
    }
}
