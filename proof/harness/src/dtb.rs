//! Real devicetrees, from Debian's arm64 kernels and from QEMU (as passed to its guests).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{Apt, Suite};
use crate::suite::OrAbsent;
use crate::workspace::Workspace;
use crate::{cache, process};

/// A folder of devicetrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Devicetrees of the release's kernel.
    Debian,
    /// Devicetrees of the kernel in the release's backports.
    Backports,
    /// Devicetrees of QEMU's `virt` machine.
    Qemu,
}

/// The metapackage of Debian's arm64 kernel.
pub const KERNEL: &str = "linux-image-arm64:arm64";

/// A variant of QEMU's `virt` in [`VIRT`]: its name, options of the machine, and further arguments.
pub type Virt = (&'static str, &'static str, &'static [&'static str]);

/// The machines whose devicetrees QEMU writes.
pub const VIRT: &[Virt] = &[
    ("virt-1-cpu", "gic-version=3", &["-smp", "1"]),
    ("virt-4-cpus", "gic-version=3", &["-smp", "4"]),
    ("virt-200-cpus", "gic-version=3", &["-smp", "200"]),
    ("virt-smmu", "gic-version=3,iommu=smmuv3", &["-smp", "4"]),
    ("virt-secure", "gic-version=3,secure=on,virtualization=on", &["-smp", "4"]),
    ("virt-below-4g", "gic-version=3,highmem=off", &["-smp", "4"]),
    ("virt-gicv4", "gic-version=4,virtualization=on", &["-smp", "4"]),
    ("virt-without-its", "gic-version=3,its=off", &["-smp", "4"]),
    ("virt-gicv2", "gic-version=2", &["-smp", "4"]),
];

impl Tree {
    /// All folders.
    pub const ALL: [Self; 3] = [Self::Debian, Self::Backports, Self::Qemu];

    /// Returns the folder's name in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Backports => "debian-backports",
            Self::Qemu => "qemu",
        }
    }

    /// Returns the folder of this tree.
    pub fn folder(self, workspace: &Workspace) -> PathBuf {
        cache::folder(workspace).join("dtb").join(self.name())
    }

    /// Returns the folder of this tree after fetching what the cache does not have.
    ///
    /// # Errors
    /// Fails with [`Absent`](crate::suite::Absent) if the tree cannot be fetched.
    pub fn fetched(self, workspace: &Workspace) -> Result<PathBuf> {
        let mut all = fetch(workspace).into_iter();
        let (_, result) = all.find(|(tree, _)| *tree == self).context("no such tree")?;
        result.or_absent(self.name())?;
        Ok(self.folder(workspace))
    }
}

/// Returns every devicetree below `folder`, in alphabetical order, with its relative path without
/// the extension.
pub fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut files = cache::files_below(folder)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "dtb"));
    files.sort();
    let name = |path: &Path| path.strip_prefix(folder).unwrap_or(path).with_extension("");
    Ok(files.into_iter().map(|path| (name(&path).display().to_string(), path)).collect())
}

/// Programs that were unpacked but not installed.
#[derive(Debug)]
pub struct Tools {
    root: PathBuf,
}

impl Tools {
    /// Returns the QEMU and the devicetree compiler in the cache.
    pub fn of(workspace: &Workspace) -> Self {
        Self { root: cache::folder(workspace).join("qemu") }
    }

    /// Returns the programs that were unpacked into `root`.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Returns the folder that the programs were unpacked into.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns a command for one of the programs, which uses the unpacked libraries and data.
    pub fn command(&self, program: &str) -> Command {
        let path = self.root.join("usr/bin").join(program);
        let linker = self.linker();
        if program.starts_with("qemu-") {
            self.bundle(linker.as_ref().map_or(&path, |linker| Path::new(&linker[0])));
        }
        match linker {
            Some(linker) => {
                let mut command = process::unpacked(&linker[0], &self.root);
                command.args(&linker[1..]).arg(path);
                command
            }
            None => self.on_this_machine(&path.to_string_lossy(), &self.root),
        }
    }

    /// Makes a QEMU that runs as `executable` use the unpacked modules, data and configuration. A
    /// QEMU that is installed on this machine may be of another build, whose modules end the
    /// process. QEMU searches everything below the folder of this name beside its executable
    /// (`get_relocated_path` in `util/cutils.c`).
    fn bundle(&self, executable: &Path) {
        let folder = executable.parent().unwrap_or(executable);
        let depth = folder.strip_prefix(&self.root).map_or(0, |path| path.components().count());
        // Another process may have created the link. A link that cannot be created shows when a
        // module of another build is loaded.
        let _ = symlink([".."].repeat(depth).join("/"), folder.join("qemu-bundle"));
    }

    /// Returns the words that start a program by the unpacked dynamic linker, if there is one: the
    /// programs of a newer release need its C library.
    pub fn linker(&self) -> Option<[String; 3]> {
        let inside = |folder: &Path| -> Option<Vec<PathBuf>> {
            let entries = folder.read_dir().ok()?.filter_map(Result::ok);
            Some(entries.map(|entry| entry.path()).collect())
        };
        let is_linker = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"))
        };
        let folders = inside(&self.root.join("usr/lib"))?;
        let libraries = folders.into_iter().find(|path| path.join("libc.so.6").exists())?;
        let linker = inside(&libraries)?.into_iter().find(is_linker)?;
        let [linker, libraries] = [linker, libraries].map(|path| path.display().to_string());
        Some([linker, "--library-path".to_owned(), libraries])
    }

    /// Returns a command for an installed program, which starts the unpacked programs.
    pub fn on_this_machine(&self, program: &str, folder: &Path) -> Command {
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let usr = self.root.join("usr/lib").join(&triplet);
        // PulseAudio's library needs the absolute path of its private library.
        let libraries = [usr.clone(), self.root.join("lib").join(&triplet), usr.join("pulseaudio")];
        let libraries = libraries.map(|folder| folder.display().to_string());
        let mut command = process::unpacked(program, folder);
        command.env("LD_LIBRARY_PATH", libraries.join(":"));
        command
    }
}

