//! Unpacks the archives of the published packages into a separate workspace.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::{Package, Workspace};

/// A workspace with exactly the files that users of the packages receive.
#[derive(Debug)]
pub struct Archives {
    /// A workspace of the unpacked packages.
    pub folder: PathBuf,
    /// The folder in which the packages are built.
    target: PathBuf,
    packages: Vec<String>,
}

impl Archives {
    /// Packages the current working tree, committed or not.
    pub fn make(workspace: &Workspace) -> Result<Self> {
        let target = workspace.target.join("archives");
        let packed = target.join("package");
        let archives = Self {
            folder: target.join("unpacked"),
            target: target.join("build"),
            packages: published(workspace).map(folder_of).collect(),
        };
        for folder in [&packed, &archives.folder] {
            if folder.exists() {
                fs::remove_dir_all(folder)
                    .with_context(|| format!("cannot empty {}", folder.display()))?;
            }
        }
        let mut cargo = process::cargo(&workspace.root);
        cargo.args(["package", "--quiet", "--no-verify", "--allow-dirty", "--target-dir"]);
        cargo.arg(&target);
        cargo.args(published(workspace).flat_map(|package| ["--package", &package.name]));
        process::must(offline_if_cached(&mut cargo, workspace))?;
        fs::create_dir_all(&archives.folder)?;
        for name in &archives.packages {
            let mut tar = process::command("tar", &archives.folder);
            process::must(tar.arg("-xzf").arg(packed.join(format!("{name}.crate"))))?;
        }
        fs::write(archives.folder.join("Cargo.toml"), archives.manifest())?;
        fs::copy(workspace.root.join("Cargo.lock"), archives.folder.join("Cargo.lock"))?;
        Ok(archives)
    }

    /// Returns a cargo command for the unpacked workspace, using the given toolchain or, by
    /// default, the one that runs this program.
    pub fn cargo(&self, toolchain: Option<&str>) -> Command {
        let mut cargo = match toolchain {
            None => process::cargo(&self.folder),
            Some(version) => {
                let mut cargo = process::command("cargo", &self.folder);
                // The toolchain that runs this program sets these variables.
                cargo.env_remove("RUSTC").env_remove("RUSTDOC").env_remove("CARGO");
                cargo.env_remove("RUSTUP_TOOLCHAIN").arg(format!("+{version}"));
                cargo
            }
        };
        cargo.env("CARGO_TARGET_DIR", &self.target);
        cargo
    }

    /// Returns manifest lines that replace the registry's packages with the unpacked packages.
    pub fn patch(&self) -> String {
        let mut lines = String::from("[patch.crates-io]\n");
        for folder in &self.packages {
            let name = name_of(folder);
            let path = self.folder.join(folder);
            let _ = writeln!(lines, "{name} = {{ path = {:?} }}", path.display().to_string());
        }
        lines
    }

    /// Returns the folder of a package.
    pub fn package(&self, name: &str) -> Result<PathBuf> {
        let folder = self.packages.iter().find(|folder| name_of(folder) == name);
        Ok(self.folder.join(folder.with_context(|| format!("no archive of {name}"))?))
    }

    /// Makes a crate in `folder` use the versions in this workspace's lock file.
    pub fn lock(&self, folder: &Path) -> Result<()> {
        fs::copy(self.folder.join("Cargo.lock"), folder.join("Cargo.lock"))?;
        Ok(())
    }

    fn manifest(&self) -> String {
        format!("[workspace]\nresolver = \"3\"\nmembers = {:?}\n\n{}", self.packages, self.patch())
    }
}

/// Returns the packages of the workspace that are published to a registry.
pub fn published(workspace: &Workspace) -> impl Iterator<Item = &Package> {
    workspace.packages.iter().filter(|package| package.published)
}

/// Returns the name of the folder in a package's archive.
fn folder_of(package: &Package) -> String {
    let version = package.field("version").as_str().unwrap_or_default();
    format!("{}-{version}", package.name)
}

/// Returns the name of the package whose archive has this folder.
fn name_of(folder: &str) -> &str {
    folder.rsplit_once('-').map_or(folder, |(name, _)| name)
}

/// Adds `--offline` if cargo's cache already has everything in the lock file, to avoid querying the
/// registry's index.
fn offline_if_cached<'a>(cargo: &'a mut Command, workspace: &Workspace) -> &'a mut Command {
    let mut fetch = process::cargo(&workspace.root);
    fetch.args(["metadata", "--format-version", "1", "--locked", "--offline"]);
    let cached = process::output(&mut fetch).is_ok_and(|output| output.status.success());
    if cached { cargo.arg("--offline") } else { cargo }
}
