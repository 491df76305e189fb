//! A small Linux, made of a Debian kernel, some of its modules, busybox and an init program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::{self, Apt, Suite};
use crate::initramfs::{Content, File};
use crate::toolchain::{self, JUDGE_TARGET};
use crate::workspace::Workspace;
use crate::{cache, dtb, process};

/// Modules of the kernel's NVMe driver, in dependency order.
pub const NVME: &[&str] = &[
    "crc64.ko",
    "crct10dif_common.ko",
    "crct10dif_generic.ko",
    "crc64_rocksoft_generic.ko",
    "crc-t10dif.ko",
    "crc64-rocksoft.ko",
    "t10-pi.ko",
    "nvme-core.ko",
    "nvme.ko",
];

/// Modules for a virtio entropy source and a virtio network card on PCI, for the kernel of Debian's
/// stable release, in the order of their dependencies.
const VIRTIO: &[&str] = &[
    "virtio_pci_legacy_dev.ko",
    "virtio_pci_modern_dev.ko",
    "virtio_pci.ko",
    "virtio-rng.ko",
    "failover.ko",
    "net_failover.ko",
    "virtio_net.ko",
];

/// Returns the modules for a virtio entropy source, a virtio network card and an NVMe controller on
/// PCI, in the order of their dependencies. The guest must decompress modules whose names end with
/// `.xz`.
pub fn pci_modules(suite: Suite) -> Vec<&'static str> {
    /// Module of newer kernels that others depend on.
    const KEYRING: &str = "nvme-keyring.ko.xz";
    let newer = || {
        vec![
            "virtio-rng.ko.xz",
            "failover.ko.xz",
            "net_failover.ko.xz",
            "virtio_net.ko.xz",
            "nvme-auth.ko.xz",
            "nvme-core.ko.xz",
            "nvme.ko.xz",
        ]
    };
    match suite {
        Suite::Stable => [VIRTIO, NVME].concat(),
        Suite::Backports => newer(),
        Suite::Unstable => [vec![KEYRING], newer()].concat(),
    }
}

/// Returns the modules for an e1000e network card and for `vfio-pci`, like [`pci_modules`].
pub fn e1000e_and_vfio_modules(suite: Suite) -> Vec<&'static str> {
    match suite {
        Suite::Stable => {
            vec!["e1000e.ko", "vfio.ko", "vfio_virqfd.ko", "vfio-pci-core.ko", "vfio-pci.ko"]
        }
        Suite::Backports | Suite::Unstable => {
            vec!["e1000e.ko.xz", "vfio.ko.xz", "vfio-pci-core.ko.xz", "vfio-pci.ko.xz"]
        }
    }
}

/// Fetches a suite's kernel and the modules that the functions above return into the cache, and
/// returns their folder. The kernel and the modules come from one package, because a module is only
/// compatible with its own kernel.
pub fn fetch_with_modules(workspace: &Workspace, suite: Suite) -> Result<PathBuf> {
    apt::cached(workspace, suite, &format!("linux-{suite:?}").to_lowercase(), |apt, folder| {
        let modules = [pci_modules(suite), e1000e_and_vfio_modules(suite)].concat();
        match suite {
            Suite::Unstable => unpack_unstable(apt, &modules, folder),
            _ => unpack_kernel(apt, dtb::KERNEL, suite, &modules, folder),
        }
    })
}

/// Fetches the stable suite's kernel with real-time preemption (PREEMPT_RT), and its modules of
/// [`pci_modules`], into the cache, and returns their folder.
pub fn fetch_real_time(workspace: &Workspace) -> Result<PathBuf> {
    const KERNEL: &str = "linux-image-rt-arm64:arm64";
    let suite = Suite::Stable;
    apt::cached(workspace, suite, "linux-real-time", |apt, folder| {
        unpack_kernel(apt, KERNEL, suite, &pci_modules(suite), folder)
    })
}

