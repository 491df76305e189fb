//! Checks the packages as published to a registry. A package must build from its archive alone,
//! and also for machines without an operating system, with each single feature.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, Result};

pub(crate) use doorbell_harness::archives::{Archives, published};

use crate::lint;
use crate::tally::Tally;
use doorbell_harness::parallel::on_each_cpu;
use doorbell_harness::process;
use doorbell_harness::toolchain::{BARE_TARGET, need_target};
use doorbell_harness::workspace::{Package, Workspace};

/// Packages, with their features that need an operating system.
const HOSTED: &[(&str, &[&str])] = &[
    ("hyperv-vpci", &["std", "vm-memory"]),
    ("irq-routing", &["std", "kvm", "rust-vmm"]),
    ("vgic", &["std", "vm-memory"]),
    ("vgic-kvm", &["std"]),
    ("vgic-monitor", &["std", "kvm", "rust-vmm", "vm-memory"]),
];

/// One build of a package, with a set of its features.
#[derive(Debug, PartialEq, Eq)]
struct Build {
    package: String,
    features: Vec<String>,
    bare: bool,
}

/// Checks each archive with each set of features, one case per combination, and its tests and
/// examples, then runs cargo's own verification.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let archives = Archives::make(workspace)?;
    tally.pass(1);
    let bare = need_target(&workspace.root, BARE_TARGET);
    if let Err(absent) = &bare {
        tally.skip(format!("the archives for {BARE_TARGET}: {absent:#}"));
    }
    let builds = published(workspace).flat_map(builds);
    let builds = builds.filter(|build| bare.is_ok() || !build.bare);
    let groups: [Vec<_>; 2] = builds.partition(|build| build.bare).into();
    // Each group has its own artifacts, so that neither waits for the other's cargo.
    let outcomes = on_each_cpu(&groups, |_, group| {
        group.iter().map(|build| (build.name(), build.check(&archives))).collect::<Vec<_>>()
    });
    outcomes.into_iter().flatten().for_each(|(name, outcome)| tally.case(&name, outcome));
    for package in published(workspace) {
        let mut cargo = archives.cargo(None);
        // Unit tests of the command's packages read documents of the repository.
        let is_library = lint::is_library(&package.name);
        let targets = if is_library { "--all-targets" } else { "--examples" };
        cargo.args(["check", "--quiet", "--all-features", targets, "--package"]);
        let name = format!("the tests and examples of {}", package.name);
        tally.case(&name, process::must(cargo.arg(&package.name)));
    }
    forget_earlier_archives(workspace)?;
    // Nor does cargo compile an archive again if it knows its name and version.
    let artifacts = workspace.target.join("verified");
    if artifacts.exists() {
        fs::remove_dir_all(&artifacts)?;
    }
    let mut cargo = process::cargo(&workspace.root);
    let packages = published(workspace).flat_map(|package| ["--package", &package.name]);
    cargo.args(["package", "--allow-dirty", "--target-dir"]).arg(&artifacts);
    process::must(cargo.args(packages))?;
    tally.pass(1);
    Ok(())
}

/// Removes the packages that earlier runs of `cargo package` unpacked in cargo's home. Cargo does
/// not unpack an archive again if it knows its name and version, and would verify the old sources.
fn forget_earlier_archives(workspace: &Workspace) -> Result<()> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let Some(home) = home.or_else(|| Some(env::home_dir()?.join(".cargo"))) else { return Ok(()) };
    let Ok(registries) = fs::read_dir(home.join("registry/src")) else { return Ok(()) };
    for registry in registries {
        let registry = registry?;
        // The name of a local registry has no host before its hash.
        if !registry.file_name().as_encoded_bytes().starts_with(b"-") {
            continue;
        }
        for package in published(workspace) {
            let version = package.field("version").as_str().unwrap_or_default();
            let unpacked = registry.path().join(format!("{}-{version}", package.name));
            if unpacked.exists() {
                fs::remove_dir_all(unpacked)?;
            }
        }
    }
    Ok(())
}

/// Checks that the version permits the changes of interfaces since the last release, then rehearses
/// the publication of all packages, in the order of their dependencies.
pub(crate) fn rehearse(workspace: &Workspace) -> Result<ExitCode> {
    check_semver(workspace)?;
    let mut cargo = process::cargo(&workspace.root);
    process::must(cargo.args(["publish", "--workspace", "--dry-run"]))?;
    Ok(ExitCode::SUCCESS)
}

/// Compares the libraries with those of the last release's tag.
fn check_semver(workspace: &Workspace) -> Result<()> {
    let git = |arguments: &[&str]| {
        let mut git = process::command("git", &workspace.root);
        process::capture(git.args(arguments))
    };
    let tags = git(&["tag", "--list", "v*", "--sort=-version:refname"])?;
    let Some(tag) = tags.lines().next() else {
        println!("no tag of a release: interfaces are not compared");
        return Ok(());
    };
    // cargo-semver-checks fails for a package that is not in the baseline.
    let released = |package: &&Package| {
        let manifest = package.folder.join("Cargo.toml");
        let file = format!("{tag}:{}", workspace.relative(&manifest).display());
        lint::is_library(&package.name) && git(&["cat-file", "-e", &file]).is_ok()
    };
    let packages = published(workspace).filter(released);
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["semver-checks", "--baseline-rev", tag]);
    cargo.args(packages.flat_map(|package| ["--package", &package.name]));
    process::must(&mut cargo).context(
        "an interface changed more than the version permits, or cargo-semver-checks is not \
         installed (`cargo install --locked cargo-semver-checks`)",
    )
}

/// Returns the builds of a package, for a machine without an operating system if possible: without
/// features, with each feature alone, with the default ones and with all.
fn builds(package: &Package) -> Vec<Build> {
    let (names, default) = features(package);
    let mut wanted = vec![Vec::new()];
    wanted.extend(names.iter().map(|name| vec![name.clone()]));
    wanted.push(default);
    wanted.push(names);
    wanted.dedup();
    let bare = lint::is_library(&package.name);
    let hosted = HOSTED.iter().find(|(name, _)| *name == package.name).map_or(&[][..], |row| row.1);
    let mut builds = Vec::new();
    for features in wanted {
        let needs_system = features.iter().any(|feature| hosted.contains(&feature.as_str()));
        builds.push(Build { package: package.name.clone(), features, bare: bare && !needs_system });
    }
    builds
}

/// Returns the names of a package's features, and the names of the default features.
fn features(package: &Package) -> (Vec<String>, Vec<String>) {
    let table = package.field("features").as_object();
    let names = table.into_iter().flat_map(|table| table.keys());
    let names = names.filter(|name| *name != "default").cloned().collect();
    let default = package.field("features")["default"].as_array().into_iter().flatten();
    (names, default.filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

impl Build {
    fn check(&self, archives: &Archives) -> Result<()> {
        let mut cargo = archives.cargo(None);
        cargo.env("RUSTFLAGS", "-D warnings");
        cargo.args(["check", "--quiet", "--package", &self.package, "--no-default-features"]);
        cargo.args(["--features", &self.features.join(",")]);
        if self.bare {
            cargo.args(["--lib", "--target", BARE_TARGET, "--target-dir"]);
            cargo.arg(archives.folder.with_file_name("bare"));
        }
        process::must(&mut cargo)
    }

    fn name(&self) -> String {
        let features =
            if self.features.is_empty() { "none".into() } else { self.features.join("+") };
        let machine = if self.bare { BARE_TARGET } else { "the host" };
        format!("{} with features {features} for {machine}", self.package)
    }
}
