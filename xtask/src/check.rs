//! Quick check during development: format and house lints, then clippy and the tests of the
//! packages that changed and of their direct dependents.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::process;
use crate::step::{self, Tally};
use crate::workspace::{BARE_METAL, Package, Workspace};
use crate::{lint, rust, suites, tests};
use doorbell_harness::toolchain;

/// Number of cases of each property; proptest's default is 256.
const PROPERTY_CASES: &str = "32";
/// Time in which a test program must finish at least one more test.
const LIMIT: Duration = Duration::from_mins(2);
/// Time limit of a build from scratch.
const BUILD_LIMIT: Duration = Duration::from_hours(1);
/// Time limit of the documentation tests of all packages.
const DOC_LIMIT: Duration = Duration::from_mins(5);

/// Options of a check.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// Check what changed since the common ancestor with this revision, committed or not
    #[arg(long, value_name = "REVISION", default_value = "main")]
    since: String,
}

/// Checks what changed, and prints the count.
pub(crate) fn run(workspace: &Workspace, wanted: &Wanted) -> Result<ExitCode> {
    let files = changed_files(&workspace.root, &wanted.since)?;
    let packages = concerned(workspace, &files);
    let mut rows = Vec::new();
    let mut step = |name, run: &dyn Fn(&mut Tally) -> Result<()>| {
        println!("── {name}");
        let (start, mut tally) = (Instant::now(), Tally::default());
        if let Err(error) = run(&mut tally) {
            tally.fail(format!("{error:#}"));
        }
        rows.push((name, tally, start.elapsed().as_secs_f32()));
    };
    step("format", &|tally| rust::check_format(workspace, tally));
    step("lint", &|tally| lint::run(workspace, tally));
    if packages.is_empty() {
        println!("no package of the workspace has changed since {}", wanted.since);
    } else {
        println!("── of {}", packages.iter().copied().collect::<Vec<_>>().join(", "));
        let chosen: Vec<_> = packages.iter().flat_map(|name| ["--package", name]).collect();
        step("clippy", &|tally| clippy(workspace, &chosen, tally));
        step("test", &|tally| run_programs(workspace, &chosen, tally));
        step("examples", &|tally| run_examples(workspace, &packages, tally));
    }
    Ok(step::summarize(&rows))
}

/// Returns the files that differ from the common ancestor with `since`, untracked ones included.
fn changed_files(root: &Path, since: &str) -> Result<Vec<PathBuf>> {
    let git = |arguments: &[&str]| {
        let mut git = process::command("git", root);
        process::capture(git.args(arguments))
    };
    let base = git(&["merge-base", since, "HEAD"])?;
    let tracked = git(&["diff", "--name-only", base.trim()])?;
    let untracked = git(&["ls-files", "--others", "--exclude-standard"])?;
    Ok(tracked.lines().chain(untracked.lines()).map(|line| root.join(line)).collect())
}

/// Returns the packages whose files changed, and their direct dependents. A change of the
/// workspace's manifest affects every package.
fn concerned<'a>(workspace: &'a Workspace, files: &[PathBuf]) -> BTreeSet<&'a str> {
    let bare_metal = BARE_METAL.map(|folder| workspace.root.join(folder));
    let is_hosted =
        |package: &&Package| !bare_metal.iter().any(|folder| package.folder.starts_with(folder));
    let members = || workspace.packages.iter().filter(is_hosted);
    let manifests = ["Cargo.toml", "Cargo.lock"].map(|name| workspace.root.join(name));
    if files.iter().any(|file| manifests.contains(file)) {
        return members().map(|package| &*package.name).collect();
    }
    let mut found = BTreeSet::new();
    let mut interfaces = BTreeSet::new();
    for file in files {
        let owner = members()
            .filter(|package| file.starts_with(&package.folder))
            .max_by_key(|package| package.folder.as_os_str().len());
        let Some(owner) = owner else { continue };
        found.insert(&*owner.name);
        if is_of_library(owner, file) {
            interfaces.insert(&*owner.name);
        }
    }
    let depends = |package: &&Package| {
        package.dependencies.iter().any(|other| other.local && interfaces.contains(&*other.name))
    };
    found.extend(members().filter(depends).map(|package| &*package.name));
    found
}

/// Returns true if a file can affect a package's dependents, unlike its tests, examples and
/// documents.
fn is_of_library(package: &Package, file: &Path) -> bool {
    file.starts_with(package.folder.join("src")) || file == package.folder.join("Cargo.toml")
}

fn clippy(workspace: &Workspace, chosen: &[&str], tally: &mut Tally) -> Result<()> {
    toolchain::need_component(&workspace.root, "clippy")?;
    let mut clippy = process::cargo(&workspace.root);
    clippy.arg("clippy").args(chosen).args(["--all-targets", "--all-features"]);
    tally.case("clippy", process::must(clippy.args(["--", "-D", "warnings"])));
    Ok(())
}

/// A test program, and the folder in which cargo would run it.
struct Program {
    file: PathBuf,
    folder: PathBuf,
}

fn run_programs(workspace: &Workspace, chosen: &[&str], tally: &mut Tally) -> Result<()> {
    let mut build = process::cargo(&workspace.root);
    build.arg("test").args(chosen).args(["--all-features", "--no-run"]);
    let mut programs = Vec::new();
    build.args(["--message-format", "json-render-diagnostics"]);
    let status = process::watch(&mut build, BUILD_LIMIT, |line| programs.extend(program(line)))?;
    ensure!(status.success(), "the tests do not compile");
    programs.iter().try_for_each(|program| run_program(program, tally))
}

