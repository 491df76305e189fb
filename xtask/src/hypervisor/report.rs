//! A guest's report on its console.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::controller::Controller;
use super::record::Count;
use super::traffic::{Known, Row, Sent, Traffic};

/// The end of the guest's machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ending {
    /// SYSTEM_OFF.
    Off,
    /// SYSTEM_RESET.
    Reset,
    /// The hypervisor did not get so far.
    #[default]
    Other,
}

impl Ending {
    /// The ending that a line of the hypervisor tells, and whose it is.
    pub(super) fn after(line: &str) -> Option<(usize, Self)> {
        let line = line.trim_end();
        if line.starts_with("not ok - the image: ") {
            return Some((0, Self::Other));
        }
        let said = line.strip_prefix("hypervisor: ")?;
        let (guest, how) = if let Some(how) = said.strip_prefix("the guest ") {
            (0, how)
        } else {
            let (guest, how) = said.strip_prefix("guest ")?.split_once(' ')?;
            (guest.parse().ok()?, how)
        };
        match how {
            "turned its machine off" => Some((guest, Self::Off)),
            "reset its machine" => Some((guest, Self::Reset)),
            _ => None,
        }
    }
}

/// The reports of the guests of one machine.
#[derive(Debug)]
pub(super) struct Reports {
    guests: Vec<Report>,
    moves: u64,
    counts: Vec<Count>,
    pub(super) last: String,
}

impl Reports {
    pub(super) fn of(guests: usize) -> Self {
        let guests = (0..guests).map(|_| Report::default()).collect();
        Self { guests, moves: 0, counts: Vec::new(), last: String::new() }
    }

    /// Takes a line into account. Does every guest that has not ended listen now?
    pub(super) fn line(&mut self, line: &str) -> bool {
        self.last = line.trim_end().into();
        if let Some((guest, ending)) = Ending::after(line) {
            if let Some(guest) = self.guests.get_mut(guest) {
                guest.ending = ending;
            }
        } else if let Some(moves) = moves(line) {
            self.moves = moves;
        } else if let Some(count) = Count::of(line) {
            self.counts.push(count);
        } else if let [guest] = &mut *self.guests {
            guest.line(line);
        } else if let Some((guest, line)) = numbered(line)
            && let Some(guest) = self.guests.get_mut(guest)
        {
            guest.line(line);
        }
        let listens = |guest: &Report| guest.listens || guest.ending != Ending::Other;
        let type_now = self.guests.iter().any(|it| it.listens) && self.guests.iter().all(listens);
        if type_now {
            self.guests.iter_mut().for_each(|guest| guest.listens = false);
        }
        type_now
    }

    /// Each guest in words.
    pub(super) fn summary(&self) -> String {
        let all: Vec<_> = self.guests.iter().map(Report::summary).collect();
        format!("{}; {} moves", all.join("; "), self.moves)
    }

    /// Every guest reports what is expected. Of several, the first has waited for the others' end.
    pub(super) fn judge(&self, expected: &Expected<'_>) -> Result<()> {
        for (number, guest) in self.guests.iter().enumerate() {
            guest.judge(expected).with_context(|| format!("guest {number}"))?;
        }
        let heard = &self.guests[0].heard_again;
        ensure!(self.guests.len() == 1 || heard == expected.typed, "again it heard `{heard}`");
        ensure!(self.moves >= expected.moves, "{} moves, not {}", self.moves, expected.moves);
        match expected.load {
            Load::Traffic { reads, log } => self.judge_traffic(expected, reads, &Sent::read(log)?),
            Load::None | Load::Random { .. } => Ok(()),
        }
    }

    /// The only guest's traffic.
    fn judge_traffic(&self, expected: &Expected<'_>, reads: u64, sent: &Sent) -> Result<()> {
        let Expected { controller, cpus, .. } = *expected;
        let reason = if controller == Controller::Its { "LPI taken" } else { "SPI taken" };
        let count = self.counts.iter().find(|count| count.reason == reason);
        let taken = count.with_context(|| format!("no {reason} is counted"))?.times;
        let guest = &self.guests[0];
        let known = Known { controller, cpus, reads, rows: &guest.rows, taken };
        guest.traffic.judge(&known, sent)
    }
}

/// The number of guests' moves, in the words of the hypervisor.
pub(super) fn moves(line: &str) -> Option<u64> {
    line.trim_end().strip_prefix("hypervisor: ")?.strip_suffix(" moves")?.parse().ok()
}

/// A line of one of several guests.
fn numbered(line: &str) -> Option<(usize, &str)> {
    let (number, line) = line.strip_prefix('[')?.split_once("] ")?;
    Some((number.parse().ok()?, line))
}

