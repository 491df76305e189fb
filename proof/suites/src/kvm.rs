//! Compares the model with Linux's KVM for arm64, nested in QEMU: Debian's kernels run on QEMU, and
//! the only process is the judge, a program that migrates machines between KVM and the model. KVM
//! also runs below Alioth, another project's monitor.

mod alioth;
mod procedures;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use doorbell_facts::{Fact, JudgeFact};
use doorbell_harness::initramfs::{self, Content, File};
use doorbell_harness::qemu::{CONSOLE, PROGRAM, Version};
use doorbell_harness::suite::{Case, OrAbsent, Shared, is_long};
use doorbell_harness::testbench::Count;
use doorbell_harness::toolchain::{self, JUDGE_TARGET};
use doorbell_harness::{hang, parallel, process, small_linux, workspace};

use self::procedures::Saved;
use crate::fetched;

/// Number of migration plans in a long run.
pub(crate) const LONG_PLANS: u32 = 60;

/// A CPU with the Virtualization Host Extensions, so that the kernel stays at EL2.
const MACHINE: &[&str] =
    &["-M", "virt,gic-version=3,virtualization=on", "-cpu", "neoverse-n1", "-m", "512M"];
const COMMAND_LINE: &str = "console=ttyAMA0 quiet panic=-1";

pub(crate) fn cases() -> Vec<Case> {
    let judged = |version: Version, plans| {
        let name = format!("KVM of {version:?}'s kernel");
        Case::of(name, move || judge(version, plans))
    };
    let mut cases: Vec<_> = if is_long() {
        Version::ALL.iter().map(|version| judged(*version, Some(LONG_PLANS))).collect()
    } else {
        vec![judged(Version::Backports, None)]
    };
    cases.extend(alioth::cases());
    cases
}

/// Judges this number of plans by the KVM of each kernel.
///
/// # Errors
/// Returns the error of the first kernel on which [`judge`] fails.
pub(crate) fn judge_plans(plans: u32) -> Result<()> {
    let judge = |_, version: &Version| judge(*version, Some(plans));
    parallel::on_each_cpu(&Version::ALL, judge).into_iter().collect()
}

/// Runs the judge on the kernel of a Debian suite, in the QEMU of the same suite.
///
/// # Errors
/// Fails if a check failed; the error names each failed check.
fn judge(version: Version, plans: Option<u32>) -> Result<()> {
    let workspace = workspace::this()?;
    let initramfs = initramfs()?;
    let kernel = small_linux::fetch_kernel(workspace, version.suite()).or_absent("the kernel")?;
    let mut qemu = fetched::qemu(version)?.command(PROGRAM);
    let plans_wanted = plans.map(|plans| format!(" plans={plans}")).unwrap_or_default();
    qemu.args(MACHINE).args(CONSOLE);
    qemu.arg("-append").arg(format!("{COMMAND_LINE}{plans_wanted}"));
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    let (mut count, mut saved) = (Count::default(), String::new());
    let mut procedures = Saved::default();
    let limit = if plans.is_some() { hang::LONG } else { hang::RUN };
    let ended = process::watch(&mut qemu, limit, |line| {
        count.line(line);
        saved.extend(row(line));
        procedures.line(line);
    });
    let folder = workspace.target.join("kvm");
    let name = format!("{version:?}").to_lowercase();
    let snapshot = folder.join(format!("{name}.snapshot"));
    fs::write(&snapshot, saved)?;
    let (counts, snapshot) = (count.shown(), snapshot.display());
    eprintln!("KVM of {version:?}'s kernel: {counts}; saved state: {snapshot}");
    count.verdict(ended.map(drop), &[])?;
    procedures.judge(workspace, &folder.join(name))
}

/// Builds, once, an initial file system whose first process is the judge.
fn initramfs() -> Result<&'static Path> {
    static FILE: Shared<PathBuf> = Shared::new();
    let file = FILE.get(|| {
        let workspace = workspace::this()?;
        toolchain::need_target(&workspace.root, JUDGE_TARGET).or_absent(JUDGE_TARGET)?;
        let program = small_linux::build_program(workspace, "kvm-judge", 1)?;
        let folder = workspace.target.join("kvm");
        fs::create_dir_all(&folder)?;
        let file = folder.join("initramfs");
        fs::write(&file, initramfs::pack(&contents(fs::read(program)?)))?;
        Ok(file)
    });
    file.map(PathBuf::as_path)
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

/// Returns the row of KVM's saved state that a line contains, if any.
fn row(line: &str) -> Option<String> {
    let Fact::Judge(JudgeFact::Snapshot { row }) = Fact::parse(line)? else { return None };
    Some(format!("{row}\n"))
}
