//! Builds a small arm64 kernel from Debian's newest kernel source, with patches and more files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Result, ensure};

use crate::apt::{self, Suite};
use crate::linux_module::ModuleBuilder;
use crate::workspace::Workspace;
use crate::{cache, process};

/// Parts of the source that the small configuration does not need. Kconfig reads all its files.
const OMITTED: [&str; 2] = ["*/drivers/gpu/*.[ch]", "*/tools/testing/*"];

/// The kernel's source, and the programs that build it.
#[derive(Debug)]
pub struct KernelBuilder {
    source: PathBuf,
    tools: PathBuf,
    compiler: PathBuf,
}

impl KernelBuilder {
    /// Fetches the source of the newest kernel, and the programs that Debian's headers do not
    /// contain, into the cache. `modules` is a builder for the same kernel.
    ///
    /// # Errors
    /// Fails if a program is not installed, or if a package cannot be fetched.
    pub fn fetch(workspace: &Workspace, modules: &ModuleBuilder) -> Result<Self> {
        for program in ["make", "gcc", "bc", "git", "patch"] {
            ensure!(process::exists(program), "{program} is not installed on this machine");
        }
        let version = modules.version();
        let name = format!("linux-source-{version}");
        let archive = format!("usr/src/{name}.tar.xz");
        let folder = format!("kernel-source-{version}");
        let source = apt::cached(workspace, Suite::Unstable, &folder, |apt, folder| {
            apt.unpack(&name, &[&format!("./{archive}")], folder)
        })?;
        let tools = apt::cached(workspace, Suite::Stable, "kernel-tools", |apt, folder| {
            ["flex", "bison", "m4"].iter().try_for_each(|name| apt.unpack(name, &[], folder))
        })?;
        let source = source.join(archive);
        ensure!(source.is_file(), "{} is of another kernel", source.display());
        Ok(Self { source, tools, compiler: modules.compiler().to_path_buf() })
    }

    /// Unpacks the source into the folder `source` below `folder`.
    ///
    /// # Errors
    /// Fails if the archive cannot be unpacked.
    pub fn unpack(&self, folder: &Path) -> Result<PathBuf> {
        let tree = folder.join("source");
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        fs::create_dir_all(&tree)?;
        let mut tar = process::command("tar", &tree);
        tar.arg("-xJf").arg(&self.source).arg("--strip-components=1");
        process::capture(tar.args(OMITTED.map(|part| format!("--exclude={part}"))))?;
        Ok(tree)
    }

    /// Applies patches to an unpacked source.
    ///
    /// # Errors
    /// Fails if a patch does not fit exactly.
    pub fn apply(tree: &Path, patches: &[PathBuf]) -> Result<()> {
        for patch in patches {
            let mut apply = process::command("patch", tree);
            process::capture(apply.args(["-s", "-p1", "--fuzz=0", "-i"]).arg(patch))?;
        }
        Ok(())
    }

    /// Builds a kernel with these options and no others that can be avoided. Returns its `Image`.
    /// A later call compiles only files that have changed.
    ///
    /// # Errors
    /// Fails if an option has no effect, or if the compiler fails.
    pub fn build(&self, tree: &Path, options: &Path) -> Result<PathBuf> {
        self.output(tree, options, &["Image"])?;
        Ok(output_of(tree).join("arch/arm64/boot/Image"))
    }

    /// Calls `make` with these arguments in a source that is configured with these options, and
    /// returns the standard error.
    pub(crate) fn output(&self, tree: &Path, options: &Path, arguments: &[&str]) -> Result<String> {
        let output = output_of(tree);
        fs::create_dir_all(&output)?;
        let mut configure = self.make(tree, &output);
        configure.env("KCONFIG_ALLCONFIG", options).arg("allnoconfig");
        process::capture(&mut configure)?;
        let set = fs::read_to_string(output.join(".config"))?;
        for option in fs::read_to_string(options)?.lines().filter(|line| !line.starts_with('#')) {
            ensure!(set.lines().any(|line| line == option), "{option} has no effect");
        }
        let made = process::output(self.make(tree, &output).arg("-j2").args(arguments))?;
        let errors = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "the kernel cannot be built:\n{}", errors.trim_end());
        Ok(errors.into_owned())
    }

    fn make(&self, tree: &Path, output: &Path) -> Command {
        let programs = [&self.compiler, &self.tools].map(|root| root.join("usr/bin"));
        let mut path = OsString::new();
        for folder in &programs {
            path.push(folder);
            path.push(":");
        }
        path.push(env::var_os("PATH").unwrap_or_default());
        let compiler = cache::files_below(&programs[0]).unwrap_or_default();
        let mut names = compiler.iter().filter_map(|file| file.file_name()?.to_str());
        let is_compiler = |name: &&str| {
            let version = name.strip_prefix("aarch64-linux-gnu-gcc-").unwrap_or_default();
            version.parse::<u32>().is_ok()
        };
        let compiler = names.rfind(is_compiler).unwrap_or("aarch64-linux-gnu-gcc");
        let mut make = process::command("make", tree);
        make.args(["-s", "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"]);
        make.arg(format!("CC={compiler}")).arg(format!("O={}", output.display()));
        make.env("PATH", path).env("M4", self.tools.join("usr/bin/m4"));
        make.env("BISON_PKGDATADIR", self.tools.join("usr/share/bison"));
        make
    }
}

/// Returns the folder of the files that are built from a source.
fn output_of(tree: &Path) -> PathBuf {
    tree.with_file_name("output")
}
