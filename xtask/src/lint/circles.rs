//! Finds files or modules in a package that use each other, directly or through others, so that
//! neither can be understood without the other.

use anyhow::Result;

use doorbell_harness::modules;
use doorbell_harness::workspace::{Package, Workspace};

/// Returns the circular dependencies between files and between modules.
pub(crate) fn check(_: &Workspace, package: &Package) -> Result<Vec<String>> {
    let shown =
        |circle: Vec<String>| format!("{}: {} use each other", package.name, circle.join(", "));
    Ok(modules::circles(package)?.into_iter().map(shown).collect())
}