/// A guest's report.
#[derive(Debug, Default)]
pub(super) struct Report {
    cpus: String,
    cpus_again: String,
    heard: String,
    heard_again: String,
    absent_device: String,
    /// The kernel's log of controllers of messages.
    controllers: Vec<String>,
    rows: Vec<Row>,
    traffic: Traffic,
    /// Words about what failed.
    complaints: Vec<String>,
    ending: Ending,
    listens: bool,
}

/// A good guest's report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    pub(super) cpus: usize,
    /// The report that came.
    pub(super) typed: &'a str,
    /// Its controller of messages.
    pub(super) controller: Controller,
    pub(super) load: Load<'a>,
    /// Moves of the guest from GIC to GIC.
    pub(super) moves: u64,
}

/// The devices of a good guest, and their work.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load<'a> {
    /// No message can come.
    None,
    /// So many reads of random bytes on each vCPU.
    Random { reads: u64 },
    /// So many reads of a disk by all vCPUs, or more, and pings. QEMU logs messages to this file.
    Traffic { reads: u64, log: &'a Path },
}

/// The interrupt that messages of the source of random bytes become.
const DEVICE: &str = "virtio0-input";

/// 128 and the number of SIGBUS: how a shell tells of a program that an external abort ended.
const BUS_ERROR: &str = "135";
/// A second of work: a vCPU whose timer fires once and no more has fewer ticks.
const FEWEST_TICKS: u64 = 20;

impl Report {
    /// Takes a line of the guest into account.
    fn line(&mut self, line: &str) {
        let Some(said) = line.trim_end().strip_prefix("guest: ") else { return };
        let fields = [
            ("cpus again ", &mut self.cpus_again),
            ("cpus ", &mut self.cpus),
            ("again heard ", &mut self.heard_again),
            ("heard ", &mut self.heard),
            ("absent device ", &mut self.absent_device),
        ];
        for (begin, field) in fields {
            if let Some(value) = said.strip_prefix(begin) {
                *field = value.into();
                return;
            }
        }
        self.controllers.extend(said.strip_prefix("controller ").map(Into::into));
        self.complaints.extend(said.strip_prefix("complains: ").map(Into::into));
        self.traffic.line(said);
        self.rows.extend(said.strip_prefix("row ").and_then(Row::parse));
        self.listens |= said == "listens";
    }

    /// The counts in words.
    fn summary(&self) -> String {
        let count = |name: &str| self.counts(name).iter().sum::<u64>();
        let messages = self.rows.iter().filter(|row| row.has_messages()).map(Row::sum);
        format!(
            "{} vCPUs, {} timer interrupts, {} of the UART, {} IPIs, {} messages; {}",
            self.cpus,
            count("arch_timer"),
            count("uart-pl011"),
            self.ipis(),
            messages.sum::<u64>(),
            self.traffic.summary(),
        )
    }

    /// Each vCPU was there with its timer, went off and came back. The UART's interrupts arrived. A
    /// device that is not there ended the program that asked for it, and nothing else; one that is
    /// there sent its messages. After traffic the guest resets its machine.
    fn judge(&self, expected: &Expected<'_>) -> Result<()> {
        let Expected { cpus, typed, controller, load, .. } = *expected;
        let complaints = &self.complaints;
        ensure!(complaints.is_empty(), "{}", complaints.join("; "));
        let ending = match load {
            Load::Traffic { .. } => Ending::Reset,
            Load::None | Load::Random { .. } => Ending::Off,
        };
        ensure!(self.ending == ending, "its end: {:?}", self.ending);
        ensure!(self.cpus == cpus.to_string(), "it has {} vCPUs", self.cpus);
        ensure!(self.cpus_again == self.cpus, "{} vCPUs after hotplug", self.cpus_again);
        ensure!(self.heard == typed, "it heard `{}`", self.heard);
        ensure!(self.absent_device == BUS_ERROR, "an absent device: {}", self.absent_device);
        let ticks = self.counts("arch_timer");
        ensure!(ticks.len() == cpus, "{} columns of interrupts", ticks.len());
        ensure!(ticks.iter().all(|ticks| *ticks >= FEWEST_TICKS), "timer interrupts: {ticks:?}");
        ensure!(self.counts("uart-pl011").iter().any(|count| *count > 0), "no UART interrupt");
        ensure!(cpus == 1 || self.ipis() > 0, "no IPI");
        self.judge_controller(controller)?;
        match load {
            Load::None => ensure_none(self.counts(DEVICE)),
            Load::Random { reads } => self.judge_messages(cpus, reads),
            Load::Traffic { .. } => Ok(()),
        }
    }

    /// The kernel found this controller and no other.
    fn judge_controller(&self, controller: Controller) -> Result<()> {
        let all = [Controller::Its, Controller::Mbi, Controller::V2m];
        for mark in all.iter().filter_map(|one| one.mark()) {
            let found = self.controllers.iter().any(|line| line.contains(mark));
            let wanted = controller.mark() == Some(mark);
            ensure!(found == wanted, "`{mark}` among {:?}: {found}", self.controllers);
        }
        Ok(())
    }

