//! Images, QEMUs and the folder of a run. Cases share them, and the first that needs one makes it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use doorbell_harness::dtb::Tools;
use doorbell_harness::image::Image;
use doorbell_harness::qemu::{self, Version};
use doorbell_harness::suite::{Case, OrAbsent, Shared};
use doorbell_harness::workspace;

/// Time limit of a case in addition to that of its machine: it may build images and fetch packages,
/// or wait for a case that does.
const BUILD: Duration = Duration::from_mins(20);

/// A case whose machine runs at most so long.
pub(crate) fn case(
    name: impl Into<String>,
    limit: Duration,
    run: impl FnOnce() -> Result<()> + Send + 'static,
) -> Case {
    Case::new(name, BUILD + limit, run)
}

/// The hypervisor.
pub(crate) fn hypervisor() -> Result<&'static Image> {
    static IMAGE: Shared<Image> = Shared::new();
    IMAGE.get(|| Image::build(workspace::this()?, "hypervisor", "hypervisor"))
}

/// A guest of this package, for a guest's RAM at `address`.
pub(crate) fn guest(package: &str, address: u64) -> Result<Image> {
    Image::build_at(workspace::this()?, package, package, address)
}

/// One of Debian's QEMUs.
pub(crate) fn tools(version: Version) -> Result<&'static Tools> {
    static TOOLS: [Shared<Tools>; 2] = [const { Shared::new() }; 2];
    let place = &TOOLS[usize::from(version == Version::Backports)];
    place.get(|| qemu::fetch(workspace::this()?, version).or_absent("QEMU"))
}

/// The folder of the runs' disks and sockets.
pub(crate) fn folder() -> Result<PathBuf> {
    let folder = workspace::this()?.target.join("hypervisor");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
