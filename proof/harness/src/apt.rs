//! Uses Debian packages without installing them. The cache holds a private package index; packages
//! are downloaded through it and unpacked side by side, as an ordinary user.

mod mirrors;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

pub use self::mirrors::Suite;
use self::mirrors::{ReleaseSources, SID};
use crate::workspace::Workspace;
use crate::{cache, process};

/// Name prefixes of packages that are unpacked even if they are installed. Otherwise, apt would
/// refuse the requested version if the machine has a different version of one of these packages.
const UNPACKED: &[&str] =
    &["qemu", "seabios", "device-tree-compiler", "acpica", "chromium", "poppler", "valgrind"];

/// Path of the program that [`Apt::unpack_busybox`] unpacks.
pub const BUSYBOX: &str = "bin/busybox";

/// A private package index.
#[derive(Debug)]
pub struct Apt {
    folder: PathBuf,
    sources: ReleaseSources,
}

impl Apt {
    /// Reads the mirrors configured on this machine, and fetches their index into `folder`.
    fn update(folder: &Path) -> Result<Self> {
        Self::update_any(folder, |sources| {
            let choices: [&[Suite]; 2] = [&[Suite::Stable, Suite::Backports], &[Suite::Stable]];
            choices.map(|suites| sources.render(suites)).into()
        })
    }

    /// Fetches the index of a release, such as `trixie`, into a folder of `cache`. `sid` is the
    /// unstable suite.
    pub fn update_release(cache: &Path, release: &str) -> Result<Self> {
        let folder = cache.join(format!("apt-{release}"));
        Self::update_any(&folder, |sources| vec![sources.render_release(release)])
    }

