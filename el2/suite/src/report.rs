//! Parses the reports that guests write to their console.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Ending, Fact, HypervisorFact, LinuxFact};

use crate::controller::Controller;
use crate::traffic::{Known, Row, Sent, Traffic};

/// Splits a line into the number of the guest that wrote it and the fact that it states. Lines have
/// a number if several guests share the console.
pub(crate) fn fact_of(line: &str) -> Option<(usize, Fact)> {
    let numbered = line.strip_prefix('[').and_then(|line| line.split_once("] "));
    let (guest, line) = numbered.unwrap_or(("0", line));
    Some((guest.parse().ok()?, Fact::parse(line)?))
}

/// The reports of the guests of one machine.
#[derive(Debug)]
pub(crate) struct GuestReports {
    guests: Vec<Report>,
    moves: u64,
    /// Exits and interrupts by reason. The counts are checked only if there is a single guest.
    counts: BTreeMap<String, u64>,
    /// `true` if devices' messages are injected directly, so that the hypervisor doesn't count
    /// them.
    is_direct: bool,
    pub(crate) last: String,
}

impl GuestReports {
    pub(crate) fn of(guests: usize) -> Self {
        let guests = (0..guests).map(|_| Report::default()).collect();
        let (counts, last) = (BTreeMap::new(), String::new());
        Self { guests, moves: 0, counts, is_direct: false, last }
    }

    /// Processes a line of output. Returns `true` if every guest that has not ended is now waiting
    /// for input.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        self.last = line.trim_end().into();
        match fact_of(line) {
            Some((_, Fact::Hypervisor(fact))) => self.hypervisor(fact),
            Some((guest, Fact::Linux(fact))) => {
                if let Some(guest) = self.guests.get_mut(guest) {
                    guest.fact(fact);
                }
            }
            _ => {}
        }
        let listens = |guest: &Report| guest.listens || guest.ending.is_some();
        let type_now = self.guests.iter().any(|it| it.listens) && self.guests.iter().all(listens);
        if type_now {
            self.guests.iter_mut().for_each(|guest| guest.listens = false);
        }
        type_now
    }

    fn hypervisor(&mut self, fact: HypervisorFact) {
        match fact {
            HypervisorFact::Ended { guest, how } => {
                if let Some(guest) = self.guests.get_mut(guest) {
                    guest.ending = Some(how);
                }
            }
            HypervisorFact::Moved { times, grown: 0 } => self.moves = times,
            HypervisorFact::Direct { .. } => self.is_direct = true,
            HypervisorFact::Count { reason, times, .. } => {
                self.counts.insert(reason.into(), times);
            }
            _ => {}
        }
    }

    /// Returns a summary of each guest.
    pub(crate) fn summary(&self) -> String {
        let all: Vec<_> = self.guests.iter().map(Report::summary).collect();
        format!("{}; {} moves", all.join("; "), self.moves)
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
        let heard = &self.guests[0].heard_again;
        ensure!(self.guests.len() == 1 || heard == expected.typed, "again it heard `{heard}`");
        ensure!(self.moves >= expected.moves, "{} moves, not {}", self.moves, expected.moves);
        match expected.load {
            Load::Traffic { reads, discarded, log } => {
                let sent = &Sent::read(log)?;
                if self.is_direct {
                    return self.judge_traffic(expected, [reads, discarded], (sent, None));
                }
                let (lpis, spis) = (self.counts.get("LPI taken"), self.counts.get("SPI taken"));
                let has_lpis = expected.controller.has_lpis() && !expected.has_lines;
                let taken =
                    *if has_lpis { lpis } else { spis }.context("no count of interrupts")?;
                self.judge_traffic(expected, [reads, discarded], (sent, Some(taken)))
            }
            Load::None | Load::Random { .. } => Ok(()),
        }
    }

    /// Checks the traffic of the only guest, or of a kernel that runs without the hypervisor.
    pub(crate) fn judge_traffic(
        &self,
        expected: &Expected<'_>,
        [reads, discarded]: [u64; 2],
        (sent, taken): (&Sent, Option<u64>),
    ) -> Result<()> {
        let Expected { controller, cpus, has_lines, .. } = *expected;
        let guest = &self.guests[0];
        let (rows, own) = (&guest.rows, guest.traffic.own());
        let known = Known { controller, cpus, reads, discarded, rows, has_lines, own, taken };
        guest.traffic.judge(&known, sent)
    }
}

