//! Debian kernels with a Direct LPI driver as a module, and with the modules of our tests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use doorbell_harness::apt::Suite;
use doorbell_harness::initramfs::{self, Content, File};
use doorbell_harness::linux_module::ModuleBuilder;
use doorbell_harness::suite::{OrAbsent, Shared};
use doorbell_harness::workspace;

use super::own;
use super::rfc;
use crate::built;
use crate::debian::{Guest, Module};

/// The module that makes an interrupt pending when it is asked to.
const RETRIGGER: &str = "retrigger.ko";
/// The module that uses PCI MSIs.
const RING: &str = "ring.ko";
const RFC: &str = "direct-lpi-rfc.ko";
/// The program that replaces a kernel, which is built beside [`RETRIGGER`].
const KEXEC: &str = "kexec";
const OWN: &str = "direct-lpi.ko";
/// Makes warnings errors.
const WERROR: &str = "KCFLAGS=-Werror";

/// C files that are built, with their names.
pub(super) type Sources = &'static [(&'static str, &'static str)];

pub(super) const RETRIGGER_SOURCES: Sources = &[
    ("Makefile", include_str!("retrigger/Makefile")),
    ("retrigger.c", include_str!("retrigger/retrigger.c")),
    ("kexec.c", include_str!("retrigger/kexec.c")),
];
pub(super) const RING_SOURCES: Sources =
    &[("Makefile", include_str!("ring/Makefile")), ("ring.c", include_str!("ring/ring.c"))];
/// Everything that the RFC's driver needs to be a module. One of its headers left Linux in 6.1.
const RFC_SOURCES: Sources = &[
    ("Makefile", include_str!("rfc/Makefile")),
    ("shim.c", include_str!("rfc/shim.c")),
    ("irq-gic-common.h", include_str!("rfc/irq-gic-common.h")),
    ("include/linux/dma-iommu.h", ""),
];

/// Returns a guest with our driver, which lists what it sends again if it `notes` this.
pub(super) fn own_guest(suite: Suite, notes: bool) -> Result<&'static Guest> {
    static GUESTS: [[Shared<Guest>; 2]; 3] = [const { [const { Shared::new() }; 2] }; 3];
    GUESTS[suite as usize][usize::from(notes)].get(|| {
        let name = format!("direct-lpi-{suite:?}-{notes}").to_lowercase();
        let sources = own::sources()?;
        let sources = if notes { own::noting(sources)? } else { sources };
        let sources: Vec<_> = sources.iter().map(|(name, text)| (&**name, &**text)).collect();
        let own = Module { path: OWN, file: module(suite, &name, &sources, &[WERROR])? };
        let modules = [own, retrigger(suite)?, ring(suite)?];
        Guest::with_modules(workspace::this()?, suite, &name, &modules).or_absent("Debian's kernel")
    })
}

/// Returns a guest that replaces its kernel by this guest's.
pub(super) fn replacing(guest: &Guest, name: &str) -> Result<Guest> {
    let program = retrigger(Suite::Stable)?.file.with_file_name(KEXEC);
    let contents = [("image", &guest.kernel), ("initramfs", &guest.initrd), (KEXEC, &program)];
    let file = |(path, from): (&'static str, &PathBuf)| {
        Ok(File { path, content: Content::Program(fs::read(from)?) })
    };
    let files = contents.into_iter().map(file).collect::<Result<Vec<_>>>()?;
    let initrd = built::folder()?.join(format!("initramfs-{KEXEC}-{name}"));
    fs::write(&initrd, [fs::read(&guest.initrd)?, initramfs::pack(&files)].concat())?;
    Ok(Guest { kernel: guest.kernel.clone(), initrd })
}

fn retrigger(suite: Suite) -> Result<Module> {
    static FILES: [Shared<PathBuf>; 3] = [const { Shared::new() }; 3];
    tool(&FILES, RETRIGGER, RETRIGGER_SOURCES, suite)
}

fn ring(suite: Suite) -> Result<Module> {
    static FILES: [Shared<PathBuf>; 3] = [const { Shared::new() }; 3];
    tool(&FILES, RING, RING_SOURCES, suite)
}

/// Builds one of our test modules for a kernel.
fn tool(
    files: &[Shared<PathBuf>; 3],
    path: &'static str,
    sources: Sources,
    suite: Suite,
) -> Result<Module> {
    let name = format!("{}-{suite:?}", path.trim_end_matches(".ko")).to_lowercase();
    let file = files[suite as usize].get(|| module(suite, &name, sources, &[WERROR]))?;
    Ok(Module { path, file: file.clone() })
}

/// Returns a guest with the RFC's driver, with this number of mistakes mended.
pub(super) fn guest(name: &str, file: Option<&Path>, mended: usize) -> Result<Guest> {
    let driver = rfc::driver(file, mended)?;
    let name = format!("rfc-{}", name.replace(' ', "-"));
    let sources = [RFC_SOURCES, &[("driver.c", driver.as_str())]].concat();
    let suite = Suite::Stable;
    let rfc = Module { path: RFC, file: module(suite, &name, &sources, &[])? };
    Guest::with_modules(workspace::this()?, suite, &name, &[rfc, retrigger(suite)?])
        .or_absent("Debian's kernel")
}

/// Builds a module for a suite's kernel, with more arguments for `make`.
fn module(
    suite: Suite,
    name: &str,
    sources: &[(&str, &str)],
    arguments: &[&str],
) -> Result<PathBuf> {
    let builder = builder(suite)?;
    let folder = written(name, sources)?;
    builder.build(&folder, arguments)?.pop().context("no module was built")
}

pub(super) fn builder(suite: Suite) -> Result<&'static ModuleBuilder> {
    static BUILDERS: [Shared<ModuleBuilder>; 3] = [const { Shared::new() }; 3];
    let fetch =
        || ModuleBuilder::fetch(workspace::this()?, suite).or_absent("the kernel's headers");
    BUILDERS[suite as usize].get(fetch)
}

/// Writes files into a folder of their own, which is returned.
pub(super) fn written(name: &str, sources: &[(&str, &str)]) -> Result<PathBuf> {
    let folder = built::folder()?.join("modules").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    for (file, text) in sources {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().unwrap_or(&folder))?;
        fs::write(path, text)?;
    }
    Ok(folder)
}
