//! QEMUs shared by several cases. The first case that needs one unpacks it.

use std::time::Duration;

use anyhow::Result;
use doorbell_harness::dtb::Tools;
use doorbell_harness::qemu::{self, Version};
use doorbell_harness::suite::{OrAbsent, Shared};
use doorbell_harness::workspace;

/// Time for a case to build programs and fetch packages, or to wait for a case that does.
pub const PREPARATION: Duration = Duration::from_mins(20);

/// Returns one of Debian's QEMUs.
pub fn qemu(version: Version) -> Result<&'static Tools> {
    static STABLE: Shared<Tools> = Shared::new();
    static BACKPORTS: Shared<Tools> = Shared::new();
    let shared = match version {
        Version::Stable => &STABLE,
        Version::Backports => &BACKPORTS,
    };
    shared.get(|| qemu::fetch(workspace::this()?, version).or_absent("QEMU"))
}
