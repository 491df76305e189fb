//! Fetches files for the test guests from Debian packages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use doorbell_harness::apt::{self, Apt, Suite};
use doorbell_harness::cache;
use doorbell_harness::initramfs::{self, Content, File};
use doorbell_harness::small_linux::{self, first_files};
use doorbell_harness::suite::{OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};

use crate::built;
use crate::files::Files;

/// Command line for the Linux guests.
pub(crate) const COMMAND_LINE: &str = "console=ttyAMA0 quiet panic=-1";
/// The guest's init process.
const INIT: &str = include_str!("debian/init.sh");

/// Number of reads from the entropy source on each vCPU in [`INIT`].
pub(crate) const READS: u64 = 100;

/// A kernel and an initial file system for it.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
}

/// A module of this project, which is loaded before the kernel's.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) path: &'static str,
    pub(crate) file: PathBuf,
}

/// Returns the kernel of a Debian suite with its file system.
pub(crate) fn guest(suite: Suite) -> Result<&'static Guest> {
    static GUESTS: [Shared<Guest>; 3] = [const { Shared::new() }; 3];
    let name = format!("{suite:?}").to_lowercase();
    GUESTS[suite as usize].get(|| {
        Guest::with_modules(workspace::this()?, suite, &name, &[]).or_absent("Debian's kernel")
    })
}

/// Returns a guest with the stable suite's real-time kernel.
pub(crate) fn real_time() -> Result<&'static Guest> {
    static GUEST: Shared<Guest> = Shared::new();
    GUEST.get(|| {
        let workspace = workspace::this()?;
        let packages = small_linux::fetch_real_time(workspace).or_absent("the real-time kernel")?;
        Guest::of(workspace, &packages, Suite::Stable, "real-time", &[])
    })
}

impl Guest {
    /// Returns the files, with the kernel's command line.
    pub(crate) fn files<'a>(&'a self, append: &'a str) -> Files<'a> {
        Files { kernel: &self.kernel, initrd: Some(&self.initrd), append }
    }

    /// Fetches a suite's kernel and busybox into the cache, and packs the file system of this name.
    pub(crate) fn with_modules(
        workspace: &Workspace,
        suite: Suite,
        name: &str,
        first: &[Module],
    ) -> Result<Self> {
        let packages = small_linux::fetch_with_modules(workspace, suite)?;
        Self::of(workspace, &packages, suite, name, first)
    }

    /// Packs the file system of this name for the kernel of a suite in the folder `packages`.
    fn of(
        workspace: &Workspace,
        packages: &Path,
        suite: Suite,
        name: &str,
        first: &[Module],
    ) -> Result<Self> {
        let kernel = small_linux::kernel(packages)?;
        let modules = small_linux::pci_modules(suite);
        let mut all = Vec::new();
        for Module { path, file } in first {
            all.push(File { path, content: Content::Program(fs::read(file)?) });
        }
        all.extend(small_linux::modules(packages, &modules)?);
        Self::with_files(workspace, kernel, name, all)
    }

    /// Packs the file system of this name for a kernel, with busybox and these modules.
    pub(crate) fn with_files(
        workspace: &Workspace,
        kernel: PathBuf,
        name: &str,
        modules: Vec<File>,
    ) -> Result<Self> {
        let busybox = small_linux::fetch_busybox(workspace).context("busybox")?;
        let initrd = built::folder()?.join(format!("initramfs-{name}"));
        fs::write(&initrd, initramfs::pack(&first_files(&busybox, INIT, modules)?))?;
        Ok(Self { kernel, initrd })
    }
}

/// Fetches a file of a package of a release into the cache.
pub(crate) fn fetch(
    workspace: &Workspace,
    release: &str,
    package: &str,
    file: &str,
) -> Result<PathBuf> {
    let cache = cache::folder(workspace);
    let folder = cache.join(format!("{release}-{package}"));
    cache::fill(&folder, || {
        let index = Apt::update_release(&cache, release)?;
        index.download(package, &folder)?;
        let archive = apt::packages_in(&folder)?.pop();
        let archive = archive.with_context(|| format!("{package} was not downloaded"))?;
        apt::unpack_matching(&archive, &[&format!("./{file}")], &folder)?;
        fs::remove_file(archive).map_err(Into::into)
    })?;
    Ok(folder.join(file))
}

/// Fetches a suite's kernel into the cache.
pub(crate) fn kernel(suite: Suite) -> Result<PathBuf> {
    small_linux::kernel(&small_linux::fetch_with_modules(workspace::this()?, suite)?)
}
