//! The packages of this workspace, as reported by cargo.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;
use crate::suite::Shared;

/// Folders without prose or code of this project.
const OTHER: &[&str] = &["target", "data", "artifacts", "corpus"];

/// Folders of the workspaces whose packages run on bare metal.
const BARE_METAL: [&str; 2] = ["images", "el2"];

/// The root folder, the target folder, and the packages, including those for bare metal.
#[derive(Debug)]
pub struct Workspace {
    /// The folder of the repository.
    pub root: PathBuf,
    /// The folder of build results.
    pub target: PathBuf,
    /// All packages, in no particular order.
    pub packages: Vec<Package>,
}

/// Returns the workspace that this program belongs to.
///
/// # Errors
/// Fails if cargo cannot describe the workspace.
pub fn this() -> Result<&'static Workspace> {
    static THIS: Shared<Workspace> = Shared::new();
    THIS.get(Workspace::read)
}

/// One member of a workspace.
#[derive(Debug)]
pub struct Package {
    /// Name in the manifest.
    pub name: String,
    /// Folder of the manifest.
    pub folder: PathBuf,
    /// `true` if the package is a member of the root's workspace, and `false` if it runs on bare
    /// metal.
    pub hosted: bool,
    /// `true` if the package may be uploaded to a registry.
    pub published: bool,
    /// Dependencies of the package, of any kind and origin.
    pub dependencies: Vec<Dependency>,
    /// The targets that cargo builds.
    pub targets: Vec<Target>,
    metadata: Value,
}

/// A dependency of a package on another, of any kind.
#[derive(Debug)]
pub struct Dependency {
    /// Name of the package.
    pub name: String,
    /// `normal`, `dev` or `build`.
    pub kind: String,
    /// `true` if the package is in this checkout, and not from a registry.
    pub local: bool,
}

/// A library, program, example, test or benchmark of a package.
#[derive(Debug)]
pub struct Target {
    /// Name in the manifest, or of the file.
    pub name: String,
    /// `lib`, `bin`, `example`, `test`, `bench` or `custom-build`.
    pub kind: String,
    /// Root file.
    pub source: PathBuf,
}

impl Workspace {
    /// Queries cargo for the workspace.
    pub fn read() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .context("the harness is two folders below the workspace's root")?;
        let metadata = metadata(here)?;
        let mut packages = each(&metadata["packages"], |package| Package::read(package, true));
        for folder in BARE_METAL {
            let metadata = self::metadata(&here.join(folder))?;
            packages.extend(each(&metadata["packages"], |package| Package::read(package, false)));
        }
        Ok(Self {
            root: path(&metadata["workspace_root"]),
            target: path(&metadata["target_directory"]),
            packages,
        })
    }

    /// Returns the hand-written files with one of these extensions, in order.
    ///
    /// # Errors
    /// Fails if a folder cannot be listed.
    pub fn files(&self, extensions: &[&str]) -> Result<Vec<PathBuf>> {
        files_below(&self.root, extensions, is_foreign)
    }

    /// Returns the folders with a lock file: this workspace, and the workspaces of images, adopters
    /// and others.
    ///
    /// # Errors
    /// Fails if a folder cannot be listed.
    pub fn locked_folders(&self) -> Result<Vec<PathBuf>> {
        let files = self.files(&["lock"])?.into_iter();
        let locks = files.filter(|file| file.file_name().is_some_and(|name| name == "Cargo.lock"));
        Ok(locks.filter_map(|lock| Some(lock.parent()?.to_path_buf())).collect())
    }

    /// Returns a path relative to the root, for display.
    pub fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }
}

/// Returns the files below `folder` with one of these extensions, in order, except in folders that
/// `is_other` accepts.
fn files_below(
    folder: &Path,
    extensions: &[&str],
    is_other: fn(&Path) -> bool,
) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(next) = folders.pop() {
        for entry in next.read_dir().with_context(|| format!("cannot list {}", next.display()))? {
            let path = entry?.path();
            let is_wanted = |found| extensions.iter().any(|wanted| found == *wanted);
            if path.is_dir() {
                folders.extend((!is_other(&path)).then_some(path));
            } else if path.extension().is_some_and(is_wanted) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Returns `true` for a folder without prose or code of this project.
fn is_foreign(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || OTHER.contains(&&*name)
}

/// Returns `true` for the artifacts, and for a package that is nested in another one's folder.
fn is_nested(folder: &Path) -> bool {
    folder.ends_with("target") || folder.join("Cargo.toml").exists()
}

impl Package {
    fn read(package: &Value, hosted: bool) -> Self {
        let manifest = path(&package["manifest_path"]);
        Self {
            name: text(&package["name"]),
            folder: manifest.parent().map(Path::to_path_buf).unwrap_or_default(),
            hosted,
            published: package["publish"].is_null(),
            dependencies: each(&package["dependencies"], |dependency| Dependency {
                name: text(&dependency["name"]),
                kind: dependency["kind"].as_str().unwrap_or("normal").into(),
                local: dependency["path"].is_string(),
            }),
            targets: each(&package["targets"], |target| Target {
                name: text(&target["name"]),
                kind: text(&target["kind"][0]),
                source: path(&target["src_path"]),
            }),
            metadata: package.clone(),
        }
    }

    /// Returns a fake package of the root's workspace, for testing code that examines dependencies.
    pub fn fake(name: &str, dependencies: Vec<Dependency>) -> Self {
        let mut package = Self::read(&serde_json::json!({ "name": name }), true);
        package.dependencies = dependencies;
        package
    }

    /// Returns a field of the manifest, as resolved by cargo.
    pub fn field(&self, name: &str) -> &Value {
        &self.metadata[name]
    }

    /// Returns every Rust file in the package's folder, committed or not.
    pub fn rust_files(&self) -> Result<Vec<PathBuf>> {
        files_below(&self.folder, &["rs"], is_nested)
    }
}

/// Reads cargo's metadata of the workspace in this folder.
fn metadata(folder: &Path) -> Result<Value> {
    let mut cargo = process::cargo(folder);
    let text = process::capture(cargo.args(["metadata", "--format-version", "1", "--no-deps"]))?;
    serde_json::from_str(&text).map_err(Into::into)
}

fn each<T>(list: &Value, make: impl FnMut(&Value) -> T) -> Vec<T> {
    list.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(make).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().into()
}

fn path(value: &Value) -> PathBuf {
    PathBuf::from(text(value))
}
