//! Runs ArceOS, another project's kernel, as a guest with an NVMe disk: unmodified, and with
//! `gic-driver` (`adopters/arceos`).
//!
//! Unmodified, ArceOS boots on all vCPUs with its timer and its UART, but cannot use its disk. Its
//! ITS driver has bugs that QEMU's model tolerates and KVM's does not, and the hypervisor must
//! report each of them. ArceOS has no drivers for message-based SPIs and direct LPIs. With
//! `gic-driver`, the program reads and writes its disk on each of these controllers.

use std::fs;

use anyhow::{Context, Result, ensure};
use doorbell_harness::arceos::{self, Drivers};
use doorbell_harness::temporary::Folder;
use doorbell_harness::workspace;

use crate::board::Controller::{self, DirectLpi, Its, Mbi};
use crate::board::{LIMIT, MEMORY, MOVES};
use crate::foreign::{Kernel, KernelCase};
use crate::output::Output;

/// The disk, whose driver requests all vectors.
const DISK: &str = "nvme,serial=1,drive=d0,msix_qsize=65";
/// Line that the program prints after it has allocated and freed a vector 10,000 times without a
/// failure.
const ROUNDS: &str = "rounds 10000 last Ok(())";
/// Part of a fault of the unmodified ITS driver: the alignment of its collection table. The fault
/// of its command queue is not required: a saved `GITS_CBASER` has zeros in bits 15:12, so the
/// fault is lost if the guest is moved between the write and the enable of the ITS.
const TABLE: &str = "the ITS table is not aligned";
/// Likewise, on several vCPUs: all redistributors have the same pending table.
const SHARED_TABLE: &str = "the pending table overlaps";
/// Message of the unmodified disk driver if no driver has registered an MSI controller for the node
/// that the disk's messages are routed to.
const NO_CONTROLLER: &str = "MSI-X unavailable (PCI MSI provider interface is unavailable)";
/// Message of the hypervisor.
const DROPPED: &str = "the guest's controller dropped the message (";
/// Prefix of each line of the program.
const SAID: &str = "adopter: ";

pub(crate) const STOCK: Kernel = Kernel {
    name: "ArceOS unmodified",
    image: || Ok(&arceos::image(workspace::this()?, Drivers::Stock)?.flat),
    memory: MEMORY,
    devices: &[DISK],
    limit: LIMIT,
    machines: &[(Its, 1, 1), (Its, 4, 4), (Mbi, 1, 1), (DirectLpi, 1, 1)],
    long_machines: &[(Its, 2, 2), (Its, 8, 2), (Mbi, 4, 4), (DirectLpi, 4, 4)],
    judge: |case| {
        let (output, _) = run(case)?;
        match case.controller {
            Its => judge_faults(&output, case.vcpus),
            _ => judge_no_driver(&output),
        }
    },
};
pub(crate) const OURS: Kernel = Kernel {
    name: "ArceOS with gic-driver",
    image: || Ok(&arceos::image(workspace::this()?, Drivers::Ours)?.flat),
    limit: LIMIT.saturating_mul(4),
    machines: &[(Its, 1, 1), (Mbi, 1, 1), (DirectLpi, 1, 1)],
    long_machines: &[
        (Its, 2, 2),
        (Its, 4, 4),
        (Its, 8, 2),
        (Mbi, 4, 4),
        (Mbi, 8, 2),
        (DirectLpi, 4, 4),
        (DirectLpi, 8, 2),
    ],
    judge: |case| {
        let (output, disk) = run(case)?;
        judge_program(&output, &arceos::checksum_line(&arceos::input()), &disk)?;
        judge_moves(&output, case.controller, case.vcpus)
    },
    ..STOCK
};

/// Runs ArceOS, and returns its output and the contents of its disk.
fn run(case: KernelCase) -> Result<(Output, Vec<u8>)> {
    let folder = Folder::new()?;
    let disk = folder.path().join("disk");
    fs::write(&disk, arceos::disk(&arceos::input())).context("cannot write the disk")?;
    let mut qemu = case.command()?;
    let drive = format!("if=none,id=d0,format=raw,file={}", disk.display());
    let output = Output::within(qemu.args(["-drive", &drive]), case.kernel.limit)?;
    eprintln!("{}: {:?}, {} moves", case.name(), said(&output), output.moves());
    judge_end(&output, case.vcpus)?;
    Ok((output, fs::read(disk)?))
}

/// Returns the lines of the program.
fn said(output: &Output) -> Vec<&str> {
    output.lines.iter().filter_map(|line| Some(line.split_once(SAID)?.1)).collect()
}

/// Checks that ArceOS found its CPUs and turned its machine off.
fn judge_end(output: &Output, vcpus: u8) -> Result<()> {
    let cpus = output.after("smp = ")?;
    ensure!(cpus.parse() == Ok(vcpus), "ArceOS found {cpus} CPUs");
    output.judge(1)
}

/// Checks that the hypervisor named the reasons why the unmodified driver receives no messages.
fn judge_faults(output: &Output, vcpus: u8) -> Result<()> {
    let (faults, shared) = (output.faults(), (vcpus > 1).then_some(SHARED_TABLE));
    for reason in [TABLE].into_iter().chain(shared) {
        let is_named = faults.iter().any(|fault| fault.contains(reason));
        ensure!(is_named, "no fault states that {reason}: {faults:?}");
    }
    ensure!(output.contains(DROPPED), "no message was dropped");
    Ok(())
}

/// Checks that the disk could not be used because ArceOS has no driver for the controller, and that
/// the guest made no mistake.
fn judge_no_driver(output: &Output) -> Result<()> {
    ensure!(output.contains(NO_CONTROLLER), "ArceOS has an MSI controller for its disk");
    let said = said(output);
    ensure!(said.is_empty(), "the program was started: {said:?}");
    judge_no_mistake(output)
}

fn judge_no_mistake(output: &Output) -> Result<()> {
    ensure!(!output.contains(DROPPED), "a message was dropped");
    output.judge_faults()
}

/// Checks that the disk's vectors moved to each CPU, except where the message selects the CPU, and
/// that the program's own messages reached the CPU that each was requested for.
fn judge_moves(output: &Output, controller: Controller, vcpus: u8) -> Result<()> {
    let refused = output.after("refused ")?;
    let is_refused = controller == DirectLpi && vcpus > 1;
    ensure!((refused != "0") == is_refused, "{refused} moves were refused");
    let taken_by = output.after("messages to each CPU taken by ")?;
    let expected: Vec<_> = (0..vcpus).map(Some).collect();
    ensure!(taken_by == format!("{expected:?}"), "the messages were taken by {taken_by}");
    Ok(())
}

/// Checks that the program read the disk and wrote `written` to it, and that the guest made no
/// mistake.
fn judge_program(output: &Output, written: &str, disk: &[u8]) -> Result<()> {
    for line in [ROUNDS, "end"] {
        ensure!(said(output).contains(&line), "the program printed no `{line}`");
    }
    let is_written = disk.windows(written.len()).any(|bytes| bytes == written.as_bytes());
    ensure!(is_written, "the disk does not contain `{}`", written.trim_end());
    judge_no_mistake(output)?;
    output.judge(MOVES)
}