    /// The device sent a message for each read, to the vCPU whose turn it was. Nearly all went
    /// there, as one may be on its way while its interrupt moves.
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
mod test {
    use super::*;

    const EXPECTED: Expected<'_> = Expected {
        cpus: 2,
        typed: "hello",
        controller: Controller::Its,
        load: Load::Random { reads: 100 },
        moves: 10,
    };

    const GOOD: &[&str] = &[
        "hypervisor: a guest of 2 vCPUs with 512 MiB",
        "guest: controller [    0.0] ITS [mem 0x08080000-0x0809ffff]",
        "guest: cpus 2\r",
        "guest: listens",
        "hello",
        "guest: heard hello",
        "Bus error",
        "guest: absent device 135",
        "guest: cpus again 2",
        "guest: row            CPU0       CPU1",
        "guest: row  11:        413        412     GICv3  27 Level     arch_timer",
        "guest: row  13:          2          0     GICv3  33 Level     uart-pl011",
        "guest: row  15:         98        103   ITS-MSI 16385 Edge      virtio0-input",
        "guest: row IPI0:         0          1       Rescheduling interrupts",
        "hypervisor: 12 moves",
        "hypervisor: the guest turned its machine off",
    ];

    fn judged(change: impl Fn(&str) -> String) -> Result<()> {
        let mut report = Reports::of(1);
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
            ("turned its machine off", "reset its machine"),
            ("heard hello", "heard hell"),
            ("12 moves", "9 moves"),
            ("device 135", "device 0"),
            ("again 2", "again 1"),
            ("ITS [mem 0x0808", "ITS [mem 0x0809"),
            ("0x0809ffff]", "0x0809ffff] MBI range [80:207]"),
            ("cpus 2", "cpus 4"),
            ("412 ", "  3 "),
            ("413        412", "413"),
            ("   2          0 ", "   0          0 "),
            ("  98        103", " 203          0"),
            ("  98        103", "  98        101"),
            ("virtio0-input", "virtio0-config"),
            ("        1       Resch", "        0       Resch"),
            ("Bus error", "guest: complains: nvme nvme0: I/O 5 QID 1 timeout, completion polled"),
        ] {
            assert!(GOOD.iter().any(|line| line.contains(from)), "no line has `{from}`");
            assert!(judged(|line| line.replace(from, to)).is_err(), "`{to}` passes");
        }
    }

    #[test]
    fn a_guest_that_listens_is_typed_to_once() {
        let mut report = Reports::of(1);
        assert_eq!(GOOD.iter().filter(|line| report.line(line)).count(), 1);
    }

    /// Two guests report; the first goes on after the second's end.
    fn of_two(change: impl Fn(&str) -> String) -> (Result<()>, Vec<String>) {
        let mut reports = Reports::of(2);
        let mut typed_after = Vec::new();
        let (end, body) = GOOD.split_last().unwrap();
        let of = |guest: usize, line: &str| match line.strip_prefix("hypervisor: the guest") {
            Some(how) => format!("hypervisor: guest {guest}{how}"),
            None if moves(line).is_some() => line.to_string(),
            None => format!("[{guest}] {line}"),
        };
        let mut lines: Vec<_> = body.iter().flat_map(|line| [of(0, line), of(1, line)]).collect();
        lines.push(of(0, "guest: listens"));
        lines.push(of(1, end));
        lines.push(of(0, "guest: again heard hello"));
        lines.push(of(0, end));
        for line in lines.iter().map(|line| change(line)) {
            if reports.line(&line) {
                typed_after.push(line);
            }
        }
        (reports.judge(&EXPECTED), typed_after)
    }

    #[test]
    fn two_guests_are_typed_to_when_all_listen() {
        let (judged, typed_after) = of_two(ToOwned::to_owned);
        judged.unwrap();
        let end = "hypervisor: guest 1 turned its machine off";
        assert_eq!(typed_after, ["[1] guest: listens", end]);
    }

    #[test]
    fn each_of_two_guests_is_judged() {
        for (from, to) in [
            ("[0] guest: heard hello", "[1] guest: heard hello"),
            ("[0] guest: again heard", "[0] guest: no"),
            ("hypervisor: guest 1 turned", "hypervisor: guest 1 was turned"),
            ("[1] guest: row  15:         98", "[1] guest: row  15:          0"),
        ] {
            let (judged, _) = of_two(|line| line.replace(from, to));
            assert!(judged.is_err(), "`{to}` passes");
        }
    }

    #[test]
    fn a_panic_is_no_ending_of_the_guest() {
        assert_eq!(Ending::after("not ok - the image: x"), Some((0, Ending::Other)));
        assert_eq!(Ending::after("guest: cpus 1"), None);
    }
}
