//! Images, QEMU versions and the work folder. Cases share these; the first case that needs an image
//! or a QEMU version creates it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use doorbell_harness::dtb::Tools;
use doorbell_harness::image::Image;
use doorbell_harness::qemu::{self, Version};
use doorbell_harness::suite::{Case, OrAbsent, Shared};
use doorbell_harness::workspace;

/// Time that a case may take in addition to the time limit of its machine. A case may build images
/// and fetch packages, or wait for another case to do it.
const BUILD: Duration = Duration::from_mins(20);

/// Returns a case whose machine runs at most for `limit`.
pub(crate) fn case(
    name: impl Into<String>,
    limit: Duration,
    run: impl FnOnce() -> Result<()> + Send + 'static,
) -> Case {
    Case::new(name, BUILD + limit, run)
}

/// Returns the hypervisor's image.
pub(crate) fn hypervisor() -> Result<&'static Image> {
    static IMAGE: Shared<Image> = Shared::new();
    IMAGE.get(|| Image::build(workspace::this()?, "hypervisor", "hypervisor"))
}

/// Returns the image of a guest package, linked for guest RAM at `address`.
pub(crate) fn guest(package: &str, address: u64) -> Result<Image> {
    Image::build_at(workspace::this()?, package, package, address)
}

/// Returns one of Debian's versions of QEMU.
pub(crate) fn tools(version: Version) -> Result<&'static Tools> {
    static TOOLS: [Shared<Tools>; 2] = [const { Shared::new() }; 2];
    let place = &TOOLS[usize::from(version == Version::Backports)];
    place.get(|| qemu::fetch(workspace::this()?, version).or_absent("QEMU"))
}

/// Returns the folder for the disks and sockets of runs.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder = workspace::this()?.target.join("hypervisor");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Returns a name that is suitable for a file.
pub(crate) fn slug(name: &str) -> String {
    name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-").to_lowercase()
}

/// Returns the file for QEMU's log of a run with this name.
pub(crate) fn log_of(name: &str) -> Result<PathBuf> {
    Ok(folder()?.join(format!("sent-{}", slug(name))))
}
