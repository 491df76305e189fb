//! Parses the reports that guests write to their console.

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Ending, Fact, HypervisorFact, LinuxFact};

use crate::board::Controller;
use crate::output::Output;
use crate::traffic::{Expected, Known, Load, Reads, Report, Sent};

/// Text that each guest reads from its UART, which signals it by interrupts.
pub(crate) const TYPED: &str = "by interrupt";

/// The reports of the guests of one machine.
#[derive(Debug)]
pub(crate) struct Reports {
    pub(crate) output: Output,
    guests: Vec<Report>,
}

/// Returns `true` if a guest waits for input, and each guest waits that has not ended. Considers
/// only the facts since the last input.
pub(crate) fn all_listen(output: &Output, guests: usize, since: usize) -> bool {
    let listens = |guest| {
        let listens = Fact::from(LinuxFact::Listens {});
        output.facts[since..].iter().any(|(number, fact)| *number == guest && *fact == listens)
    };
    let waits = |guest| listens(guest) || output.ending(guest).is_some();
    (0..guests).any(listens) && (0..guests).all(waits)
}

impl Reports {
    pub(crate) fn of(output: Output, guests: usize) -> Self {
        let guests = (0..guests).map(|guest| Report::of(&output, guest)).collect();
        Self { output, guests }
    }

    /// Returns the lines about PCI's memory in the first guest's log.
    pub(crate) fn pci_memory(&self) -> &[String] {
        &self.guests[0].pci_memory
    }

    /// Checks that every guest's report is as expected. If there are several guests, the first must
    /// have waited until the others ended.
    pub(crate) fn judge(&self, expected: &Expected<'_>) -> Result<()> {
        for (number, guest) in self.guests.iter().enumerate() {
            guest.judge(expected).with_context(|| format!("guest {number}"))?;
        }
        let [_, heard] = &self.guests[0].heard;
        ensure!(self.guests.len() == 1 || heard == TYPED, "again it heard `{heard}`");
        let moves = self.output.moves();
        ensure!(moves >= expected.moves, "{moves} moves, not {}", expected.moves);
        let Load::Traffic(reads) = expected.load else { return Ok(()) };
        // The hypervisor does not count messages that are injected directly.
        let direct = |fact: &HypervisorFact| matches!(fact, HypervisorFact::Direct { .. });
        if self.output.hypervisor().any(direct) {
            return self.judge_traffic(expected, reads, None);
        }
        let has_lpis = expected.controller.has_lpis() && !expected.has_lines;
        let taken = self.output.taken(if has_lpis { "LPI" } else { "SPI" });
        let taken = taken.context("no count of interrupts")?;
        self.judge_traffic(expected, reads, Some(taken))
    }

    /// Checks the traffic of the only guest, or of a kernel that runs without the hypervisor.
    pub(crate) fn judge_traffic(
        &self,
        expected: &Expected<'_>,
        reads: Reads<'_>,
        taken: Option<u64>,
    ) -> Result<()> {
        let (report, sent) = (&self.guests[0], &Sent::read(reads.log)?);
        Known { report, sent, expected, reads, taken }.judge()
    }
}

/// Name of the interrupt that corresponds to the entropy source's MSIs.
const DEVICE: &str = "virtio0-input";

/// Exit status with which a shell reports that an external abort ended a program: 128 plus the
/// number of SIGBUS.
const BUS_ERROR: u32 = 135;
/// Minimum number of timer interrupts during one second of work; a vCPU whose timer fires only once
/// takes fewer.
const FEWEST_TICKS: u64 = 20;

impl Report {
    fn of(output: &Output, number: usize) -> Self {
        let mut report = Self::default();
        for (guest, fact) in &output.facts {
            if let Fact::Linux(fact) = fact
                && *guest == number
            {
                report.fact(fact);
            }
        }
        report.ending = output.ending(number);
        report
    }

    /// Checks that each vCPU was online with its timer, went offline and came back, that the UART's
    /// interrupts arrived, that an absent device ended only the program that accessed it, that
    /// present devices sent their MSIs, and that the guest reset its machine after traffic.
    fn judge(&self, expected: &Expected<'_>) -> Result<()> {
        let Expected { cpus, controller, load, .. } = *expected;
        let complaints = &self.complaints;
        ensure!(complaints.is_empty(), "{}", complaints.join("; "));
        let ending = match load {
            Load::Traffic { .. } => Ending::Reset,
            Load::None | Load::Random { .. } => Ending::Off,
        };
        ensure!(self.ending == Some(ending), "it ended by {:?}", self.ending);
        let ([before, after], [heard, _]) = (self.cpus, &self.heard);
        ensure!(before == cpus, "it has {before} vCPUs");
        ensure!(after == cpus, "{after} vCPUs after hotplug");
        ensure!(heard == TYPED, "it heard `{heard}`");
        ensure!(self.absent_device == BUS_ERROR, "an absent device: {}", self.absent_device);
        let ticks = self.counts("arch_timer");
        ensure!(ticks.len() == cpus, "{} columns of timer interrupts", ticks.len());
        ensure!(ticks.iter().all(|ticks| *ticks >= FEWEST_TICKS), "timer interrupts: {ticks:?}");
        ensure!(self.of_uart() > 0, "no UART interrupt");
        ensure!(cpus == 1 || self.ipis() > 0, "no IPI");
        self.judge_controller(controller)?;
        match load {
            Load::None => {
                let messages = self.counts(DEVICE);
                ensure!(messages.is_empty(), "messages without a controller: {messages:?}");
                Ok(())
            }
            Load::Random { reads } => self.judge_messages(cpus, reads),
            Load::Traffic { .. } => Ok(()),
        }
    }

    /// Checks that the kernel found this controller and no other.
    fn judge_controller(&self, controller: Controller) -> Result<()> {
        let all = [Controller::Its, Controller::Mbi, Controller::V2m];
        for mark in all.iter().filter_map(|one| one.mark()) {
            let found = self.controllers.iter().any(|line| line.contains(mark));
            let wanted = controller.mark() == Some(mark);
            ensure!(found == wanted, "`{mark}` among {:?}: {found}", self.controllers);
        }
        Ok(())
    }

    /// Checks that the device sent an MSI for each read to the vCPU whose turn it was. A few may
    /// arrive elsewhere, because an MSI may be in transit while its interrupt is moved.
    fn judge_messages(&self, cpus: usize, reads: u64) -> Result<()> {
        const ON_THE_WAY: u64 = 5;
        let counts = self.counts(DEVICE);
        ensure!(counts.len() == cpus, "{} columns of messages", counts.len());
        let fewest = reads - ON_THE_WAY;
        ensure!(counts.iter().all(|count| *count >= fewest), "messages: {counts:?}");
        ensure!(counts.iter().sum::<u64>() >= reads * cpus as u64, "messages: {counts:?}");
        Ok(())
    }
}