/// Parses a line of cargo's output. Suites are left out: they take minutes each.
fn program(line: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(line).ok()?;
    let source = message["target"]["src_path"].as_str().unwrap_or_default();
    let is_suite = source.contains(suites::FOLDER);
    let is_test = message["profile"]["test"].as_bool()? && !is_suite;
    let file = message["executable"].as_str().filter(|_| is_test)?;
    let manifest = Path::new(message["manifest_path"].as_str()?);
    Some(Program { file: file.into(), folder: manifest.parent()?.into() })
}

/// Runs a program. If it hangs, names the tests that had not finished.
fn run_program(program: &Program, tally: &mut Tally) -> Result<()> {
    let name = program.file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let file = program.file.to_string_lossy();
    let mut unfinished = listed(program)?;
    let failures = tally.failures();
    let mut command = process::command(&file, &program.folder);
    command.env("PROPTEST_CASES", PROPERTY_CASES).env("CARGO_MANIFEST_DIR", &program.folder);
    let outcome = process::watch_each(&mut command, LIMIT, |line| {
        tests::count(line, tally);
        if let Some((test, verdict)) =
            line.strip_prefix("test ").and_then(|case| case.rsplit_once(" ... "))
        {
            unfinished.remove(test.trim_end());
            if !verdict.starts_with("ok") {
                println!("{name}: {line}");
            }
        } else if !line.starts_with("running ") && !line.is_empty() {
            println!("{line}");
        }
    });
    match outcome {
        Ok(status) if status.success() || tally.failures() > failures => {}
        Ok(status) => tally.fail(format!("{name} ended with {status}")),
        Err(error) => {
            let unfinished = unfinished.into_iter().collect::<Vec<_>>().join(", ");
            tally.fail(format!("{name}: {error:#}; not ended: {unfinished}"));
        }
    }
    Ok(())
}

/// Returns the names of a program's tests.
fn listed(program: &Program) -> Result<BTreeSet<String>> {
    let mut command = process::command(&program.file.to_string_lossy(), &program.folder);
    let list = process::capture(command.args(["--list", "--format", "terse"]))?;
    Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(Into::into).collect())
}

/// Runs the examples in the documentation of the libraries among the packages.
fn run_examples(workspace: &Workspace, packages: &BTreeSet<&str>, tally: &mut Tally) -> Result<()> {
    let is_library = |package: &&Package| {
        packages.contains(&*package.name)
            && package.targets.iter().any(|target| target.kind == "lib")
    };
    let libraries = workspace.packages.iter().filter(is_library);
    let chosen: Vec<_> = libraries.flat_map(|package| ["--package", &*package.name]).collect();
    if chosen.is_empty() {
        return Ok(());
    }
    let failures = tally.failures();
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["test", "--doc", "--all-features", "--quiet"]).args(chosen);
    let status = process::watch(&mut cargo, DOC_LIMIT, |line| {
        tests::count(line, tally);
        if !line.starts_with("running ") && !line.is_empty() {
            println!("{line}");
        }
    })?;
    if !status.success() && tally.failures() == failures {
        tally.fail("an example of the documentation");
    }
    Ok(())
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, uses: &[&str]) -> Package {
        let local =
            |name: &&str| Dependency { name: (*name).into(), kind: "dev".into(), local: true };
        let mut package = Package::fake(name, uses.iter().map(local).collect());
        package.folder = Path::new("/doorbell/crates").join(name);
        package
    }

    fn concerned_by(file: &str) -> Vec<String> {
        let root = PathBuf::from("/doorbell");
        let mut image = package("image", &["vgic"]);
        image.folder = root.join("images/image");
        let packages = vec![
            package("gic-arch", &[]),
            package("vgic", &["gic-arch"]),
            package("vgic-kvm", &["vgic"]),
            image,
        ];
        let workspace = Workspace { target: root.join("target"), root, packages };
        let files = [workspace.root.join(file)];
        concerned(&workspace, &files).into_iter().map(Into::into).collect()
    }

    #[test]
    fn a_library_concerns_its_direct_dependents() {
        assert_eq!(concerned_by("crates/gic-arch/src/gicd.rs"), ["gic-arch", "vgic"]);
        assert_eq!(concerned_by("crates/vgic/Cargo.toml"), ["vgic", "vgic-kvm"]);
    }

    #[test]
    fn tests_concern_their_package_alone() {
        assert_eq!(concerned_by("crates/vgic/tests/guest/main.rs"), ["vgic"]);
    }

    #[test]
    fn a_manifest_of_the_workspace_concerns_all() {
        assert_eq!(concerned_by("Cargo.lock"), ["gic-arch", "vgic", "vgic-kvm"]);
    }

    #[test]
    fn files_outside_of_the_packages_concern_none() {
        assert!(concerned_by("docs/hierarchy.md").is_empty());
        assert!(concerned_by("images/image/src/main.rs").is_empty());
    }

    #[test]
    fn programs_are_read_from_what_cargo_says() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/d/vgic/Cargo.toml",
            "profile":{"test":true},"executable":"/d/target/debug/deps/vgic-1"}"#;
        let found = program(&line.replace('\n', "")).unwrap();
        assert_eq!(found.folder, Path::new("/d/vgic"));
        assert!(program(&line.replace('\n', "").replace("true", "false")).is_none());
        assert!(program("   Compiling vgic").is_none());
        let suite =
            r#"{"profile":{"test":true},"target":{"src_path":"/d/proof/suites/tests/a.rs"},"#;
        assert!(program(&line.replace('\n', "").replacen('{', suite, 1)).is_none());
    }
}
