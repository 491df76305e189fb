//! Runs Hermit, another project's unikernel, as a guest. It drives the GICv3 with an old version of
//! `arm-gic`, and uses the physical timer.
//!
//! Hermit sends itself an SGI for each task switch, and counts the interrupts that it takes. When
//! the program in `el2/foreign/hermit` ends, Hermit prints its counters. They must equal the
//! hypervisor's, although the guest is moved.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use doorbell_harness::image::Image;
use doorbell_harness::suite::{OrAbsent, Shared};
use doorbell_harness::toolchain::{self, SOFT_FLOAT_TARGET};
use doorbell_harness::{process, workspace};

use crate::board::{Controller, LIMIT, MOVES};
use crate::built;
use crate::foreign::Kernel;
use crate::output::Output;

pub(crate) const KERNEL: Kernel = Kernel {
    name: "Hermit",
    image: flat,
    // The program's boot loader passes 56 MiB to Hermit.
    memory: 64,
    devices: &[],
    limit: LIMIT,
    // Hermit 0.11 uses only the first CPU of an Arm machine.
    machines: &[(Controller::Its, 1, 1)],
    long_machines: &[(Controller::Its, 4, 2)],
    judge: |case| {
        let output = Output::within(&mut case.command()?, case.kernel.limit)?;
        judge(&output, case.vcpus)
    },
};
/// Line that the program prints when each of its four tasks has slept 200 times.
const SLEPT: &str = "guest: slept 800";
/// Minimum number of timer interrupts. One interrupt can wake several tasks.
const TIMER: u64 = 200;
/// Minimum number of SGIs: each task yields ten times after each sleep.
const SGIS: u64 = 8_000;
/// End of the only permitted fault: this version of `arm-gic` writes the registers of all possible
/// SPIs, regardless of `GICD_TYPER`.
const FAULT: &str = "no such interrupt (SPI 288)";

fn judge(output: &Output, vcpus: u8) -> Result<()> {
    let cpus = output.after("[INFO] Found ")?;
    ensure!(cpus == format!("{vcpus} cpus!"), "Hermit found {cpus}");
    ensure!(output.lines.iter().any(|line| line == SLEPT), "the program did not print `{SLEPT}`");
    output.judge(MOVES)?;
    let faults = output.faults();
    ensure!(faults.iter().all(|fault| fault.ends_with(FAULT)), "{faults:?}");
    for (name, kind, least) in [("[Timer]: ", "PPI", TIMER), ("[Reschedule]: ", "SGI", SGIS)] {
        let guest: u64 = output.after(name)?.parse().context("no count of interrupts")?;
        let hypervisor = output.taken(kind).context("the hypervisor reported no counts")?;
        ensure!(
            guest == hypervisor,
            "Hermit took {guest} {kind}s, the hypervisor counted {hypervisor}"
        );
        ensure!(guest >= least, "{guest} {kind}s, not {least}");
        eprintln!("Hermit took {guest} {kind}s");
    }
    Ok(())
}

const GUEST: &str = "el2/foreign/hermit";
const PROGRAM: &str = "hermit-guest";
/// The compiler for which this version of Hermit was written. Hermit uses unstable features that
/// later compilers do not have.
const TOOLCHAIN: &str = "nightly-2025-03-15";
/// Component with the standard library's sources. The compiler's release has no library for the
/// target, so the library is built from source.
const SOURCES: &str = "rust-src";

/// Returns the flat image, which the first call builds.
///
/// # Errors
/// Fails if the build fails, or with [`Absent`] if the toolchain or the registry is not available.
fn flat() -> Result<&'static Path> {
    static IMAGE: Shared<PathBuf> = Shared::new();
    IMAGE.get(build).map(PathBuf::as_path)
}

fn build() -> Result<PathBuf> {
    let guest = workspace::this()?.root.join(GUEST);
    toolchain::find_other(&guest, TOOLCHAIN, "component", SOURCES)?;
    let cargo = || toolchain::cargo_of(TOOLCHAIN, &guest);
    process::capture(cargo().args(["fetch", "--locked"])).or_absent("Hermit")?;
    let folder = built::folder()?.join("hermit");
    let mut cargo = cargo();
    cargo.args(["rustc", "--release", "--locked", "--quiet", "--target", SOFT_FLOAT_TARGET]);
    cargo.args(["-Zbuild-std=core,alloc", "-Zbuild-std-features=compiler-builtins-mem"]);
    cargo.arg("--target-dir").arg(&folder).args(["--", "-C", "link-arg=-Timage.ld"]);
    // Hermit's log would contain escape sequences.
    process::must(cargo.env("NO_COLOR", "1"))?;
    Ok(Image::of(folder.join(SOFT_FLOAT_TARGET).join("release").join(PROGRAM))?.flat)
}
