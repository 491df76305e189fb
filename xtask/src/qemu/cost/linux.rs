//! Debian's kernel with an init program that reads from a disk: what the test bench is compared
//! with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::{self, Apt, Suite};
use crate::initramfs::{self, Content};
use crate::workspace::Workspace;
use crate::{cache, dtb};

/// In the order in which they need each other.
const MODULES: &[&str] = &[
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

/// Reads once for work that is done only once, and sixteen times for the log.
const INIT: &str = r#"#!/busybox sh
B=/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for module in $($B cat /modules); do $B insmod /$module; done
while [ ! -e /dev/nvme0n1 ]; do $B sleep 0.1; done
$B dd if=/dev/nvme0n1 of=/dev/null bs=4k count=2 iflag=direct
echo "cost: ready $($B grep ' nvme_irq[[:space:]]' /proc/kallsyms)"
read line
$B dd if=/dev/nvme0n1 of=/dev/null bs=4k count=16 skip=4 iflag=direct
echo "cost: done"
$B poweroff -f
"#;

/// The kernel and its first file system.
#[derive(Debug)]
pub(in crate::qemu) struct Linux {
    pub(in crate::qemu) kernel: PathBuf,
    pub(in crate::qemu) initrd: PathBuf,
    /// As its file is called.
    pub(in crate::qemu) name: String,
}

impl Linux {
    /// Fetches the release's kernel into the cache.
    pub(in crate::qemu) fn fetch(workspace: &Workspace) -> Result<Self> {
        let folder = cache::folder(workspace).join("linux");
        if !cache::is_filled(&folder) {
            let apt = Apt::update(&cache::folder(workspace).join("apt"))?;
            cache::fill(&folder, || fill(&apt, &folder))?;
        }
        let kernel = only_file(&folder.join("boot"))?;
        let name = kernel.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { kernel, initrd: folder.join("initrd"), name })
    }
}

fn fill(apt: &Apt, folder: &Path) -> Result<()> {
    let modules: Vec<_> = MODULES.iter().map(|name| format!("./lib/modules/*/{name}")).collect();
    let mut patterns = vec!["./boot/vmlinuz-*"];
    patterns.extend(modules.iter().map(String::as_str));
    let kernel = apt::download_kernel(apt, dtb::KERNEL, Suite::Stable, folder)?;
    unpack(&kernel, &patterns, folder)?;
    apt.unpack_busybox("arm64", folder)?;
    fs::write(folder.join("initrd"), initramfs::pack(&contents(folder)?)).map_err(Into::into)
}

fn unpack(package: &Path, patterns: &[&str], folder: &Path) -> Result<()> {
    apt::unpack_matching(package, patterns, folder)?;
    fs::remove_file(package).map_err(Into::into)
}

fn contents(folder: &Path) -> Result<Vec<initramfs::File>> {
    let program = |path, bytes: Vec<u8>| initramfs::File { path, content: Content::Program(bytes) };
    let mut files: Vec<_> = ["dev", "proc", "sys"]
        .map(|path| initramfs::File { path, content: Content::Folder })
        .into();
    files.push(program("init", INIT.into()));
    files.push(program("busybox", fs::read(folder.join(apt::BUSYBOX))?));
    files.push(program("modules", MODULES.join("\n").into()));
    for name in MODULES {
        let file = find(&folder.join("lib/modules"), name)?
            .with_context(|| format!("the kernel has no {name}"))?;
        files.push(program(name, fs::read(file)?));
    }
    Ok(files)
}

/// The file of this name in a folder, or in one below it.
fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.file_name().is_some_and(|file| file == name) {
            return Ok(Some(path));
        }
        if path.is_dir()
            && let Some(found) = find(&path, name)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let first =
        folder.read_dir()?.next().with_context(|| format!("{} is empty", folder.display()))?;
    Ok(first?.path())
}
