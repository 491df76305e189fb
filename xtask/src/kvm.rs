//! Linux's KVM for arm64 as the judge of the model: Debian's kernels on QEMU, with the judge as
//! their only process.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::dtb::Tools;
use crate::initramfs::{self, Content, File};
use crate::parallel::{self, Trial};
use crate::qemu::{self, Version};
use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{process, small_linux};
use doorbell_harness::toolchain::{self, JUDGE_TARGET as TARGET};

/// A run takes 10 to 20 seconds, on a busy machine more; what takes longer hangs.
const LIMIT: Duration = Duration::from_mins(5);
/// Time that a further plan adds to that.
const PER_PLAN: Duration = Duration::from_secs(5);
/// A CPU with the virtualization host extensions, so that the kernel stays at EL2.
const MACHINE: &[&str] =
    &["-M", "virt,gic-version=3,virtualization=on", "-cpu", "neoverse-n1", "-m", "512M"];
/// No screen, no reboot after a panic.
const SURROUNDINGS: &[&str] =
    &["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"];
const COMMAND_LINE: &str = "console=ttyAMA0 quiet panic=-1";

/// Plans of a long run.
const LONG_PLANS: u32 = 60;

/// Options of a person's run.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// Number of plans that move between KVM and the model
    #[arg(long, default_value_t = LONG_PLANS)]
    plans: u32,
}

/// The judge, with more plans.
pub(crate) fn run_alone(workspace: &Workspace, wanted: &Wanted) -> Result<ExitCode> {
    let mut tally = Tally::default();
    ask_plans(workspace, wanted.plans, &mut tally)?;
    Ok(if tally.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The judge, with the plans of a long run.
pub(crate) fn run_long(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    ask_plans(workspace, LONG_PLANS, tally)
}

fn ask_plans(workspace: &Workspace, plans: u32, tally: &mut Tally) -> Result<()> {
    let command_line = format!("{COMMAND_LINE} plans={plans}");
    ask(workspace, &command_line, LIMIT + PER_PLAN * plans, tally)
}

/// The judge, with what it tries unasked.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    ask(workspace, COMMAND_LINE, LIMIT, tally)
}

/// The judge under each of Debian's kernels, on the QEMU of the same suite.
fn ask(
    workspace: &Workspace,
    command_line: &str,
    limit: Duration,
    tally: &mut Tally,
) -> Result<()> {
    if let Err(absent) = toolchain::need_target(&workspace.root, TARGET) {
        tally.skip(format!("the judge: {TARGET}: {absent:#}"));
        return Ok(());
    }
    let program = small_linux::build_program(workspace, "kvm-judge")?;
    let folder = workspace.target.join("kvm");
    fs::create_dir_all(&folder)?;
    let initramfs = folder.join("initramfs");
    fs::write(&initramfs, initramfs::pack(&contents(fs::read(program)?)))?;
    let judge = Judge { initramfs: &initramfs, folder: &folder, command_line, limit };
    let mut trials: Vec<Trial<'_>> = Vec::new();
    for version in Version::ALL {
        let tools = qemu::fetch(workspace, version).context("QEMU");
        match tools
            .and_then(|tools| Ok((tools, small_linux::fetch_kernel(workspace, version.suite())?)))
        {
            Ok((tools, kernel)) => {
                trials.push(Box::new(move |tally| judge.ask(&tools, &kernel, version, tally)));
            }
            Err(absent) => tally.skip(format!("{}: {absent:#}", name(version))),
        }
    }
    parallel::tallied(&trials, tally);
    Ok(())
}

fn name(version: Version) -> String {
    format!("KVM of {version:?}'s kernel")
}

/// The judge, and what it is asked.
#[derive(Clone, Copy)]
struct Judge<'a> {
    initramfs: &'a Path,
    /// Takes what KVM saved.
    folder: &'a Path,
    command_line: &'a str,
    limit: Duration,
}

impl Judge<'_> {
    /// Under one kernel.
    fn ask(&self, tools: &Tools, kernel: &Path, version: Version, tally: &mut Tally) -> Result<()> {
        let name = name(version);
        let mut qemu = tools.command(qemu::PROGRAM);
        qemu.args(MACHINE).args(SURROUNDINGS).args(["-append", self.command_line]);
        qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(self.initramfs);
        let mut report = Report::default();
        let ended = process::watch(&mut qemu, self.limit, |line| report.line(line));
        report.failed.iter().for_each(|failure| println!("{failure}"));
        let snapshot = self.folder.join(format!("{version:?}.snapshot").to_lowercase());
        fs::write(&snapshot, &report.snapshot)?;
        let (passed, failed) = (report.passed, report.failed.len());
        println!("{name}: {passed} passed, {failed} failed; what it saved: {}", snapshot.display());
        report.judge(&name, tally, ended.map(drop));
        Ok(())
    }
}

fn contents(judge: Vec<u8>) -> Vec<File> {
    let device =
        |path, major, minor| File { path, content: Content::CharacterDevice { major, minor } };
    vec![
        File { path: "dev", content: Content::Folder },
        device("dev/console", 5, 1),
        device("dev/kvm", 10, 232),
        File { path: "init", content: Content::Program(judge) },
    ]
}

/// Report of the judge.
#[derive(Debug, Default)]
struct Report {
    passed: usize,
    failed: Vec<String>,
    snapshot: String,
    total: Option<String>,
    last: String,
}

impl Report {
    fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if line.starts_with("ok - ") {
            self.passed += 1;
        } else if let Some(failure) = line.strip_prefix("not ok - ") {
            self.failed.push(failure.into());
        } else if let Some(row) = line.strip_prefix("snapshot - ") {
            self.snapshot += row;
            self.snapshot.push('\n');
        } else if let Some(total) = line.strip_prefix("total: ") {
            self.total = Some(total.into());
        }
        self.last = line.into();
    }

    fn judge(&self, name: &str, tally: &mut Tally, ended: Result<()>) {
        tally.pass(self.passed);
        for failure in &self.failed {
            tally.fail(format!("{name}: {failure}"));
        }
        if let Err(error) = ended.and_then(|()| self.complete()) {
            tally.fail(format!("{name}: {error:#}"));
        }
    }

    /// The judge came to its end, and no line of it was lost.
    fn complete(&self) -> Result<()> {
        let counted = format!("{} passed, {} failed", self.passed, self.failed.len());
        match &self.total {
            Some(total) => {
                ensure!(*total == counted, "the judge counts {total}, its lines {counted}");
            }
            None => bail!("the judge did not come to its end; the last line is `{}`", self.last),
        }
        ensure!(self.passed + self.failed.len() > 0, "the judge tried nothing");
        Ok(())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn reported(lines: &[&str]) -> Report {
        let mut report = Report::default();
        for line in lines {
            report.line(line);
        }
        report
    }

    #[test]
    fn a_report_with_its_own_count_is_complete() {
        let report = reported(&[
            "ok - a\r",
            "snapshot - x\r",
            "not ok - b: c",
            "total: 1 passed, 1 failed\r",
        ]);
        assert!(report.complete().is_ok());
        assert_eq!(
            (report.snapshot.as_str(), report.failed.as_slice()),
            ("x\n", &["b: c".to_owned()][..])
        );
    }

    #[test]
    fn incomplete_reports_are_refused() {
        assert!(reported(&["ok - a", "Kernel panic"]).complete().is_err());
        assert!(reported(&["ok - a", "total: 2 passed, 0 failed"]).complete().is_err());
        assert!(reported(&["total: 0 passed, 0 failed"]).complete().is_err());
    }
}
