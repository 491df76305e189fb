//! Checks that libraries re-export the project's libraries whose types appear in their signatures.
//! Users then need only one dependency, and the versions of the types match.

use super::layers;
use anyhow::{Context as _, Result};
use doorbell_harness::workspace::{Package, Workspace};

/// Libraries whose types do not appear in the signatures of others.
const INTERNAL: &[&str] = &["doorbell-fallible"];

/// Returns dependencies that a library's root does not re-export.
pub(crate) fn check(workspace: &Workspace, package: &Package) -> Result<Vec<String>> {
    if !layers::is_library(&package.name) {
        return Ok(Vec::new());
    }
    let root = package.folder.join("src/lib.rs");
    let text = std::fs::read_to_string(&root)
        .with_context(|| format!("cannot read {}", root.display()))?;
    let place = workspace.relative(&root).display();
    let hidden = hidden(package, &text).map(|name| {
        format!("{place}: no `pub use {name};`, although its types appear in signatures")
    });
    Ok(hidden.collect())
}

/// Returns the dependencies, by their names in code, that this root does not re-export.
fn hidden<'a>(package: &'a Package, root: &str) -> impl Iterator<Item = String> + use<'a> {
    let exported: Vec<_> = root.lines().filter_map(|line| line.strip_prefix("pub use ")).collect();
    let exported = exported.concat();
    let names = package.dependencies.iter().filter(|dependency| {
        let name = dependency.name.as_str();
        dependency.kind == "normal" && layers::is_library(name) && !INTERNAL.contains(&name)
    });
    names
        .map(|dependency| dependency.name.replace('-', "_"))
        .filter(move |name| !exported.split(['{', '}', ',', ';', ' ']).any(|part| part == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use doorbell_harness::workspace::Dependency;

    fn found(kind: &str, name: &str, root: &str) -> Vec<String> {
        let dependency = Dependency { name: name.into(), kind: kind.into(), local: true };
        hidden(&Package::fake("vgic", vec![dependency]), root).collect()
    }

    #[test]
    fn a_library_in_signatures_must_be_reexported() {
        assert_eq!(found("normal", "gic-arch", "use gic_arch::IntId;\n"), ["gic_arch"]);
        assert_eq!(found("normal", "gic-arch", "pub use gic_arch::IntId;\n"), ["gic_arch"]);
        assert_eq!(found("normal", "gic-arch", "pub use gic_arch;\n"), [""; 0]);
        assert_eq!(found("normal", "gic-arch", "pub use {gic_arch, msi_types};\n"), [""; 0]);
    }
}