    /// Fetches the index for the first of these source files that the mirror offers, once per
    /// process. Fetching it again would disturb another thread's use of it.
    fn update_any(
        folder: &Path,
        choices: impl FnOnce(&ReleaseSources) -> Vec<String>,
    ) -> Result<Self> {
        ensure!(process::exists("apt-get"), "apt-get is not installed on this machine");
        let apt =
            Self { folder: folder.to_path_buf(), sources: ReleaseSources::of_this_machine()? };
        static FETCHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
        let mut fetched = FETCHED.lock().unwrap_or_else(PoisonError::into_inner);
        if fetched.contains(&apt.folder) {
            return Ok(apt);
        }
        for part in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("apt.conf"), apt.configuration())?;
        let installed = fs::read_to_string("/var/lib/dpkg/status")?;
        fs::write(folder.join("status"), without(&installed, UNPACKED))?;
        for sources in choices(&apt.sources) {
            fs::write(folder.join("doorbell.sources"), sources)?;
            if process::capture(&mut apt.command("apt-get", &["-qq", "update"])).is_ok() {
                fetched.push(apt.folder.clone());
                return Ok(apt);
            }
        }
        bail!("the Debian mirror {} does not answer", apt.sources.mirror())
    }

    /// Returns the index that has a suite's packages, in a folder of the cache.
    pub(crate) fn of(workspace: &Workspace, suite: Suite) -> Result<Self> {
        let cache = cache::folder(workspace);
        match suite {
            Suite::Unstable => Self::update_release(&cache, SID),
            Suite::Stable | Suite::Backports => Self::update(&cache.join("apt")),
        }
    }

    /// Returns the newest version of `package` in `suite`.
    pub fn newest(&self, package: &str, suite: Suite) -> Result<String> {
        let table = process::capture(&mut self.command("apt-cache", &["madison", package]))?;
        let rows = table.lines().map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        let mut rows = rows.filter(|row| row.len() == 3 && self.sources.suite_of(row[2]) == suite);
        rows.next()
            .map(|row| row[1].to_owned())
            .with_context(|| format!("{suite:?} has no package {package}"))
    }

    /// Returns the package that version `version` of the metapackage `package` refers to.
    fn stands_for(&self, package: &str, version: &str) -> Result<String> {
        let wanted = format!("{package}={version}");
        let first = self.dependencies(&wanted)?.into_iter().next();
        first.with_context(|| format!("{wanted} has no dependencies"))
    }

    /// Returns the packages that `package` depends on; alternatives are omitted.
    pub fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let text = process::capture(&mut self.command("apt-cache", &["depends", package]))?;
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// Downloads `package`, without its dependencies, into `to`.
    pub fn download(&self, package: &str, to: &Path) -> Result<()> {
        println!("downloading {package}");
        let mut apt = self.command("apt-get", &["-qq", "download", package]);
        process::capture(apt.current_dir(to)).map(drop)
    }

    /// Downloads `packages`, even those that are installed, along with any dependencies that aren't
    /// installed, and unpacks all of them into `to`.
    pub fn unpack_with_needs(&self, packages: &[&str], suite: Suite, to: &Path) -> Result<()> {
        println!("downloading {} and dependencies", packages.join(", "));
        let archives = to.join("archives");
        fs::create_dir_all(archives.join("partial"))?;
        let mut apt =
            self.command("apt-get", &["-qq", "-y", "--download-only", "--no-install-recommends"]);
        apt.arg("-o").arg(format!("Dir::Cache::archives={}", archives.display()));
        apt.arg("-t").arg(self.sources.name_of(suite)).args(["install", "--reinstall"]);
        apt.arg("--allow-downgrades").args(packages);
        process::capture(&mut apt)?;
        for package in packages_in(&archives)? {
            process::capture(process::command("dpkg-deb", to).arg("-x").arg(&package).arg(to))?;
        }
        fs::remove_dir_all(archives).map_err(Into::into)
    }

    /// Unpacks a user space that consists of a single program, for a Debian architecture, into
    /// `to`.
    pub fn unpack_busybox(&self, architecture: &str, to: &Path) -> Result<()> {
        self.unpack(&format!("busybox-static:{architecture}"), &[&format!("./{BUSYBOX}")], to)
    }

    /// Downloads `package`, without its dependencies, and unpacks the files that match one of
    /// `patterns` into `to`. Every pattern must have a match. Without patterns, unpacks all files.
    pub fn unpack(&self, package: &str, patterns: &[&str], to: &Path) -> Result<()> {
        self.download(package, to)?;
        let archive = packages_in(to)?.pop();
        let archive = archive.with_context(|| format!("{package} was not downloaded"))?;
        if patterns.is_empty() {
            process::capture(process::command("dpkg-deb", to).arg("-x").arg(&archive).arg(to))?;
        } else {
            unpack_matching(&archive, patterns, to)?;
        }
        fs::remove_file(archive).map_err(Into::into)
    }

    /// Returns the newest kernel package that `metapackage` refers to in `suite`.
    pub(crate) fn kernel(&self, metapackage: &str, suite: Suite) -> Result<String> {
        self.stands_for(metapackage, &self.newest(metapackage, suite)?)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = process::command(program, &self.folder);
        command.args(arguments).env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    fn configuration(&self) -> String {
        let folder = self.folder.display();
        format!(
            r#"Dir::State::Lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
Dir::Etc::sourcelist "{folder}/doorbell.sources";
Dir::Etc::sourceparts "-";
APT::Architectures {{ "{}"; "arm64"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
APT::Update::Error-Mode "any";
Acquire::Retries "2";
Debug::NoLocking "1";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"#,
            debian_architecture()
        )
    }
}

/// Returns the folder of this name in the cache, which `unpack` fills with packages of a suite
/// unless an earlier call has done so.
pub fn cached(
    workspace: &Workspace,
    suite: Suite,
    name: &str,
    unpack: impl FnOnce(&Apt, &Path) -> Result<()>,
) -> Result<PathBuf> {
    let folder = cache::folder(workspace).join(name);
    if !cache::is_filled(&folder) {
        let apt = Apt::of(workspace, suite)?;
        cache::fill(&folder, || unpack(&apt, &folder))?;
    }
    Ok(folder)
}

/// Returns the folder of this name in the cache with packages of a suite and their dependencies.
pub fn cached_with_needs(
    workspace: &Workspace,
    suite: Suite,
    name: &str,
    packages: &[&str],
) -> Result<PathBuf> {
    cached(workspace, suite, name, |apt, folder| apt.unpack_with_needs(packages, suite, folder))
}

/// Unpacks the files of `package` that match one of `patterns` into `to`. Every pattern must have a
/// match.
pub fn unpack_matching(package: &Path, patterns: &[&str], to: &Path) -> Result<()> {
    let mut archive = process::command("dpkg-deb", to);
    let mut archive = archive.arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn()?;
    let stream = archive.stdout.take().context("dpkg-deb has no output")?;
    let mut tar = process::command("tar", to);
    process::capture(tar.args(["-x", "--wildcards"]).args(patterns).stdin(stream))?;
    ensure!(archive.wait()?.success(), "dpkg-deb cannot read {}", package.display());
    Ok(())
}

/// Returns the package files in `folder`.
pub fn packages_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let paths = folder
        .read_dir()?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect())
}

/// Removes packages from the machine's list of installed packages if their names start with one of
/// `names`.
fn without(status: &str, names: &[&str]) -> String {
    let name = |package: &str| {
        package.trim_start().strip_prefix("Package: ").unwrap_or_default().to_owned()
    };
    let kept = status
        .split("\n\n")
        .filter(|package| !names.iter().any(|begin| name(package).starts_with(begin)));
    kept.collect::<Vec<_>>().join("\n\n")
}

/// Returns Debian's name for the architecture that this program was built for.
fn debian_architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_status_omits_an_installed_qemu() {
        let status = "Package: a\nVersion: 1\n\nPackage: qemu-utils\nVersion: 10\n\nPackage: z\n";
        let kept = without(status, UNPACKED);
        assert!(kept.contains("Package: a\nVersion: 1\n\n") && kept.contains("Package: z"));
        assert!(!kept.contains("qemu"));
    }
}
