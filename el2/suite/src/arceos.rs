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
use doorbell_harness::{process, suite, workspace};

use crate::board::{LIMIT, MEMORY, MOVES};
use crate::controller::Controller::{self, DirectLpi, Its, Mbi};
use crate::foreign::{self, Case, Kernel};
use crate::outcome::Outcome;

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

static STOCK: Kernel = Kernel {
    name: "ArceOS unmodified",
    image: || Ok(&arceos::image(workspace::this()?, Drivers::Stock)?.flat),
    memory: MEMORY,
    device: Some(DISK),
    limit: LIMIT,
    ends_after: None,
    stays_alone: false,
    judge: |case| {
        let (report, _) = run(case)?;
        match case.controller {
            Its => report.judge_faults(case.vcpus),
            _ => report.judge_no_driver(),
        }
    },
};
static OURS: Kernel = Kernel {
    name: "ArceOS with gic-driver",
    image: || Ok(&arceos::image(workspace::this()?, Drivers::Ours)?.flat),
    memory: MEMORY,
    device: Some(DISK),
    limit: LIMIT.saturating_mul(4),
    ends_after: None,
    stays_alone: false,
    judge: |case| {
        let (report, disk) = run(case)?;
        report.judge_program(&arceos::checksum_line(&arceos::input()), &disk)?;
        report.judge_moves(case.controller, case.vcpus)
    },
};

/// Lists the ordinary cases.
pub(crate) fn cases() -> Vec<suite::Case> {
    let stock = [(Its, 1, 1), (Its, 4, 4), (Mbi, 1, 1), (DirectLpi, 1, 1)];
    let ours = foreign::cases(&OURS, &[Its, Mbi, DirectLpi].map(|it| (it, 1, 1)));
    foreign::cases(&STOCK, &stock).into_iter().chain(ours).collect()
}

/// Lists the cases that take longer.
pub(crate) fn long_cases() -> Vec<suite::Case> {
    let stock = [(Its, 2, 2), (Its, 8, 2), (Mbi, 4, 4), (DirectLpi, 4, 4)];
    let several = [Its, Mbi, DirectLpi].map(|it| [(it, 4, 4), (it, 8, 2)]);
    let ours = foreign::cases(&OURS, &[&[(Its, 2, 2)], several.as_flattened()].concat());
    foreign::cases(&STOCK, &stock).into_iter().chain(ours).collect()
}

/// Runs ArceOS, and returns its report and the contents of its disk.
fn run(case: Case) -> Result<(Report, Vec<u8>)> {
    let folder = Folder::new()?;
    let disk = folder.path().join("disk");
    fs::write(&disk, arceos::disk(&arceos::input())).context("cannot write the disk")?;
    let mut qemu = case.command()?;
    let drive = format!("if=none,id=d0,format=raw,file={}", disk.display());
    let mut report = Report::default();
    process::watch(qemu.args(["-drive", &drive]), case.kernel.limit, |line| report.line(line))
        .with_context(|| format!("ArceOS printed {:?}", report.said))?;
    eprintln!("{}: {:?}, {} moves", case.name(), report.said, report.outcome.moves);
    report.judge_end(case.vcpus)?;
    Ok((report, fs::read(disk)?))
}

/// The output of ArceOS, its program and the hypervisor.
#[derive(Debug, Default)]
struct Report {
    /// Number of CPUs that ArceOS found.
    cpus: Option<u8>,
    /// Lines of the program.
    said: Vec<String>,
    /// `true` if the hypervisor stated that a message was dropped.
    is_dropped: bool,
    /// `true` if ArceOS stated that its disk has no MSI controller.
    is_without_controller: bool,
    outcome: Outcome,
}

impl Report {
    fn line(&mut self, line: &str) {
        self.outcome.line(line);
        let line = line.trim_end();
        if let Some(number) = line.strip_prefix("smp = ") {
            self.cpus = number.parse().ok();
        }
        if let Some((_, said)) = line.split_once("adopter: ") {
            self.said.push(said.into());
        }
        self.is_dropped |= line.contains("the guest's controller dropped the message (");
        self.is_without_controller |= line.contains(NO_CONTROLLER);
    }

    /// Checks that ArceOS found its CPUs and turned its machine off.
    fn judge_end(&self, vcpus: u8) -> Result<()> {
        ensure!(self.cpus == Some(vcpus), "ArceOS found {:?} CPUs", self.cpus);
        self.outcome.judge(1)
    }

    /// Checks that the hypervisor named the reasons why the unmodified driver receives no messages.
    fn judge_faults(&self, vcpus: u8) -> Result<()> {
        let shared = (vcpus > 1).then_some(SHARED_TABLE);
        for reason in [TABLE].into_iter().chain(shared) {
            let faults = &self.outcome.faults;
            let is_named = faults.iter().any(|fault| fault.contains(reason));
            ensure!(is_named, "no fault states that {reason}: {faults:?}");
        }
        ensure!(self.is_dropped, "no message was dropped");
        Ok(())
    }

    /// Checks that the disk could not be used because ArceOS has no driver for the controller, and
    /// that the guest made no mistake.
    fn judge_no_driver(&self) -> Result<()> {
        ensure!(self.is_without_controller, "ArceOS has an MSI controller for its disk");
        ensure!(self.said.is_empty(), "the program was started: {:?}", self.said);
        ensure!(!self.is_dropped, "a message was dropped");
        self.outcome.judge_faults()
    }

