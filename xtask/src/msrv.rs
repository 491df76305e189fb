//! The oldest compiler that each package states, tried on its archive alone.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::package::{Archives, published};
use crate::process;
use crate::step::Tally;
use crate::workspace::{Package, Workspace};

/// Checks every package with the compiler that it states; a compiler that is absent is skipped by
/// its name.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let archives = Archives::make(workspace)?;
    let versions: BTreeSet<_> = published(workspace).map(rust_version).collect();
    for version in versions {
        let toolchain = match need_toolchain(workspace, version) {
            Ok(toolchain) => toolchain,
            Err(absent) => {
                tally.skip(format!("Rust {version}: {absent:#}"));
                continue;
            }
        };
        for package in published(workspace).filter(|package| rust_version(package) == version) {
            let mut cargo = archives.cargo(Some(&toolchain));
            cargo.args(["check", "--quiet", "--package", &package.name, "--all-features"]);
            tally.case(&format!("{} by Rust {version}", package.name), process::must(&mut cargo));
        }
    }
    Ok(())
}

fn rust_version(package: &Package) -> &str {
    package.field("rust_version").as_str().unwrap_or_default()
}

/// The toolchain of that version; rustup adds it where there is none.
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
