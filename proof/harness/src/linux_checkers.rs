//! Checkers of Linux's C code: `checkpatch.pl` of a kernel's source, and sparse.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::apt::{Apt, Suite};
use crate::linux_kernel::KernelBuilder;
use crate::linux_module::ModuleBuilder;
use crate::workspace::Workspace;
use crate::{cache, process};

/// The script, and the lists that it reads.
const SCRIPTS: [&str; 3] = ["checkpatch.pl", "const_structs.checkpatch", "spelling.txt"];

/// The checkers of the kernel of one of Debian's suites.
#[derive(Debug)]
pub struct Checkers {
    folder: PathBuf,
}

impl Checkers {
    /// Fetches the checkers of the kernel for which `builder` builds modules into the cache.
    ///
    /// # Errors
    /// Fails if Perl is not installed, or if a package cannot be fetched.
    pub fn fetch(workspace: &Workspace, suite: Suite, builder: &ModuleBuilder) -> Result<Self> {
        ensure!(process::exists("perl"), "perl is not installed on this machine");
        let folder = cache::folder(workspace).join(format!("checkers-{}", builder.version()));
        cache::fill(&folder, || {
            let apt = Apt::of(workspace, suite)?;
            let source = format!("linux-source-{}", builder.version());
            let archive = format!("./usr/src/{source}.tar.xz");
            apt.unpack(&source, &[&archive], &folder)?;
            let mut tar = process::command("tar", &folder);
            tar.args(["-xJf", &archive, "--wildcards", "--strip-components=1"]);
            process::capture(tar.args(SCRIPTS.map(|name| format!("*/scripts/{name}"))))?;
            fs::remove_file(folder.join(archive))?;
            apt.unpack("sparse", &[], &folder)?;
            builder.start_by_loader(&folder.join("usr/bin"))
        })?;
        Ok(Self { folder })
    }

    /// Returns what `checkpatch.pl --strict` reports on the files in a folder, one line each.
    ///
    /// # Errors
    /// The script cannot be started.
    pub fn checkpatch(&self, folder: &Path) -> Result<Vec<String>> {
        self.script(folder, &["-f"], &cache::files_below(folder)?)
    }

    /// Returns what `checkpatch.pl --strict` reports on patches, one line each, except that no
    /// maintainer is named for new files.
    ///
    /// # Errors
    /// The script cannot be started.
    pub fn checkpatch_patches(&self, patches: &[PathBuf]) -> Result<Vec<String>> {
        self.script(&self.folder, &["--ignore", "FILE_PATH_CHANGES"], patches)
    }

    fn script(&self, folder: &Path, options: &[&str], files: &[PathBuf]) -> Result<Vec<String>> {
        let mut perl = process::command("perl", folder);
        perl.arg(self.folder.join("scripts").join(SCRIPTS[0]));
        perl.args(["--strict", "--no-tree", "--terse"]).args(options).args(files);
        let output = process::output(&mut perl)?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(text.lines().filter(|line| !line.starts_with("total: ")).map(str::to_owned).collect())
    }

    /// Returns what sparse reports on the module in a folder, which it builds, one line each.
    ///
    /// # Errors
    /// The module cannot be built.
    pub fn sparse(&self, builder: &ModuleBuilder, folder: &Path) -> Result<Vec<String>> {
        // Debian's headers lack the script that makes sure that sparse works.
        let arguments = ["C=2", "KBUILD_CHECKSRC=2", &self.sparse_program()];
        Ok(found(&builder.output(folder, &arguments)?))
    }

    /// Returns what sparse reports on a folder of a kernel's source with these options, one line
    /// each.
    ///
    /// # Errors
    /// The files cannot be built.
    pub fn sparse_of_kernel(
        &self,
        kernel: &KernelBuilder,
        (tree, options): (&Path, &Path),
        folder: &str,
    ) -> Result<Vec<String>> {
        let folder = format!("{folder}/");
        let arguments = ["C=2", &self.sparse_program(), &folder];
        let mut found = found(&kernel.output(tree, options, &arguments)?);
        // Other files are built first.
        found.retain(|line| line.contains(&folder));
        Ok(found)
    }

    fn sparse_program(&self) -> String {
        format!("CHECK={} -D__CHECK_ENDIAN__", self.folder.join("usr/bin/sparse").display())
    }
}

/// Returns the lines of a compiler's output with warnings and errors.
fn found(text: &str) -> Vec<String> {
    let is_found = |line: &&str| [": warning: ", ": error: "].iter().any(|it| line.contains(it));
    text.lines().filter(is_found).map(str::to_owned).collect()
}
