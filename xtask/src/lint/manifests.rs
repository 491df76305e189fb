//! Checks each manifest for the fields that publishing and machine-readable licenses require.

use doorbell_harness::workspace::{Package, Workspace};

/// The license of every package, as an SPDX expression.
const LICENSE: &str = "MIT OR Apache-2.0";
/// The full texts of the licenses, in the root folder.
const LICENSE_FILES: &[&str] = &["LICENSE-MIT", "LICENSE-APACHE"];
/// Fields that a registry shows for a published package.
const PUBLISHED_FIELDS: &[&str] = &["repository", "keywords", "categories", "readme"];

/// Returns missing or deviating fields and files.
pub(crate) fn check(workspace: &Workspace) -> Vec<String> {
    let version = workspace.packages.first().map(|package| package.field("version"));
    let absent = LICENSE_FILES.iter().filter(|file| !workspace.root.join(file).exists());
    let mut findings: Vec<_> = absent.map(|file| format!("{file}: missing")).collect();
    findings.extend(workspace.packages.iter().flat_map(lacks));
    let others =
        workspace.packages.iter().filter(|package| Some(package.field("version")) != version);
    findings.extend(
        others.map(|package| format!("{}: `version` is not the workspace's", package.name)),
    );
    findings
}

fn lacks(package: &Package) -> Vec<String> {
    let mut findings = Vec::new();
    let mut wish = |met: bool, what: &str| {
        if !met {
            findings.push(format!("{}: {what}", package.name));
        }
    };
    wish(package.field("license") == LICENSE, "`license` is not the workspace's");
    wish(package.field("description").is_string(), "no `description`");
    wish(package.field("rust_version").is_string(), "no `rust-version`");
    for field in PUBLISHED_FIELDS.iter().filter(|_| package.published) {
        let value = package.field(field);
        let given = value.is_string() || value.as_array().is_some_and(|list| !list.is_empty());
        wish(given, &format!("published, but no `{field}`"));
    }
    if package.published {
        for file in LICENSE_FILES {
            wish(package.folder.join(file).exists(), &format!("published, but no {file}"));
        }
        let docs = &package.field("metadata")["docs"]["rs"]["all-features"];
        wish(docs == true, "published, but its documentation lacks features");
    }
    findings
}
