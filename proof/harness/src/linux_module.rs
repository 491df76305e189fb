//! Builds modules for Debian's unmodified arm64 kernels, with the packages of the kernel's headers
//! and of the compiler that built the kernel.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::apt::{Apt, Suite};
use crate::dtb::Tools;
use crate::workspace::Workspace;
use crate::{cache, process, small_linux};

/// Debian's prefix of the names of tools for arm64.
const PREFIX: &str = "aarch64-linux-gnu";
/// Folder of the headers inside their packages, which Debian's makefiles refer to.
const SOURCES: &str = "/usr/src";

/// The headers of a kernel, and a compiler for its modules.
#[derive(Debug)]
pub struct ModuleBuilder {
    suite: Suite,
    release: String,
    compiler: Tools,
    headers: PathBuf,
}

impl ModuleBuilder {
    /// Fetches the headers of a suite's kernel and their compiler into the cache. The kernel is the
    /// one that [`small_linux::fetch_with_modules`] returns.
    ///
    /// # Errors
    /// Fails if `make` is not installed, or if a package cannot be fetched. The mirror may already
    /// have replaced the headers of a kernel in the cache by newer ones.
    pub fn fetch(workspace: &Workspace, suite: Suite) -> Result<Self> {
        ensure!(process::exists("make"), "make is not installed on this machine");
        let release = release_of(&small_linux::fetch_with_modules(workspace, suite)?)?;
        let cache = cache::folder(workspace);
        let folder = cache.join(format!("headers-{release}"));
        let is_newest = suite == Suite::Unstable;
        let compiler = cache.join(if is_newest { "cross-arm64-unstable" } else { "cross-arm64" });
        if !cache::is_filled(&folder) || !cache::is_filled(&compiler) {
            let apt = Apt::of(workspace, suite)?;
            let headers = format!("linux-headers-{release}:arm64");
            let needs = apt.dependencies(&headers)?;
            cache::fill(&compiler, || unpack_compiler(&apt, &needs, suite, &compiler))?;
            cache::fill(&folder, || {
                unpack_headers(&apt, &headers, &needs, &folder)?;
                let tools = folder.join("usr/lib");
                if is_newest { start_by_loader_of(&compiler, &tools) } else { Ok(()) }
            })?;
        }
        let headers = folder.join(&SOURCES[1..]).join(format!("linux-headers-{release}"));
        Ok(Self { suite, release, compiler: Tools::at(compiler), headers })
    }

    /// Returns the folder with the compiler.
    pub(crate) fn compiler(&self) -> &Path {
        self.compiler.root()
    }

    /// Returns the first two numbers of the kernel's release, such as `6.1`.
    pub(crate) fn version(&self) -> &str {
        version_of(&self.release)
    }

    /// Makes the suite's programs in a folder run on this machine.
    pub(crate) fn start_by_loader(&self, folder: &Path) -> Result<()> {
        match self.suite {
            Suite::Unstable => start_by_loader_of(self.compiler.root(), folder),
            Suite::Stable | Suite::Backports => Ok(()),
        }
    }

    /// Builds the modules that the makefile in `folder` names, with more arguments for `make`, and
    /// returns the folder's modules.
    ///
    /// # Errors
    /// Fails if the compiler does.
    pub fn build(&self, folder: &Path, arguments: &[&str]) -> Result<Vec<PathBuf>> {
        self.output(folder, arguments)?;
        let is_module = |path: &PathBuf| path.extension().is_some_and(|it| it == "ko");
        let mut modules = cache::files_below(folder)?;
        modules.retain(is_module);
        ensure!(!modules.is_empty(), "{} names no module", folder.display());
        Ok(modules)
    }

    /// Builds modules like [`build`](Self::build), and returns the standard error.
    pub(crate) fn output(&self, folder: &Path, arguments: &[&str]) -> Result<String> {
        let programs = self.compiler.root().join("usr/bin");
        let others = env::var_os("PATH").unwrap_or_default();
        let mut path = OsString::from(programs);
        path.push(":");
        path.push(others);
        // The makefile of older headers looks for a cross compiler only if these are set. Type
        // information for BPF would need a program that the headers do not depend on.
        let kinds =
            ["DEB_BUILD_ARCH=other", "DEB_HOST_ARCH=arm64", "CONFIG_DEBUG_INFO_BTF_MODULES="];
        let mut make = match self.suite {
            Suite::Unstable => process::command("make", folder),
            Suite::Stable | Suite::Backports => self.compiler.on_this_machine("make", folder),
        };
        make.args(["-s", "-C"]).arg(&self.headers).args(kinds).env("PATH", path);
        make.arg(format!("DEB_HOST_GNU_TYPE={PREFIX}")).arg(format!("M={}", folder.display()));
        let output = process::output(make.args(arguments).arg("modules"))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the module cannot be built:\n{}", errors.trim_end());
        Ok(errors.into_owned())
    }
}