/// The report of a guest.
#[derive(Debug, Default)]
pub(crate) struct Report {
    cpus: usize,
    cpus_again: usize,
    heard: String,
    heard_again: String,
    absent_device: u32,
    /// Lines about MSI controllers in the kernel's log.
    controllers: Vec<String>,
    /// Lines about PCI's windows and the addresses of devices in the kernel's log.
    pci_memory: Vec<String>,
    rows: Vec<Row>,
    traffic: Traffic,
    /// Descriptions of failures.
    complaints: Vec<String>,
    ending: Option<Ending>,
    listens: bool,
}

/// Expected report of a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) cpus: usize,
    /// The text that is sent to the UART.
    pub(crate) typed: &'a str,
    /// The guest's MSI controller.
    pub(crate) controller: Controller,
    pub(crate) load: Load<'a>,
    /// `true` if the devices assert INTx.
    pub(crate) has_lines: bool,
    /// Minimum number of moves of the guest from one GIC to another.
    pub(crate) moves: u64,
}

/// The devices of a guest, and the operations on them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load<'a> {
    /// No load: no MSIs can arrive.
    None,
    /// Each vCPU reads random bytes this number of times.
    Random { reads: u64 },
    /// The vCPUs together read a disk at least this number of times, and send pings. Linux discards
    /// the interrupts of some reads. QEMU logs MSIs to this file.
    Traffic { reads: u64, discarded: u64, log: &'a Path },
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
    /// Processes a fact that the guest reports.
    fn fact(&mut self, fact: LinuxFact) {
        match fact {
            LinuxFact::Cpus { online, again: false } => self.cpus = online,
            LinuxFact::Cpus { online, again: true } => self.cpus_again = online,
            LinuxFact::Heard { text, again: false } => self.heard = text.into(),
            LinuxFact::Heard { text, again: true } => self.heard_again = text.into(),
            LinuxFact::AbsentDevice { status } => self.absent_device = status,
            LinuxFact::Controller { line } => self.controllers.push(line.into()),
            LinuxFact::PciMemory { line } => self.pci_memory.push(line.into()),
            LinuxFact::Complaint { line } => self.complaints.push(line.into()),
            LinuxFact::Row { line } => self.rows.extend(Row::parse(&line)),
            LinuxFact::Listens {} => self.listens = true,
            other => self.traffic.fact(&other),
        }
    }

    /// Returns a summary of the counts.
    fn summary(&self) -> String {
        let count = |name: &str| self.counts(name).iter().sum::<u64>();
        let messages = self.rows.iter().filter(|row| row.has_messages()).map(Row::sum);
        format!(
            "{} vCPUs, {} timer interrupts, {} of the UART, {} IPIs, {} messages; {}",
            self.cpus,
            count("arch_timer"),
            self.of_uart(),
            self.ipis(),
            messages.sum::<u64>(),
            self.traffic.summary(),
        )
    }

    /// Checks that each vCPU was online with its timer, went offline and came back, that the UART's
    /// interrupts arrived, that an absent device ended only the program that accessed it, that
    /// present devices sent their MSIs, and that the guest reset its machine after traffic.
    fn judge(&self, expected: &Expected<'_>) -> Result<()> {
        let Expected { cpus, typed, controller, load, .. } = *expected;
        let complaints = &self.complaints;
        ensure!(complaints.is_empty(), "{}", complaints.join("; "));
        let ending = match load {
            Load::Traffic { .. } => Ending::Reset,
            Load::None | Load::Random { .. } => Ending::Off,
        };
        ensure!(self.ending == Some(ending), "it ended by {:?}", self.ending);
        ensure!(self.cpus == cpus, "it has {} vCPUs", self.cpus);
        ensure!(self.cpus_again == self.cpus, "{} vCPUs after hotplug", self.cpus_again);
        ensure!(self.heard == typed, "it heard `{}`", self.heard);
        ensure!(self.absent_device == BUS_ERROR, "an absent device: {}", self.absent_device);
        let ticks = self.counts("arch_timer");
        ensure!(ticks.len() == cpus, "{} columns of timer interrupts", ticks.len());
        ensure!(ticks.iter().all(|ticks| *ticks >= FEWEST_TICKS), "timer interrupts: {ticks:?}");
        ensure!(self.of_uart() > 0, "no UART interrupt");
        ensure!(cpus == 1 || self.ipis() > 0, "no IPI");
        self.judge_controller(controller)?;
        match load {
            Load::None => ensure_none(self.counts(DEVICE)),
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

    fn counts(&self, name: &str) -> &[u64] {
        let row = self.rows.iter().find(|row| row.name.ends_with(name));
        row.map_or(&[], |row| &row.counts)
    }

    /// Returns the number of interrupts of a PL011, or of an i.MX's UART.
    fn of_uart(&self) -> u64 {
        ["uart-pl011", ".serial"].iter().flat_map(|name| self.counts(name)).sum()
    }

    fn ipis(&self) -> u64 {
        let rows = self.rows.iter().filter(|row| row.label.starts_with("IPI"));
        rows.flat_map(|row| &row.counts).sum()
    }
}

fn ensure_none(messages: &[u64]) -> Result<()> {
    ensure!(messages.is_empty(), "messages without a controller: {messages:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected<'_> = Expected {
        cpus: 2,
        typed: "hello",
        controller: Controller::Its,
        load: Load::Random { reads: 100 },
        has_lines: false,
        moves: 10,
    };

    const MOVED: &str = r#"{"hypervisor":{"moved":{"times":12,"grown":0}}}"#;
    const END: &str = r#"{"hypervisor":{"ended":{"guest":0,"how":"off"}}}"#;
    const END_OF_1: &str = r#"{"hypervisor":{"ended":{"guest":1,"how":"off"}}}"#;
    const LISTENS: &str = r#"{"linux":{"listens":{}}}"#;

    const GOOD: &[&str] = &[
        "hypervisor: a guest of 2 vCPUs with 512 MiB",
        r#"{"linux":{"controller":{"line":"[    0.0] ITS [mem 0x08080000-0x0809ffff]"}}}"#,
        "{\"linux\":{\"cpus\":{\"online\":2,\"again\":false}}}\r",
        r#"{"linux":{"listens":{}}}"#,
        "hello",
        r#"{"linux":{"heard":{"text":"hello","again":false}}}"#,
        "Bus error",
        r#"{"linux":{"absent-device":{"status":135}}}"#,
        r#"{"linux":{"cpus":{"online":2,"again":true}}}"#,
        r#"{"linux":{"row":{"line":"           CPU0       CPU1"}}}"#,
        r#"{"linux":{"row":{"line":" 11:   413   412     GICv3  27 Level     arch_timer"}}}"#,
        r#"{"linux":{"row":{"line":" 13:     2     0     GICv3  33 Level     uart-pl011"}}}"#,
        r#"{"linux":{"row":{"line":" 15:    98   103   ITS-MSI 16385 Edge    virtio0-input"}}}"#,
        r#"{"linux":{"row":{"line":"IPI0:     0     1       Rescheduling interrupts"}}}"#,
        MOVED,
        END,
    ];

    fn judged(change: impl Fn(&str) -> String) -> Result<()> {
        let mut report = GuestReports::of(1);
        for line in GOOD {
            report.line(&change(line));
        }
        report.judge(&EXPECTED)
    }

    #[test]
    fn a_complete_report_passes() {
        judged(ToOwned::to_owned).unwrap();
    }

    #[test]
    fn incomplete_reports_are_refused() {
        for (from, to) in [
            (r#""off""#, r#""reset""#),
            (r#""heard":{"text":"hello""#, r#""heard":{"text":"hell""#),
            (r#""times":12"#, r#""times":9"#),
            (r#""grown":0"#, r#""grown":1"#),
            ("135", "0"),
            (r#"2,"again":true"#, r#"1,"again":true"#),
            ("ITS [mem 0x0808", "ITS [mem 0x0809"),
            ("0x0809ffff]", "0x0809ffff] MBI range [80:207]"),
            (r#""online":2,"again":false"#, r#""online":4,"again":false"#),
            ("412 ", "  3 "),
            ("413   412", "413"),
            ("  2     0 ", "  0     0 "),
            (" 98   103", "203     0"),
            (" 98   103", " 98   101"),
            ("virtio0-input", "virtio0-config"),
            ("     1       Resch", "     0       Resch"),
            ("Bus error", r#"{"linux":{"complaint":{"line":"nvme0: I/O 5 QID 1 timeout"}}}"#),
        ] {
            assert!(GOOD.iter().any(|line| line.contains(from)), "no line has `{from}`");
            assert!(judged(|line| line.replace(from, to)).is_err(), "`{to}` passes");
        }
    }

    #[test]
    fn a_listening_guest_receives_input_once() {
        let mut report = GuestReports::of(1);
        assert_eq!(GOOD.iter().filter(|line| report.line(line)).count(), 1);
    }

    /// Lets two guests report. The first guest continues after the second has ended.
    fn of_two(change: impl Fn(&str) -> String) -> (Result<()>, Vec<String>) {
        let mut reports = GuestReports::of(2);
        let mut typed_after = Vec::new();
        let (end, body) = GOOD.split_last().unwrap();
        let of = |guest: usize, line: &str| match line {
            END if guest == 1 => END_OF_1.to_owned(),
            MOVED | END => line.to_owned(),
            _ => format!("[{guest}] {line}"),
        };
        let mut lines: Vec<_> = body.iter().flat_map(|line| [of(0, line), of(1, line)]).collect();
        lines.push(of(0, LISTENS));
        lines.push(of(1, end));
        lines.push(of(0, r#"{"linux":{"heard":{"text":"hello","again":true}}}"#));
        lines.push(of(0, end));
        for line in lines.iter().map(|line| change(line)) {
            if reports.line(&line) {
                typed_after.push(line);
            }
        }
        (reports.judge(&EXPECTED), typed_after)
    }

    #[test]
    fn two_guests_receive_input_only_after_both_listen() {
        let (judged, typed_after) = of_two(ToOwned::to_owned);
        judged.unwrap();
        assert_eq!(typed_after, [&format!("[1] {LISTENS}"), END_OF_1]);
    }

    #[test]
    fn a_mistake_of_either_guest_fails_the_run() {
        for (from, to) in [
            (
                r#"[0] {"linux":{"heard":{"text":"hello","again":false"#,
                r#"[1] {"linux":{"heard":{"text":"hello","again":false"#,
            ),
            (r#"[0] {"linux":{"heard":{"text":"hello","again":true"#, "[0] {"),
            (r#""guest":1,"how":"off""#, r#""guest":1,"how":"system-error""#),
            (
                r#"[1] {"linux":{"row":{"line":" 15:    98"#,
                r#"[1] {"linux":{"row":{"line":" 15:     0"#,
            ),
        ] {
            let (judged, _) = of_two(|line| line.replace(from, to));
            assert!(judged.is_err(), "`{to}` passes");
        }
    }
}
