//! Runs ArceOS, another project's kernel, as a guest with an NVMe disk: unmodified, and with
//! `gic-driver` (`adopters/arceos`).
//!
//! Unmodified, ArceOS boots on all vCPUs with its timer and its UART, but cannot use its disk. Its
//! ITS driver has bugs that QEMU's model tolerates and KVM's does not, and the hypervisor must
//! report each of them. ArceOS has no drivers for message-based SPIs and direct LPIs. With
//! `gic-driver`, the program reads and writes its disk on each of these controllers.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Ending, Fact, HypervisorFact};
use doorbell_harness::arceos::{self, Drivers};
use doorbell_harness::qemu::Version;
use doorbell_harness::temporary::Folder;
use doorbell_harness::{process, workspace};

use crate::board::{Board, LIMIT, MEMORY, MOVES};
use crate::built::TestCase;
use crate::controller::Controller::{self, DirectLpi, Its, Mbi};
use crate::files::Files;

/// The disk, whose driver requests all vectors.
const DISK: &str = "nvme,serial=1,drive=d0,msix_qsize=65";
/// Interval between moves, in milliseconds.
const MOVE_EVERY: u32 = 50;
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

/// A machine with a single guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    drivers: Drivers,
    controller: Controller,
    vcpus: u8,
    cpus: u8,
}

const fn stock(controller: Controller, vcpus: u8, cpus: u8) -> Case {
    Case { drivers: Drivers::Stock, controller, vcpus, cpus }
}

const fn ours(controller: Controller, vcpus: u8, cpus: u8) -> Case {
    Case { drivers: Drivers::Ours, controller, vcpus, cpus }
}

impl TestCase for Case {
    const ORDINARY: &'static [Self] = &[
        stock(Its, 1, 1),
        stock(Its, 4, 4),
        stock(Mbi, 1, 1),
        stock(DirectLpi, 1, 1),
        ours(Its, 1, 1),
        ours(Mbi, 1, 1),
        ours(DirectLpi, 1, 1),
    ];
    const LONG: &'static [Self] = &[
        stock(Its, 2, 2),
        stock(Its, 8, 2),
        stock(Mbi, 4, 4),
        stock(DirectLpi, 4, 4),
        ours(Its, 2, 2),
        ours(Its, 4, 4),
        ours(Its, 8, 2),
        ours(Mbi, 4, 4),
        ours(Mbi, 8, 2),
        ours(DirectLpi, 4, 4),
        ours(DirectLpi, 8, 2),
    ];

    fn name(self) -> String {
        let Self { drivers, controller, vcpus, cpus } = self;
        let kind = match drivers {
            Drivers::Stock => "unmodified",
            Drivers::Ours => "with gic-driver",
        };
        format!("ArceOS {kind} on {vcpus} vCPUs of {cpus} CPUs with {controller:?}, moved")
    }

    /// The limit must suffice on a busy machine.
    fn limit(self) -> Duration {
        match self.drivers {
            Drivers::Stock => LIMIT,
            Drivers::Ours => 4 * LIMIT,
        }
    }

    fn judge(self) -> Result<()> {
        let folder = Folder::new()?;
        let disk = folder.path().join("disk");
        let input = arceos::input();
        fs::write(&disk, arceos::disk(&input)).context("cannot write the disk")?;
        let mut qemu = self.command()?;
        let drive = format!("if=none,id=d0,format=raw,file={}", disk.display());
        let mut report = Report::default();
        process::watch(qemu.args(["-drive", &drive]), self.limit(), |line| report.line(line))
            .with_context(|| format!("ArceOS printed {:?}", report.said))?;
        eprintln!("{}: {:?}, {} moves", self.name(), report.said, report.moves);
        report.judge_end(self.vcpus)?;
        match (self.drivers, self.controller) {
            (Drivers::Stock, Its) => report.judge_faults(self.vcpus),
            (Drivers::Stock, _) => report.judge_no_driver(),
            (Drivers::Ours, controller) => {
                report.judge_program(&arceos::checksum_line(&input), &fs::read(disk)?)?;
                report.judge_moves(controller, self.vcpus)
            }
        }
    }
}

impl Case {
    fn command(self) -> Result<Command> {
        let image = &arceos::image(workspace::this()?, self.drivers)?.flat;
        let board = Board {
            vcpus: self.vcpus,
            cpus: self.cpus,
            controller: self.controller,
            devices: &[DISK.to_owned()],
            move_every: Some(MOVE_EVERY),
            ..Board::plain(Version::Stable, MEMORY)?
        };
        board.command(&[Files { kernel: image, initrd: None, append: "" }])
    }
}

/// The output of ArceOS, its program and the hypervisor.
#[derive(Debug, Default)]
struct Report {
    /// Number of CPUs that ArceOS found.
    cpus: Option<u8>,
    /// Lines of the program.
    said: Vec<String>,
    faults: Vec<String>,
    /// `true` if the hypervisor stated that a message was dropped.
    is_dropped: bool,
    /// `true` if ArceOS stated that its disk has no MSI controller.
    is_without_controller: bool,
    moves: u64,
    ending: Option<Ending>,
}

