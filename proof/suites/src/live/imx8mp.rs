//! Debian's kernel on QEMU's i.MX 8M Plus, whose host bridge has an MSI controller of its own.

use std::fs;

use anyhow::{Context, Result};
use doorbell_harness::qemu::PROGRAM;
use doorbell_harness::{hang, process, workspace};

use super::console::{Console, Expected};
use super::guest::{Guest, run};
use crate::fetched;
use crate::qemu::imx8mp::{self, VERSION};

const HOST: &str = "/soc@0/pcie@33800000";
const MACHINE: &[&str] = &[
    "-nodefaults",
    "-display",
    "none",
    "-no-reboot",
    "-M",
    "imx8mp-evk",
    "-smp",
    "4",
    "-m",
    "1G",
    // The console is the second UART.
    "-serial",
    "null",
    "-serial",
    "stdio",
    "-device",
    "nvme,drive=d0,serial=1,bus=dw-pcie,addr=0.0,multifunction=on",
    "-device",
    "virtio-rng-pci,disable-legacy=on,bus=dw-pcie,addr=0.1",
];
/// By default, the kernel waits ten seconds for devices that QEMU does not have.
const COMMAND_LINE: &str =
    "console=ttymxc1,115200 loglevel=1 panic=-1 fw_devlink=permissive explained=0000:01:00.0";
const EXPECTED: Expected = Expected {
    faults: &[],
    differences: &[],
    line: "firmware: requester 0x0100: /soc@0/pcie@33800000",
    silent: false,
};

/// Compares the command's output with Linux's interrupts.
pub(crate) fn judge() -> Result<()> {
    let guest = Guest::get(VERSION)?;
    let blob = guest.folder.join("imx8mp.dtb");
    fs::copy(imx8mp::devicetree(workspace::this()?)?, &blob)?;
    let put = |options: &[&str]| {
        let mut put = fetched::compiler()?.command("fdtput");
        run(put.args(options.first()).arg(&blob).args(options.get(1..).unwrap_or_default()))
    };
    // The kernel has no driver for the interconnect, and QEMU's bridge passes the functions'
    // accesses to memory only if the window is in the devicetree.
    put(&["-d", "/soc@0/bus@32c00000/blk-ctrl@32f10000", "interconnects"])?;
    let window = "42000000 0 40000000 40000000 0 40000000";
    let window = ["-tx", HOST, "dma-ranges"].into_iter().chain(window.split(' '));
    put(&window.collect::<Vec<_>>())?;

    let mut qemu = fetched::qemu(VERSION)?.command(PROGRAM);
    qemu.args(MACHINE).arg("-drive");
    let disk = guest.folder.join("disk");
    qemu.arg(format!("if=none,id=d0,format=raw,readonly=on,file={}", disk.display()));
    qemu.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.initramfs);
    qemu.arg("-dtb").arg(blob).args(["-append", COMMAND_LINE]);
    let mut console = Console::default();
    process::watch(&mut qemu, hang::RUN, |line| console.line(line))
        .with_context(|| format!("the last line is `{}`", console.last))?;
    console.judge(None, &EXPECTED)
}
