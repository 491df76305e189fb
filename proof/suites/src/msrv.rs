//! Checks that each package's archive compiles with the oldest compiler that the package claims to
//! support.

use anyhow::Result;
use doorbell_harness::archives::{Archives, published};
use doorbell_harness::process;
use doorbell_harness::suite::{Case, OrAbsent, Shared};
use doorbell_harness::workspace::{self, Package, Workspace};

/// Returns a case for each package.
pub(crate) fn cases() -> Result<Vec<Case>> {
    let workspace = workspace::this()?;
    let packages = published(workspace);
    let case = |package: &'static Package| {
        let name = format!("{} by Rust {}", package.name, rust_version(package));
        Case::of(name, || check(workspace, package))
    };
    Ok(packages.map(case).collect())
}

fn check(workspace: &Workspace, package: &Package) -> Result<()> {
    static ARCHIVES: Shared<Archives> = Shared::new();
    let archives = ARCHIVES.get(|| Archives::make(workspace))?;
    let version = rust_version(package);
    let toolchain = need_toolchain(workspace, version).or_absent(&format!("Rust {version}"))?;
    let mut cargo = archives.cargo(Some(&toolchain));
    cargo.args(["check", "--quiet", "--package", &package.name, "--all-features"]);
    process::must(&mut cargo)
}

fn rust_version(package: &Package) -> &str {
    package.field("rust_version").as_str().unwrap_or_default()
}

/// Returns the toolchain of this version, and lets rustup add it if it is missing.
fn need_toolchain(workspace: &Workspace, version: &str) -> Result<String> {
    let mut installed = process::command("rustup", &workspace.root);
    let installed = process::capture(installed.args(["toolchain", "list"]))?;
    let (name, patched) = (format!("{version}-"), format!("{version}."));
    let mut toolchains = installed.lines().filter_map(|line| line.split_whitespace().next());
    if let Some(found) =
        toolchains.find(|line| line.starts_with(&name) || line.starts_with(&patched))
    {
        return Ok(found.to_owned());
    }
    let mut install = process::command("rustup", &workspace.root);
    process::must(install.args(["toolchain", "install", version, "--profile", "minimal"]))?;
    Ok(version.to_owned())
}
