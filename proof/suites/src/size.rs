//! The code size of kernels that use one kind of MSI controller. Each is built for size, has a
//! budget, and must not contain code from drivers that it doesn't use.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, ensure};
use doorbell_harness::image;
use doorbell_harness::suite::{Case, Shared};
use doorbell_harness::workspace::{self, Workspace};

/// Cargo options for kernels without a heap.
pub(crate) const HEAPLESS: &[&str] = &["--no-default-features"];
/// Features of a kernel with a heap that uses only the ITS driver of `gic-bringup`.
const ITS_ALONE: &[&str] = &["--no-default-features", "--features", "heap"];

/// A kernel, and the maximum size of its instructions in bytes: its drivers, the interrupt core,
/// and the runtime that all kernels share. The size depends on the path of the checkout, by up to
/// 500 bytes.
#[derive(Clone, Copy, Debug)]
struct SizedKernel {
    name: &'static str,
    about: &'static str,
    features: &'static [&'static str],
    budget: u64,
    /// The drivers of [`DRIVERS`] that the kernel uses.
    drivers: &'static [&'static str],
}

/// The drivers by kind of controller, and the modules of `gic-driver` that implement them.
const DRIVERS: [(&str, &[&str]); 5] = [
    ("controllers inside bridges", &["bridge_msi", "mip"]),
    ("direct LPIs", &["direct_lpi"]),
    ("GICv2", &["gicv2"]),
    ("ITS", &["its"]),
    ("message-based SPIs", &["mbi", "spi_messages", "v2m"]),
];

const fn kernel(name: &'static str, about: &'static str, budget: u64) -> SizedKernel {
    SizedKernel { name, about, features: &[], budget, drivers: &[] }
}

impl SizedKernel {
    const fn with_features(self, features: &'static [&'static str]) -> Self {
        Self { features, ..self }
    }

    const fn with_drivers(self, drivers: &'static [&'static str]) -> Self {
        Self { drivers, ..self }
    }
}

/// The measured kernels. The first kernels handle only a timer interrupt, and contain little
/// besides the runtime.
const KERNELS: [SizedKernel; 7] = [
    kernel("tick", "without messages", 46_000).with_features(HEAPLESS),
    kernel("tick-gicv2", "without messages, on a GICv2", 42_000)
        .with_features(HEAPLESS)
        .with_drivers(&["GICv2"]),
    kernel("size-mbi", "only message-based SPIs", 143_000).with_drivers(&["message-based SPIs"]),
    kernel("size-direct-lpi", "only direct LPIs", 156_000).with_drivers(&["direct LPIs"]),
    ITS,
    RUNTIME,
    FIRMWARE,
];
const ITS: SizedKernel = kernel("size-its", "only an ITS", 187_000).with_drivers(&["ITS"]);
const RUNTIME: SizedKernel = kernel("size-runtime", "the runtime alone", 36_000);
const FIRMWARE: SizedKernel =
    kernel("size-firmware", "the runtime and the devicetree's reader", 147_500);

/// Name of the kernel that [`bring_up`] returns.
const BRING_UP: &str = "size-bringup-its";

/// The kernel that reads the devicetree and uses an ITS. Its budget is the sum of the budget of
/// [`ITS`] and the reader's measured size (the size of [`FIRMWARE`] minus that of [`RUNTIME`]),
/// plus a tenth for `gic-bringup` itself.
fn bring_up(firmware: u64, runtime: u64) -> SizedKernel {
    let budget = (ITS.budget + firmware.saturating_sub(runtime)) * 11 / 10;
    kernel(BRING_UP, "only an ITS, from the devicetree", budget)
        .with_features(ITS_ALONE)
        .with_drivers(&["ITS"])
}

pub(crate) fn cases() -> Vec<Case> {
    let cases = kernels().flat_map(|kernel| {
        [
            case(kernel, kernel.into(), Measured::judge_size),
            case(kernel, format!("{kernel}: drivers"), Measured::judge_drivers),
        ]
    });
    cases.collect()
}

fn case(kernel: &'static str, name: String, judge: fn(&Measured) -> Result<()>) -> Case {
    static ALL: Shared<Vec<Measured>> = Shared::new();
    Case::of(name, move || {
        let all = ALL.get(|| measure_all(workspace::this()?))?;
        let measured = all.iter().find(|measured| measured.kernel.name == kernel);
        judge(measured.context("the kernel was not measured")?)
    })
}