impl Report {
    fn line(&mut self, line: &str) {
        match Fact::parse(line) {
            Some(Fact::Hypervisor(HypervisorFact::Fault { fault, .. })) => {
                self.faults.push(fault.into());
            }
            Some(Fact::Hypervisor(HypervisorFact::Moved { times, grown: 0 })) => self.moves = times,
            Some(Fact::Hypervisor(HypervisorFact::Ended { how, .. })) => self.ending = Some(how),
            _ => {}
        }
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
        ensure!(self.ending == Some(Ending::Off), "the machine ended by {:?}", self.ending);
        ensure!(self.moves > 0, "the guest was not moved");
        Ok(())
    }

    /// Checks that the hypervisor named the reasons why the unmodified driver receives no messages.
    fn judge_faults(&self, vcpus: u8) -> Result<()> {
        let shared = (vcpus > 1).then_some(SHARED_TABLE);
        for reason in [TABLE].into_iter().chain(shared) {
            let is_named = self.faults.iter().any(|fault| fault.contains(reason));
            ensure!(is_named, "no fault states that {reason}: {:?}", self.faults);
        }
        ensure!(self.is_dropped, "no message was dropped");
        Ok(())
    }

    /// Checks that the disk could not be used because ArceOS has no driver for the controller, and
    /// that the guest made no mistake.
    fn judge_no_driver(&self) -> Result<()> {
        ensure!(self.is_without_controller, "ArceOS has an MSI controller for its disk");
        ensure!(self.said.is_empty(), "the program was started: {:?}", self.said);
        ensure!(!self.is_dropped && self.faults.is_empty(), "faults: {:?}", self.faults);
        Ok(())
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
        ensure!(!self.is_dropped && self.faults.is_empty(), "faults: {:?}", self.faults);
        ensure!(self.moves >= MOVES, "{} moves, not {MOVES}", self.moves);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOCK: [&str; 6] = [
        "smp = 2",
        r#"{"hypervisor":{"fault":{"guest":0,"fault":"the pending table overlaps"}}}"#,
        r#"{"hypervisor":{"fault":{"guest":0,"fault":"the command queue is not aligned"}}}"#,
        r#"{"hypervisor":{"fault":{"guest":0,"fault":"the ITS table is not aligned"}}}"#,
        "hypervisor: vector 0 of function 0x0008: the guest's controller dropped the message \
         (0x0 to 0x8090040)",
        r#"{"hypervisor":{"moved":{"times":12,"grown":0}}}"#,
    ];
    const OFF: &str = r#"{"hypervisor":{"ended":{"guest":0,"how":"off"}}}"#;
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
    fn each_mistake_must_be_named() {
        judged_stock(&STOCK).unwrap();
        // The second fault is that of the command queue.
        for missing in (0..STOCK.len()).filter(|line| *line != 2) {
            let mut lines = STOCK.to_vec();
            lines.remove(missing);
            assert!(judged_stock(&lines).is_err(), "without line {missing}");
        }
    }

    #[test]
    fn a_controller_without_driver_leaves_no_disk() {
        let good = [
            "smp = 2",
            "NVMe: MSI-X unavailable (PCI MSI provider interface is unavailable); using INTx",
            STOCK[5],
        ];
        let judged = |lines: &[&str]| {
            let report = report(lines);
            report.judge_end(2).and_then(|()| report.judge_no_driver())
        };
        judged(&good).unwrap();
        for missing in 0..good.len() {
            let mut lines = good.to_vec();
            lines.remove(missing);
            assert!(judged(&lines).is_err(), "without line {missing}");
        }
        for other in [STOCK[2], STOCK[4], "adopter: cpus 2"] {
            assert!(judged(&[&good[..], &[other]].concat()).is_err(), "{other}");
        }
    }

    #[test]
    fn only_direct_lpis_refuse_to_move() {
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
        let good = ["smp = 2", "adopter: rounds 10000 last Ok(())", "adopter: end", STOCK[5]];
        let judged = |lines: &[&str], disk: &str| {
            let report = report(lines);
            report.judge_end(2).and_then(|()| report.judge_program(WRITTEN, disk.as_bytes()))
        };
        judged(&good, "\0checksum 1\n").unwrap();
        assert!(judged(&good, "\0checksum 2\n").is_err());
        for missing in 0..good.len() {
            let mut lines = good.to_vec();
            lines.remove(missing);
            assert!(judged(&lines, WRITTEN).is_err(), "without line {missing}");
        }
        for fault in [STOCK[2], STOCK[4]] {
            assert!(judged(&[&good[..], &[fault]].concat(), WRITTEN).is_err(), "{fault}");
        }
    }
}
