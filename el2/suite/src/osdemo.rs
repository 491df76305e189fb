//! Runs osdemo, another project's kernel, as a guest. osdemo is a shell built on Google's
//! bare-metal crates: `arm-gic` drives the GICv3, `aarch64-rt` starts CPUs, and the UART raises an
//! interrupt for each typed character.
//!
//! The suite types the commands. `start_cpu` starts a CPU, which enables its SGIs, waits for one
//! and turns itself off without ending the SGI, so each start takes one SGI. `sgi` sends an SGI to
//! all CPUs; for a CPU that is off, the SGI stays pending until the next start. Each started CPU
//! must take each SGI exactly once.

mod typist;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_harness::image::Image;
use doorbell_harness::suite::{OrAbsent, Shared};
use doorbell_harness::toolchain::{SOFT_FLOAT_TARGET, need_target};
use doorbell_harness::{process, workspace};

use self::typist::{SGIS, Typist};
use crate::board::{Controller::Its, LIMIT, MOVES};
use crate::built;
use crate::foreign::{Kernel, KernelCase};
use crate::output::Output;

/// Time limit of a run, which must suffice on a busy machine.
const TIME: Duration = LIMIT.saturating_mul(2);
pub(crate) const KERNEL: Kernel = Kernel {
    name: "osdemo",
    image: flat,
    memory: 64,
    devices: &[],
    limit: TIME,
    machines: &[(Its, 4, 4)],
    long_machines: &[(Its, 2, 2), (Its, 8, 2)],
    judge,
};
/// Maximum number of runs that may end by a race of osdemo's own: a CPU that a move wakes removes
/// its handlers before it turns itself off, but leaves interrupts enabled, so an SGI that arrives
/// in between finds no handler.
const RACES: usize = 4;

/// osdemo's message when it finds no handler for an SGI, whose number follows.
const NO_HANDLER: &str = "Unexpected IRQ SGI ";

fn judge(case: KernelCase) -> Result<()> {
    for _ in 0..RACES {
        let output = run(case)?;
        let Some(sgi) = unhandled(&output).filter(|_| has_raced(&output, case.vcpus)) else {
            return judge_output(&output, case.vcpus);
        };
        eprintln!("{}: osdemo had no handler for SGI {sgi}", case.name());
    }
    judge_output(&run(case)?, case.vcpus)
}

/// Runs osdemo and types the commands.
fn run(case: KernelCase) -> Result<Output> {
    let mut typist = Typist::new(case.vcpus);
    let output = Output::typed(&mut case.command()?, TIME, "", |line, output| {
        let commands = typist.answer(line, taken(output).len());
        commands.iter().flat_map(|command| [command, "\r"]).collect()
    })?;
    eprintln!(
        "{}: {} SGIs taken; the hypervisor counted {}; {} moves",
        case.name(),
        taken(&output).len(),
        output.taken("SGI").unwrap_or(0),
        output.moves()
    );
    Ok(output)
}

/// Returns `true` if osdemo found no handler for an SGI that one of its CPUs was still to take.
/// Otherwise, a CPU has received the SGI twice.
fn has_raced(output: &Output, vcpus: u8) -> bool {
    unhandled(output).is_some_and(|unhandled| {
        let took = taken(output).iter().filter(|(_, sgi)| *sgi == unhandled).count();
        took + 1 < usize::from(vcpus)
    })
}

fn judge_output(output: &Output, vcpus: u8) -> Result<()> {
    output.judge(MOVES)?;
    output.judge_faults()?;
    let mut taken = taken(output);
    taken.sort_unstable();
    let expected: Vec<_> =
        (1..vcpus).flat_map(|cpu| (0..SGIS).map(move |sgi| (cpu, sgi))).collect();
    ensure!(taken == expected, "the CPUs took {taken:?}");
    let (taken, sgis) = (taken.len() as u64, output.taken("SGI").unwrap_or(0));
    ensure!(sgis == taken, "osdemo took {taken} SGIs, and the hypervisor counted {sgis}");
    Ok(())
}

/// Returns the SGIs that the CPUs' handlers printed: the CPU and the SGI. A log line is contiguous,
/// but may follow an unfinished line of the shell.
fn taken(output: &Output) -> Vec<(u8, u8)> {
    let taken = |line: &String| {
        let (_, rest) = line.split_once("[INFO] Secondary CPU ")?;
        let (cpu, sgi) = rest.split_once(" IRQ handler SGI ")?;
        Some((cpu.parse().ok()?, sgi.parse().ok()?))
    };
    output.lines.iter().filter_map(taken).collect()
}

/// Returns the SGI for which osdemo found no handler, and panicked.
fn unhandled(output: &Output) -> Option<u8> {
    output.after(NO_HANDLER).ok()?.split(' ').next()?.parse().ok()
}

/// The package whose lock file pins the version.
const LOCK: &str = "el2/foreign/osdemo";
const PACKAGE: &str = "osdemo-0.1.3";

/// Returns the flat image, which the first call builds.
///
/// # Errors
/// Fails if the build fails, or with `Absent` if the registry is not available.
fn flat() -> Result<&'static Path> {
    static IMAGE: Shared<PathBuf> = Shared::new();
    IMAGE.get(build).map(PathBuf::as_path)
}

fn build() -> Result<PathBuf> {
    let workspace = workspace::this()?;
    need_target(&workspace.root, SOFT_FLOAT_TARGET)?;
    let folder = built::folder()?.join("osdemo");
    fs::create_dir_all(&folder)?;
    // Another run of the suite must not replace the sources meanwhile. Dropping the file releases
    // the lock.
    let lock = File::create(folder.with_added_extension("lock"))?;
    lock.lock()?;
    let sources = folder.join("vendor");
    // `cargo vendor` keeps the files of an existing package.
    if sources.exists() {
        fs::remove_dir_all(&sources).context("cannot remove the sources of the last run")?;
    }
    let mut vendor = process::cargo(&workspace.root.join(LOCK));
    vendor.args(["vendor", "--locked", "--versioned-dirs"]).arg(&sources);
    process::capture(&mut vendor).or_absent(PACKAGE)?;

    let package = sources.join(PACKAGE);
    // Otherwise, the package would have to be a member of this project's workspace.
    let manifest = package.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).context("cannot read the manifest")?;
    fs::write(&manifest, text + "\n[workspace]\n")?;

    let mut fetch = process::cargo(&package);
    process::capture(fetch.args(["fetch", "--locked"])).or_absent(PACKAGE)?;

    let target = folder.join("target");
    let mut cargo = process::cargo(&package);
    cargo.args(["build", "--release", "--locked", "--quiet", "--target", SOFT_FLOAT_TARGET]);
    cargo.arg("--target-dir").arg(&target);
    // Optimizing this kernel takes longer than running it.
    cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("RUSTFLAGS", "--cfg platform=\"qemu\"");
    process::capture(&mut cargo)?;
    Ok(Image::of(target.join(SOFT_FLOAT_TARGET).join("release/osdemo"))?.flat)
}
