//! Runs Debian's kernel as a guest on QEMU's model of the i.MX 8M Plus's evaluation kit, whose
//! firmware, memory map, console and CPUs differ from those of `virt`. No device of the board sends
//! messages to a guest.
//!
//! QEMU 10.0.2 has the board, but does not connect the GIC's outputs for virtual interrupts to the
//! CPUs (its `hw/arm/fsl-imx8mp.c`), so that a guest waits forever. QEMU 10.0.3 does.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use doorbell_harness::apt::Suite;
use doorbell_harness::dtb::{Tools, Tree};
use doorbell_harness::qemu;
use doorbell_harness::suite::{Case, OrAbsent};
use doorbell_harness::{process, workspace};

use crate::board::MOVES;
use crate::built;
use crate::debian::{self, Guest};
use crate::files::{Start, escaped};
use crate::linux::{LIMIT_OF_TWO, WORDS, listen};
use crate::traffic::Expected;

/// Memory of the machine and of all its guests, in MiB.
const MACHINE: u32 = 1024;
const MEMORY: u32 = MACHINE - 256;
/// The board always has four CPUs, of which QEMU's devicetree describes all.
const CPUS: u8 = 4;

/// Lists the ordinary case.
pub(crate) fn cases() -> Vec<Case> {
    vec![case((1, 4))]
}

/// Lists the cases that take longer.
pub(crate) fn long_cases() -> Vec<Case> {
    [(1, 1), (1, 8), (2, 2)].map(case).into()
}

/// Returns the case of these numbers of guests and of their vCPUs.
fn case((guests, vcpus): (u8, u8)) -> Case {
    let name = format!("an i.MX 8M Plus: {guests} guests of {vcpus} vCPUs on {CPUS} CPUs, moved");
    built::case(name, LIMIT_OF_TWO, move || {
        let qemu = command(guests, vcpus, debian::guest(Suite::Backports)?)?;
        let reports = listen(qemu, LIMIT_OF_TWO, guests.into(), |_| ())?;
        let cpus = vcpus.into();
        reports.judge(&Expected { cpus, moves: MOVES, ..Expected::default() })
    })
}

/// Returns the command that runs the hypervisor with the guests' files, to which the devicetree
/// refers as QEMU's guest loader would: the loader itself changes only devicetrees that QEMU
/// writes.
fn command(guests: u8, vcpus: u8, guest: &Guest) -> Result<Command> {
    let blob = built::folder()?.join(format!("imx8mp-{guests}-{vcpus}.dtb"));
    let original = Tree::Backports.fetched(workspace::this()?)?;
    fs::copy(original.join("freescale/imx8mp-evk.dtb"), &blob)?;
    let tools = qemu::fetch_unstable(workspace::this()?).or_absent("the newest QEMU")?;
    let mut qemu = tools.command(qemu::PROGRAM);
    // The console is the second UART.
    qemu.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "null"]);
    qemu.args(["-serial", "stdio", "-M", "imx8mp-evk", "-smp", &CPUS.to_string()]);
    qemu.args(["-m", &format!("{MACHINE}M"), "-dtb"]).arg(&blob);
    qemu.arg("-kernel").arg(&built::hypervisor()?.flat);
    qemu.args(["-append", &format!("vcpus={vcpus} moves=50")]);
    // A guest that runs alone has the board's console. Of two, the first ends last.
    let console = if guests == 1 { "ttymxc0" } else { "ttyAMA0" };
    for others in 0..guests {
        let waits = if guests > 1 && others == 0 { " waits" } else { "" };
        let append = format!("console={console} quiet panic=-1 {WORDS}{waits}");
        let memory = MEMORY / u32::from(guests);
        let files = guest.files(&append).places(memory, others.into(), Start::Kernel)?;
        for (kind, address, file) in files {
            let node = format!("/chosen/module@{address:x}");
            put(&blob, &["-c"], &[&node])?;
            put(&blob, &["-ts"], &[&node, "compatible", &format!("multiboot,{kind}")])?;
            put(&blob, &["-ts"], &[&node, "bootargs", &append])?;
            let bytes = format!("{:x}", fs::metadata(file)?.len());
            put(&blob, &["-tx"], &[&node, "reg", "0", &format!("{address:x}"), "0", &bytes])?;
            let file = escaped(&file.to_string_lossy());
            qemu.args(["-device", &format!("loader,file={file},addr={address:#x},force-raw=on")]);
        }
    }
    Ok(qemu)
}

/// Changes a devicetree.
fn put(blob: &Path, options: &[&str], values: &[&str]) -> Result<()> {
    let mut put = Tools::of(workspace::this()?).command("fdtput");
    process::must(put.args(options).arg(blob).args(values))
}