/// Returns the names of the measured kernels.
fn kernels() -> impl Iterator<Item = &'static str> {
    KERNELS.iter().map(|kernel| kernel.name).chain([BRING_UP])
}

/// Measures all kernels, and returns their sizes as a table.
///
/// # Errors
/// Fails if a kernel does not build.
pub(crate) fn markdown(workspace: &Workspace) -> Result<String> {
    let mut table = String::from("| kernel | bytes of text |\n|---|---|\n");
    for Measured { kernel, text, .. } in measure_all(workspace)? {
        writeln!(table, "| `{}`, {} | {text} |", kernel.name, kernel.about)?;
    }
    Ok(table)
}

/// Size of a kernel's code in bytes, and the drivers whose code it contains.
#[derive(Debug)]
pub(crate) struct Measured {
    kernel: SizedKernel,
    text: u64,
    drivers: Vec<&'static str>,
}

impl Measured {
    /// Checks the size of the code against the kernel's budget.
    ///
    /// # Errors
    /// Fails if the code exceeds the budget, or uses less than half of it.
    pub(crate) fn judge_size(&self) -> Result<()> {
        within(self.text, self.kernel.budget)
    }

    /// Checks that the code contains exactly the drivers that the kernel uses.
    ///
    /// # Errors
    /// Fails if the code contains other drivers, or lacks one of the kernel's drivers.
    pub(crate) fn judge_drivers(&self) -> Result<()> {
        uses(&self.drivers, self.kernel.drivers)
    }
}

/// Builds and measures all kernels.
///
/// # Errors
/// Fails if a kernel does not build.
pub(crate) fn measure_all(workspace: &Workspace) -> Result<Vec<Measured>> {
    let mut all = Vec::new();
    for kernel in KERNELS {
        all.push(measure(workspace, kernel)?);
    }
    let text_of = |kernel: &SizedKernel| {
        let measured = all.iter().find(|measured| measured.kernel.name == kernel.name);
        measured.map(|measured| measured.text).context("the kernel was not measured")
    };
    let bring_up = bring_up(text_of(&FIRMWARE)?, text_of(&RUNTIME)?);
    all.push(measure(workspace, bring_up)?);
    Ok(all)
}

fn measure(workspace: &Workspace, kernel: SizedKernel) -> Result<Measured> {
    let elf = image::elf(workspace, "size", "minimal", kernel.name, kernel.features)?;
    let file = fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let drivers = drivers_in(&image::symbols(&file)?);
    let text = image::text_bytes(&file)?;
    eprintln!("{}: {text} bytes of {}", kernel.name, kernel.budget);
    Ok(Measured { kernel, text, drivers })
}

/// Returns the drivers that appear in these symbols.
fn drivers_in(symbols: &[String]) -> Vec<&'static str> {
    // In both of Rust's mangling schemes, each part of a path is prefixed by its length.
    let names = |module: &str| {
        let path = format!("10gic_driver{}{module}", module.len());
        symbols.iter().any(|symbol| symbol.contains(&path))
    };
    let contained = DRIVERS.iter().filter(|(_, modules)| modules.iter().any(|name| names(name)));
    contained.map(|(driver, _)| *driver).collect()
}

fn uses(found: &[&str], wanted: &[&str]) -> Result<()> {
    ensure!(
        found == wanted,
        "the kernel contains code of the drivers {found:?}, and uses {wanted:?}"
    );
    Ok(())
}

fn within(text: u64, budget: u64) -> Result<()> {
    ensure!(text <= budget, "{text} bytes of text, {} more than the budget", text - budget);
    ensure!(text > budget / 2, "{text} bytes of text: less than half of the budget of {budget}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_section_above_or_far_below_its_budget_fails() {
        assert!(within(100, 100).is_ok());
        assert!(within(101, 100).is_err());
        assert!(within(50, 100).is_err(), "the budget is too large to be meaningful");
    }

    #[test]
    fn unexpected_or_missing_drivers_fail() {
        assert!(uses(&["ITS"], &["ITS"]).is_ok());
        assert!(uses(&["GICv2", "ITS"], &["ITS"]).is_err());
        assert!(uses(&[], &["ITS"]).is_err(), "the search finds no driver");
    }
}
