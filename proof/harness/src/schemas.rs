//! Devicetree schemas of the Linux kernel, from the Debian package of its documentation. The
//! package is a quarter of the size of the kernel's source, and only the schemas are kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::{Apt, Suite};
use crate::workspace::Workspace;
use crate::{cache, process};

/// The schema of GICv3 nodes.
pub const GIC_V3: &str = "interrupt-controller/arm,gic-v3.yaml";
/// Schemas that are fetched.
const SCHEMAS: [&str; 2] = [GIC_V3, "interrupt-controller/msi-controller.yaml"];
/// Folder of the schemas in the kernel's source.
pub const FOLDER: &str = "Documentation/devicetree/bindings";
/// The metapackage of the kernel's documentation.
const PACKAGE: &str = "linux-doc";

/// Schemas in the cache.
#[derive(Debug)]
pub struct Schemas {
    /// Folder whose subfolders are those of [`FOLDER`].
    pub folder: PathBuf,
    /// Name of the package, which includes the kernel's version.
    pub package: String,
}

/// Fetches the schemas of Debian's current kernel, unless the cache has schemas.
pub fn fetch(workspace: &Workspace) -> Result<Schemas> {
    let root = cache::folder(workspace).join("linux-schemas");
    let note = root.join("package");
    cache::fill(&root, || {
        let apt = Apt::of(workspace, Suite::Unstable)?;
        let package = apt.kernel(PACKAGE, Suite::Unstable)?;
        fs::write(&note, &package)?;
        unpack(&apt, &package, &root)
    })?;
    Ok(Schemas { folder: root.join("schemas"), package: fs::read_to_string(note)? })
}

/// Unpacks the schemas of `package` into `root`.
fn unpack(apt: &Apt, package: &str, root: &Path) -> Result<()> {
    let pattern = |schema| format!("./usr/share/doc/{PACKAGE}-*/{FOLDER}/{schema}.gz");
    let patterns = SCHEMAS.map(pattern);
    apt.unpack(package, &patterns.each_ref().map(String::as_str), root)?;
    for compressed in cache::files_below(&root.join("usr"))? {
        process::capture(process::command("gzip", root).arg("-d").arg(&compressed))?;
    }
    for schema in cache::files_below(&root.join("usr"))? {
        let path = SCHEMAS.iter().find(|path| schema.ends_with(path));
        let to = root.join("schemas").join(path.context("an unknown schema was unpacked")?);
        fs::create_dir_all(to.parent().unwrap_or(root))?;
        fs::rename(&schema, to)?;
    }
    fs::remove_dir_all(root.join("usr")).map_err(Into::into)
}