/// Downloads the unstable suite's kernel, and unpacks it and the given modules into `folder`. Since
/// Linux 7, the kernel's package only depends on two others, which contain the kernel and the
/// modules.
fn unpack_unstable(apt: &Apt, modules: &[&str], folder: &Path) -> Result<()> {
    let kernel = dtb::unstable_kernel(apt, &apt.newest(dtb::KERNEL, Suite::Unstable)?)?;
    let modules: Vec<_> =
        modules.iter().map(|name| format!("./usr/lib/modules/*/{name}")).collect();
    let parts = [("binary", vec!["./usr/lib/modules/*/vmlinuz".to_owned()]), ("modules", modules)];
    for (part, patterns) in parts {
        let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
        apt.unpack(&kernel.replacen("image", part, 1), &patterns, folder)?;
    }
    let files = cache::files_below(folder)?;
    let image = files.iter().find(|file| file.ends_with("vmlinuz")).context("no vmlinuz")?;
    let boot = folder.join("boot");
    fs::create_dir_all(&boot)?;
    fs::rename(image, boot.join("vmlinuz")).map_err(Into::into)
}

/// Fetches busybox for arm64 into the cache, and returns its folder.
pub fn fetch_busybox(workspace: &Workspace) -> Result<PathBuf> {
    apt::cached(workspace, Suite::Stable, "busybox", |apt, folder| {
        apt.unpack_busybox("arm64", folder)
    })
}

/// Downloads a suite's kernel, and unpacks it and the given modules into `folder`.
pub fn unpack_kernel<'a>(
    apt: &Apt,
    metapackage: &str,
    suite: Suite,
    modules: impl IntoIterator<Item = &'a &'a str>,
    folder: &Path,
) -> Result<()> {
    let modules: Vec<_> =
        modules.into_iter().map(|name| format!("./lib/modules/*/{name}")).collect();
    let mut patterns = vec!["./boot/vmlinuz-*"];
    patterns.extend(modules.iter().map(String::as_str));
    apt.unpack(&apt.kernel(metapackage, suite)?, &patterns, folder)
}

/// Fetches a suite's newest kernel, without modules, into the cache.
pub fn fetch_kernel(workspace: &Workspace, suite: Suite) -> Result<PathBuf> {
    let name = format!("kernel-{suite:?}").to_lowercase();
    let unpack = |apt: &Apt, folder: &Path| unpack_kernel(apt, dtb::KERNEL, suite, &[], folder);
    kernel(&apt::cached(workspace, suite, &name, unpack)?)
}

/// Builds the program of a package for arm64 Linux, statically linked. The profile is `dev`, which
/// builds faster and checks for overflows. `opt_level` replaces the profile's level, except in
/// packages that have their own.
pub fn build_program(workspace: &Workspace, package: &str, opt_level: u8) -> Result<PathBuf> {
    toolchain::need_target(&workspace.root, JUDGE_TARGET)?;
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["build", "--package", package, "--target", JUDGE_TARGET]);
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld");
    cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", opt_level.to_string());
    process::must(&mut cargo)?;
    Ok(workspace.target.join(JUDGE_TARGET).join("debug").join(package))
}

/// Returns the kernel that was unpacked into `folder`.
pub fn kernel(folder: &Path) -> Result<PathBuf> {
    let mut boot = folder.join("boot").read_dir().context("no kernel was unpacked")?;
    Ok(boot.next().context("the kernel's package has no kernel")??.path())
}

/// Returns the named modules, which were unpacked into `folder`.
pub fn modules(folder: &Path, names: &[&'static str]) -> Result<Vec<File>> {
    let found = cache::files_below(folder)?;
    let module = |path: &&'static str| {
        let file = found.iter().find(|file| file.ends_with(path));
        let bytes = fs::read(file.with_context(|| format!("the kernel has no {path}"))?)?;
        Ok(File { path, content: Content::Program(bytes) })
    };
    names.iter().map(module).collect()
}

/// Returns the files of an initramfs, including the busybox that was unpacked into `folder`. The
/// file `modules` lists the modules in the order in which `init` must load them.
pub fn first_files(folder: &Path, init: &str, modules: Vec<File>) -> Result<Vec<File>> {
    let folders = ["dev", "proc", "sys", "tmp"];
    let busybox = fs::read(folder.join(apt::BUSYBOX)).context("busybox")?;
    let names: Vec<_> = modules.iter().map(|module| module.path).collect();
    let program = |path, bytes| File { path, content: Content::Program(bytes) };
    let mut files: Vec<_> =
        folders.map(|path| File { path, content: Content::Folder }).into_iter().collect();
    files.extend([
        File { path: "dev/console", content: Content::CharacterDevice { major: 5, minor: 1 } },
        program("busybox", busybox),
        program("init", init.into()),
        program("modules", names.join("\n").into()),
    ]);
    files.extend(modules);
    Ok(files)
}