/// Fetches the trees that are not in the cache yet. Returns one result for each tree.
pub fn fetch(workspace: &Workspace) -> Vec<(Tree, Result<()>)> {
    if Tree::ALL.iter().all(|tree| cache::is_filled(&tree.folder(workspace))) {
        return Tree::ALL.map(|tree| (tree, Ok(()))).into();
    }
    match Apt::of(workspace, Suite::Backports) {
        Ok(apt) => Tree::ALL.map(|tree| (tree, fetch_tree(workspace, &apt, tree))).into(),
        Err(error) => Tree::ALL.map(|tree| (tree, Err(anyhow::format_err!("{error:#}")))).into(),
    }
}

fn fetch_tree(workspace: &Workspace, apt: &Apt, tree: Tree) -> Result<()> {
    let folder = tree.folder(workspace);
    cache::fill(&folder, || match tree {
        Tree::Debian => kernel_trees(apt, Suite::Stable, &folder),
        Tree::Backports => kernel_trees(apt, Suite::Backports, &folder),
        Tree::Qemu => {
            let tools = Tools::of(workspace);
            cache::fill(&tools.root, || unpack_qemu(apt, &tools.root))?;
            VIRT.iter().try_for_each(|virt| dump(&tools, virt, &folder))
        }
    })
}

/// Fetches the devicetrees of Debian's current arm64 kernel, unless the cache has them. Returns the
/// kernel's version and the folder of its devicetrees.
pub fn fetch_newest(workspace: &Workspace) -> Result<(String, PathBuf)> {
    let apt = Apt::of(workspace, Suite::Unstable)?;
    let version = apt.newest(KERNEL, Suite::Unstable)?;
    let folder = cache::folder(workspace).join("dtb/debian-unstable");
    cache::fill_version(&folder, &version, || {
        unpack_trees(&apt, &newest_package(&apt, &version)?, &folder)
    })?;
    Ok((version, folder))
}

/// Returns the package that contains the devicetrees of the unstable kernel. Since Linux 7, they
/// are in a separate package that the kernel's package depends on.
fn newest_package(apt: &Apt, version: &str) -> Result<String> {
    let kernel = unstable_kernel(apt, version)?;
    let base = kernel.replacen("image", "base", 1);
    Ok(if apt.dependencies(&kernel)?.contains(&base) { base } else { kernel })
}

/// Returns the package that a version of [`KERNEL`] from the unstable suite refers to.
pub(crate) fn unstable_kernel(apt: &Apt, version: &str) -> Result<String> {
    let packages = apt.dependencies(&format!("{KERNEL}={version}"))?;
    let kernel = packages.into_iter().find(|name| name.starts_with("linux-image-"));
    kernel.with_context(|| format!("{KERNEL} {version} depends on no kernel package"))
}

/// Unpacks the devicetrees of `suite`'s newest arm64 kernel into `folder`.
fn kernel_trees(apt: &Apt, suite: Suite, folder: &Path) -> Result<()> {
    unpack_trees(apt, &apt.kernel(KERNEL, suite)?, folder)
}

/// Unpacks the devicetrees of `package` into `folder`.
fn unpack_trees(apt: &Apt, package: &str, folder: &Path) -> Result<()> {
    apt.unpack(package, &["./usr/lib/*.dtb"], folder)?;
    // The vendor folders are below one or more other folders, each of which is the only entry of
    // its parent.
    let mut vendors = vec![folder.join("usr/lib")];
    while let [only] = vendors.as_slice() {
        let entries = only.read_dir()?.map(|entry| entry.map(|entry| entry.path()));
        vendors = entries.collect::<Result<_, _>>()?;
    }
    for vendor in vendors {
        fs::rename(&vendor, folder.join(vendor.file_name().unwrap_or_default()))?;
    }
    fs::remove_dir_all(folder.join("usr")).map_err(Into::into)
}

/// Unpacks QEMU and the devicetree compiler, from the backports if they have a QEMU.
fn unpack_qemu(apt: &Apt, root: &Path) -> Result<()> {
    let backports = apt.newest("qemu-system-arm", Suite::Backports).is_ok();
    let suite = if backports { Suite::Backports } else { Suite::Stable };
    apt.unpack_with_needs(&["qemu-system-arm", "device-tree-compiler"], suite, root)
}

/// Makes QEMU write the devicetree of a `virt` machine to a file in `folder` that is named after
/// the machine.
///
/// # Errors
/// Fails if QEMU does not start, or refuses the machine.
pub fn dump(tools: &Tools, (name, options, arguments): &Virt, folder: &Path) -> Result<()> {
    let file = folder.join(name).with_extension("dtb");
    let mut qemu = tools.command("qemu-system-aarch64");
    qemu.args(["-display", "none", "-nic", "none", "-cpu", "max"]).args(*arguments);
    qemu.arg("-M").arg(format!("virt,{options},dumpdtb={}", file.display()));
    process::capture(&mut qemu).map(drop)
}