    /// Checks that the disk's vectors moved to each CPU, except where the message selects the CPU,
    /// and that the program's own messages reached the CPU that each was requested for.
    fn judge_moves(&self, controller: Controller, vcpus: u8) -> Result<()> {
        let refused = self.word_after("refused ")?;
        let is_refused = controller == DirectLpi && vcpus > 1;
        ensure!((refused != "0") == is_refused, "{refused} moves were refused");
        let taken_by = self.word_after("messages to each CPU taken by ")?;
        let expected: Vec<_> = (0..vcpus).map(Some).collect();
        ensure!(taken_by == format!("{expected:?}"), "the messages were taken by {taken_by}");
        Ok(())
    }

    /// Returns the text after `name` in the program's line that contains it.
    fn word_after(&self, name: &str) -> Result<&str> {
        let word = self.said.iter().find_map(|line| Some(line.split_once(name)?.1));
        word.with_context(|| format!("the program did not print `{name}`"))
    }

    /// Checks that the program read the disk and wrote `written` to it, and that the guest made no
    /// mistake.
    fn judge_program(&self, written: &str, disk: &[u8]) -> Result<()> {
        for line in [ROUNDS, "end"] {
            ensure!(self.said.iter().any(|said| said == line), "the program printed no `{line}`");
        }
        let is_written = disk.windows(written.len()).any(|bytes| bytes == written.as_bytes());
        ensure!(is_written, "the disk does not contain `{}`", written.trim_end());
        ensure!(!self.is_dropped, "a message was dropped");
        self.outcome.judge_faults()?;
        self.outcome.judge(MOVES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::tests::{MOVED, OFF, needs_each};

    const STOCK: [&str; 5] = [
        "smp = 2",
        r#"{"hypervisor":{"fault":{"guest":0,"fault":"the pending table overlaps"}}}"#,
        r#"{"hypervisor":{"fault":{"guest":0,"fault":"the ITS table is not aligned"}}}"#,
        "hypervisor: vector 0 of function 0x0008: the guest's controller dropped the message \
         (0x0 to 0x8090040)",
        MOVED,
    ];
    const QUEUE: &str =
        r#"{"hypervisor":{"fault":{"guest":0,"fault":"the command queue is not aligned"}}}"#;
    const WRITTEN: &str = "checksum 1\n";

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::default();
        lines.iter().chain(&[OFF]).for_each(|line| report.line(line));
        report
    }

    fn judged_stock(lines: &[&str]) -> Result<()> {
        let report = report(lines);
        report.judge_end(2).and_then(|()| report.judge_faults(2))
    }

    #[test]
    fn a_stock_report_missing_a_required_line_fails() {
        needs_each(&STOCK, judged_stock);
        judged_stock(&[&STOCK[..], &[QUEUE]].concat()).unwrap();
    }

    #[test]
    fn a_guest_without_an_msi_driver_must_fall_back_to_intx() {
        let good = [
            "smp = 2",
            "NVMe: MSI-X unavailable (PCI MSI provider interface is unavailable); using INTx",
            MOVED,
        ];
        let judged = |lines: &[&str]| {
            let report = report(lines);
            report.judge_end(2).and_then(|()| report.judge_no_driver())
        };
        needs_each(&good, judged);
        for other in [QUEUE, STOCK[3], "adopter: cpus 2"] {
            assert!(judged(&[&good[..], &[other]].concat()).is_err(), "{other}");
        }
    }

    #[test]
    fn refused_moves_pass_only_with_direct_lpis() {
        let judged = |controller, refused, taken_by| {
            let moves = format!("adopter: written moves 4 refused {refused}");
            let messages = format!("adopter: messages to each CPU taken by {taken_by}");
            report(&[&moves, &messages]).judge_moves(controller, 2)
        };
        const EACH: &str = "[Some(0), Some(1)]";
        judged(Mbi, 0, EACH).unwrap();
        judged(DirectLpi, 2, EACH).unwrap();
        for (controller, refused, taken_by) in
            [(Mbi, 2, EACH), (DirectLpi, 0, EACH), (Mbi, 0, "[Some(0), Some(0)]"), (Its, 0, "[]")]
        {
            assert!(judged(controller, refused, taken_by).is_err(), "{controller:?} {refused}");
        }
        assert!(report(&[]).judge_moves(Its, 2).is_err());
    }

    #[test]
    fn the_program_must_complete_without_faults() {
        let good = ["smp = 2", "adopter: rounds 10000 last Ok(())", "adopter: end", MOVED];
        let judged = |lines: &[&str], disk: &str| {
            let report = report(lines);
            report.judge_end(2).and_then(|()| report.judge_program(WRITTEN, disk.as_bytes()))
        };
        needs_each(&good, |lines| judged(lines, "\0checksum 1\n"));
        assert!(judged(&good, "\0checksum 2\n").is_err());
        for fault in [QUEUE, STOCK[3]] {
            assert!(judged(&[&good[..], &[fault]].concat(), WRITTEN).is_err(), "{fault}");
        }
    }
}
