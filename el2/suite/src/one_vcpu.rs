//! Runs `el2/one-vcpu`, the example of `el2-cpu`, with `el2/newcomer` as its guest.

use anyhow::{Result, ensure};
use doorbell_harness::image::Image;
use doorbell_harness::qemu::{self, Version};
use doorbell_harness::suite::Case;
use doorbell_harness::workspace;

use crate::board::{COUNTED, GICV3, LIMIT, SURROUNDINGS};
use crate::built;
use crate::output::Output;

/// Lines of the guest and of its hypervisor. Each tick of the guest causes an exit, and so does
/// each SGI. The other exits are writes to GIC frames.
const EXPECTED: [&str; 2] = [
    "newcomer: 1000 timer interrupts, 1000 SGIs, 0 others",
    "one-vcpu: the guest ended by HVC after 2006 exits",
];

/// Returns the case.
pub(crate) fn case() -> Case {
    built::case("a guest ticks on the example of el2-cpu", LIMIT, run)
}

fn run() -> Result<()> {
    let build = |name| Image::build(workspace::this()?, name, name);
    let (hypervisor, guest) = (build("one-vcpu")?, build("newcomer")?);
    let mut qemu = built::tools(Version::Stable)?.command(qemu::PROGRAM);
    qemu.args(GICV3.arguments()).args(SURROUNDINGS).args(COUNTED).args(["-m", "320M"]);
    qemu.arg("-kernel").arg(&hypervisor.flat);
    let loader = format!("loader,addr=0x50080000,force-raw=on,file={}", guest.flat.display());
    qemu.args(["-device", &loader]);
    let printed = Output::of(&mut qemu)?.lines;
    ensure!(printed == EXPECTED, "{printed:?}");
    Ok(())
}
