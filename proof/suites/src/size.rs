//! The code size of kernels that use one kind of MSI controller. Each is built for size, has a
//! budget, and must not contain code from drivers that it doesn't use.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, ensure};
use doorbell_harness::image;
use doorbell_harness::suite::Case;
use doorbell_harness::workspace::{self, Workspace};

/// Cargo options for kernels without a heap.
pub(crate) const HEAPLESS: &[&str] = &["--no-default-features"];
/// Features of a kernel with a heap that uses only the ITS driver of `gic-bringup`.
const ITS_ALONE: &[&str] = &["--no-default-features", "--features", "heap"];

/// A kernel: its name, what it uses, its features, the drivers of [`DRIVERS`] that it uses, and the
/// maximum size of its instructions in bytes, which are those of the drivers, the interrupt core,
/// and the runtime that all kernels share. The size depends on the path of the checkout, by up to
/// 500 bytes.
type Kernel = (&'static str, &'static str, &'static [&'static str], &'static [&'static str], u64);

/// The drivers by kind of controller, and the modules of `gic-driver` that implement them.
const DRIVERS: [(&str, &[&str]); 5] = [
    ("controllers inside bridges", &["bridge_msi", "mip"]),
    ("direct LPIs", &["direct_lpi"]),
    ("GICv2", &["gicv2"]),
    ("ITS", &["its"]),
    ("message-based SPIs", &["mbi", "spi_messages", "v2m"]),
];

/// The measured kernels. The first kernels handle only a timer interrupt, and contain little
/// besides the runtime.
const KERNELS: [Kernel; 8] = [
    ("tick", "without messages", HEAPLESS, &[], 46_000),
    ("tick-gicv2", "without messages, on a GICv2", HEAPLESS, &["GICv2"], 42_000),
    ("size-mbi", "only message-based SPIs", &[], &["message-based SPIs"], 144_500),
    ("size-direct-lpi", "only direct LPIs", &[], &["direct LPIs"], 156_000),
    ("size-its", "only an ITS", &[], &["ITS"], 187_000),
    ("size-runtime", "the runtime alone", &[], &[], 36_000),
    ("size-firmware", "the runtime and the devicetree's reader", &[], &[], 148_000),
    // The budget of an ITS and of the devicetree's reader, plus a tenth for `gic-bringup` itself.
    ("size-bringup-its", "only an ITS, from the devicetree", ITS_ALONE, &["ITS"], 328_000),
];

pub(crate) fn cases() -> Vec<Case> {
    KERNELS.iter().map(|kernel| Case::of(kernel.0, || judge(kernel))).collect()
}

/// Measures all kernels, and returns their sizes as a table.
///
/// # Errors
/// Fails if a kernel does not build.
pub(crate) fn markdown(workspace: &Workspace) -> Result<String> {
    let mut table = String::from("| kernel | bytes of text |\n|---|---|\n");
    for kernel in &KERNELS {
        let text = image::text_bytes(&build(workspace, kernel)?)?;
        writeln!(table, "| `{}`, {} | {text} |", kernel.0, kernel.1)?;
    }
    Ok(table)
}

fn judge(kernel: &Kernel) -> Result<()> {
    let file = build(workspace::this()?, kernel)?;
    let (drivers, text) = (drivers_in(&image::symbols(&file)?), image::text_bytes(&file)?);
    eprintln!("{}: {text} bytes of {}", kernel.0, kernel.4);
    uses(&drivers, kernel.3)?;
    within(text, kernel.4)
}

/// Returns a kernel's ELF file.
fn build(workspace: &Workspace, (name, _, features, ..): &Kernel) -> Result<Vec<u8>> {
    let elf = image::elf(workspace, "size", "minimal", name, features)?;
    fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))
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