fn version_of(release: &str) -> &str {
    let end = release.match_indices('.').nth(1).map_or(release.len(), |(at, _)| at);
    &release[..end]
}

/// Returns the release of the kernel whose modules were unpacked into `folder`.
fn release_of(folder: &Path) -> Result<String> {
    let places = ["lib/modules", "usr/lib/modules"].map(|place| folder.join(place));
    let entry = places.iter().find_map(|place| place.read_dir().ok()?.next());
    let entry = entry.context("the kernel's package has no modules")??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

/// Downloads the headers and those that they share with other kernels, and unpacks them.
fn unpack_headers(apt: &Apt, headers: &str, needs: &[String], folder: &Path) -> Result<()> {
    for name in shared_headers(needs).into_iter().chain([headers]) {
        apt.unpack(name, &[], folder)?;
    }
    for entry in folder.join(&SOURCES[1..]).read_dir()? {
        let makefile = entry?.path().join("Makefile");
        let Ok(text) = fs::read_to_string(&makefile) else { continue };
        let here = ["include ", "KBUILD_OUTPUT="].iter().fold(text, |text, before| {
            let here = format!("{before}{}{SOURCES}", folder.display());
            text.replace(&format!("{before}{SOURCES}"), &here)
        });
        fs::write(makefile, here)?;
    }
    Ok(())
}

/// Returns the packages that headers depend on and that contain sources or tools for building
/// modules. apt prints the name of a package of another architecture as `<NAME:ARCHITECTURE>`.
fn shared_headers(needs: &[String]) -> Vec<&str> {
    let names = needs.iter().map(|name| name.trim_matches(['<', '>']));
    let names = names.map(|name| name.split(':').next().unwrap_or(name));
    let is_part = |name: &&str| name.starts_with("linux-kbuild-") || name.ends_with("-common");
    names.filter(is_part).collect()
}

fn unpack_compiler(apt: &Apt, needs: &[String], suite: Suite, folder: &Path) -> Result<()> {
    let compiler = needs.iter().find_map(|name| {
        let name = name.strip_suffix(":arm64").unwrap_or(name);
        let name = name.strip_suffix("-for-host").unwrap_or(name);
        name.starts_with("gcc-").then_some(name)
    });
    let compiler = compiler.context("the headers do not depend on a compiler")?;
    let parts = [compiler, &compiler.replacen("gcc", "cpp", 1)].map(|part| {
        if env::consts::ARCH == "aarch64" { part.to_owned() } else { format!("{part}-{PREFIX}") }
    });
    let linker = format!("binutils-{PREFIX}");
    let mut packages = vec![parts[0].as_str(), &parts[1], &linker];
    if suite != Suite::Unstable {
        return apt.unpack_with_needs(&packages, Suite::Stable, folder);
    }
    // The C library, and the other libraries of the tools in the headers.
    packages.push("libc6");
    packages.extend(shared_headers(needs).iter().filter(|name| name.starts_with("linux-kbuild-")));
    apt.unpack_with_needs(&packages, suite, folder)?;
    ["bin", "libexec"]
        .iter()
        .try_for_each(|programs| start_by_loader_of(folder, &folder.join("usr").join(programs)))
}

/// Replaces each program below `folder` by a script that starts it with the loader and the
/// libraries in `root`. The programs need a newer C library than Debian's stable release has.
///
/// # Errors
/// Fails if a file cannot be read or written, or if there is no loader.
fn start_by_loader_of(root: &Path, folder: &Path) -> Result<()> {
    let libraries = root.join("usr/lib").join(format!("{}-linux-gnu", env::consts::ARCH));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_loader = |path: &PathBuf| name(path).starts_with("ld-linux-");
    let loader = cache::files_below(&libraries)?.into_iter().find(is_loader);
    let loader = loader.context("the C library's package has no loader")?;
    for program in cache::files_below(folder)? {
        let metadata = fs::symlink_metadata(&program)?;
        let is_program = metadata.is_file() && metadata.permissions().mode() & 0o100 != 0;
        if !is_program || name(&program).contains(".so") || !is_elf(&program)? {
            continue;
        }
        let moved = program.with_file_name(format!("{}.elf", name(&program)));
        fs::rename(&program, &moved)?;
        let [loader, libraries, moved] = [&loader, &libraries, &moved].map(|path| path.display());
        let script = format!(
            "#!/bin/sh\nexec '{loader}' --library-path '{libraries}' --argv0 \"$0\" '{moved}' \
             \"$@\"\n"
        );
        fs::write(&program, script)?;
        fs::set_permissions(&program, metadata.permissions())?;
    }
    Ok(())
}

fn is_elf(file: &Path) -> Result<bool> {
    let mut magic = Vec::new();
    fs::File::open(file)?.take(4).read_to_end(&mut magic)?;
    Ok(magic == b"\x7fELF")
}
