//! A guest that misbehaves (`el2/hostile`) beside one that waits for its timer: the second gets
//! its ticks within a bound, and no exit takes longer than another one.
//!
//! Bounds are held on one CPU, which both guests want, with virtual time counted in instructions:
//! there every run has the same figures. On two CPUs at the host's pace every tick comes, and both
//! guests reach their end.

use std::fmt;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::controller::Controller;
use super::files::{Files, GUEST_RAM};
use super::microbench::{COUNTED, VERSION};
use super::record::Count;
use super::report::Ending;
use super::{Board, LIMIT, Machine, Record};
use crate::dtb::Tools;
use crate::parallel::Trial;
use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{process, qemu};
use doorbell_harness::image::Image;

/// The turn of a guest while others wait for its CPU (`scheduler.rs`), in nanoseconds.
const TURN: u64 = 2_000_000;
/// Most instructions from an exit to the next entry: the budgets of an access and of the entry
/// behind it (`WORK_PER_ACCESS` in `controller.rs`), and the chunk of LPIs that each has begun.
const EXIT: u64 = 400_000;
/// Longest delay of a tick in nanoseconds, at one nanosecond per instruction. The other guest
/// completes the exit that it is in at the deadline, then its turn, then the exit that it is in
/// when the turn ends.
const LATENCY: u64 = EXIT + TURN + EXIT;

const MEMORY: u32 = 64;
const TICKS: u32 = 8;
/// The attack lasts as long as the ticks, which come late.
const MILLISECONDS: u32 = 50;

/// By name, and whether the guest must have survived exceptions.
const ATTACKS: &[(&str, bool)] = &[
    ("registers", true),
    ("state-registers", false),
    ("system-registers", true),
    ("undescribed-accesses", true),
    ("calls", false),
    ("timer", false),
    ("sgis", false),
    ("commands", false),
    ("garbage-commands", false),
    ("small-queue", false),
    ("overlapping-tables", false),
    ("absent-tables", false),
    ("interrupts-to-itself", false),
    ("invalidations", false),
    ("moves", false),
    ("mappings", false),
    ("many-pending", false),
    ("enables", false),
];
/// Those in which vCPUs have to do with each other.
const TOGETHER: &[&str] = &["state-registers", "sgis", "commands", "enables"];
/// Attacks by many vCPUs that share the other guest's CPU.
const CROWDED: &[&str] = &["spin", "wake-ups"];
const CROWD: u8 = 8;
/// Milliseconds between moves. A move kicks all vCPUs, so WFI ends without an interrupt.
const MOVE_EVERY: u32 = 7;

/// A run of both guests.
#[derive(Clone, Copy)]
struct Run<'a> {
    attack: &'a str,
    takes_exceptions: bool,
    /// Number of vCPUs of each guest.
    vcpus: u8,
    cpus: u8,
    /// Milliseconds from one move of the guests to the next.
    move_every: Option<u32>,
}

impl Run<'_> {
    fn name(&self) -> String {
        let Self { attack, vcpus, cpus, .. } = self;
        match (cpus, vcpus) {
            _ if self.move_every.is_some() => {
                format!("a guest's ticks come beside `{attack}` of {vcpus} vCPUs, moved")
            }
            (1, 1) => format!("a guest's ticks come in time beside `{attack}`"),
            (1, _) => format!("a guest's ticks come in time beside `{attack}` of {vcpus} vCPUs"),
            _ => format!("guests on {cpus} CPUs survive `{attack}`"),
        }
    }

    fn command(&self, tools: &Tools, images: [&Image; 3]) -> Result<Command> {
        let [image, ticker, hostile] = images;
        let board = Board {
            machine: Machine::default(),
            tools,
            image,
            vcpus: self.vcpus,
            cpus: self.cpus,
            memory: MEMORY,
            controller: Controller::Its,
            devices: &[],
            trusted: false,
            move_every: self.move_every,
            record: Record { trace: false, stats: true },
        };
        let words =
            format!("attack={} milliseconds={MILLISECONDS} vcpus={}", self.attack, self.vcpus);
        let files = |image, append| Files { kernel: image, initrd: None, append };
        let ticks = format!("ticks={TICKS}");
        let mut qemu =
            board.command(&[files(&ticker.flat, &ticks), files(&hostile.flat, &words)])?;
        if self.cpus == 1 {
            qemu.args(COUNTED);
        }
        Ok(qemu)
    }

    /// Runs the guests, and judges them. Says what was measured.
    fn judge(&self, tools: &Tools, images: [&Image; 3]) -> Result<Figures> {
        let mut found = Found::default();
        process::watch(&mut self.command(tools, images)?, LIMIT, |line| found.line(line))?;
        let figures = found.judge(self.takes_exceptions)?;
        if self.cpus == 1 && self.move_every.is_none() {
            ensure!(figures.late <= LATENCY, "a tick came {} ns late", figures.late);
            let Count { reason, .. } = &figures.longest;
            let exit = figures.exit();
            ensure!(exit <= EXIT, "an exit took {exit} instructions: {reason}");
        }
        Ok(figures)
    }
}

/// Both guests, and the QEMU that they run on.
pub(super) struct Hostile {
    tools: Tools,
    ticker: Image,
    attacker: Image,
}

impl Hostile {
    /// Builds the guests. `None`: there is no QEMU.
    pub(super) fn build(workspace: &Workspace, tally: &mut Tally) -> Result<Option<Self>> {
        let tools = match qemu::fetch(workspace, VERSION) {
            Ok(tools) => tools,
            Err(absent) => {
                tally.skip(format!("guests that misbehave: {absent:#}"));
                return Ok(None);
            }
        };
        let build = |address| Image::build_at(workspace, "hostile", "hostile", address);
        let ticker = build(GUEST_RAM)?;
        let attacker = build(GUEST_RAM + (u64::from(MEMORY) << 20))?;
        Ok(Some(Self { tools, ticker, attacker }))
    }

    /// Returns a machine with one CPU for guests of this image, each with one vCPU.
    pub(super) fn board<'a>(&'a self, image: &'a Image) -> Board<'a> {
        Board {
            machine: Machine::default(),
            tools: &self.tools,
            image,
            vcpus: 1,
            cpus: 1,
            memory: MEMORY,
            controller: Controller::Its,
            devices: &[],
            trusted: false,
            move_every: None,
            record: Record::default(),
        }
    }

    /// Returns the guest at the first guest's address, with the command line `words`.
    pub(super) fn first<'a>(&'a self, words: &'a str) -> Files<'a> {
        Files { kernel: &self.ticker.flat, initrd: None, append: words }
    }

    /// Returns the guest at the second guest's address, with the command line `words`.
    pub(super) fn second<'a>(&'a self, words: &'a str) -> Files<'a> {
        Files { kernel: &self.attacker.flat, initrd: None, append: words }
    }

    /// Each attack, on one CPU and some on two.
    pub(super) fn trials<'a>(&'a self, hypervisor: &'a Image) -> impl Iterator<Item = Trial<'a>> {
        let run = |attack, vcpus, cpus| Run {
            attack,
            takes_exceptions: false,
            vcpus,
            cpus,
            move_every: None,
        };
        let alone = ATTACKS
            .iter()
            .map(move |&(attack, takes_exceptions)| Run { takes_exceptions, ..run(attack, 1, 1) });
        let together = TOGETHER.iter().map(move |&attack| run(attack, 2, 2));
        let crowded = CROWDED.iter().map(move |&attack| run(attack, CROWD, 1));
        let moved = Run { move_every: Some(MOVE_EVERY), ..run("spin", CROWD, 1) };
        alone.chain(together).chain(crowded).chain([moved]).map(move |run| -> Trial<'a> {
            Box::new(move |tally| {
                let outcome = run.judge(&self.tools, [hypervisor, &self.ticker, &self.attacker]);
                if let (Ok(figures), 1) = (&outcome, run.cpus) {
                    println!("{}: {figures}", run.attack);
                }
                tally.case(&run.name(), outcome.map(drop));
                Ok(())
            })
        })
    }
}

/// The reports of the guests and of the hypervisor.
#[derive(Debug, Default)]
struct Found {
    ticker: Option<String>,
    hostile: Option<String>,
    endings: Vec<(usize, Ending)>,
    counts: Vec<Count>,
}

/// The figures of a run.
#[derive(Debug)]
struct Figures {
    /// Nanoseconds of the latest tick.
    late: u64,
    longest: Count,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (late, exit, reason) = (self.late, self.exit(), &self.longest.reason);
        write!(f, "{late} ns late, {exit} in an exit: {reason}")
    }
}

impl Figures {
    /// Nanoseconds of the longest exit.
    fn exit(&self) -> u64 {
        self.longest.longest.unwrap_or_default()
    }
}

impl Found {
    fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(ticker) = line.strip_prefix("[0] ticker - ") {
            self.ticker = Some(ticker.into());
        } else if let Some(hostile) = line.strip_prefix("[1] hostile - ") {
            self.hostile = Some(hostile.into());
        }
        self.endings.extend(Ending::after(line));
        self.counts.extend(Count::of(line));
    }

    fn judge(self, takes_exceptions: bool) -> Result<Figures> {
        let ticker = self.ticker.context("the guest with the timer says nothing")?;
        let late = ticker.strip_prefix(&format!("{TICKS} ticks, at most "));
        let late = late.and_then(|late| late.split_once(" ns late")?.0.parse().ok());
        let late = late.with_context(|| format!("the guest with the timer says `{ticker}`"))?;
        let hostile = self.hostile.context("the hostile guest says nothing")?;
        let (_, done) = hostile.split_once(": ").context("the hostile guest's words")?;
        ensure!(!done.starts_with("0 turns"), "the hostile guest did nothing");
        ensure!(!takes_exceptions || !done.ends_with(" 0 exceptions"), "there were no exceptions");
        for guest in [0, 1] {
            ensure!(self.endings.contains(&(guest, Ending::Off)), "guest {guest} has no end");
        }
        let longest = self.counts.into_iter().max_by_key(|count| count.longest);
        Ok(Figures { late, longest: longest.context("nothing is counted")? })
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const LINES: [&str; 6] = [
        "[1] hostile - registers: 7 turns, 3 exceptions\r",
        "[0] ticker - 8 ticks, at most 2071536 ns late, 2044912 ns on average\r",
        "hypervisor: guest 0 turned its machine off",
        "hypervisor: guest 1 turned its machine off",
        "stats - guest 0: HVC: 1 times, at most 2112 ns",
        "stats - guest 1: ITS write: 9 times, at most 91392 ns",
    ];

    fn judged(lines: &[&str]) -> Result<Figures> {
        let mut found = Found::default();
        for line in lines {
            found.line(line);
        }
        found.judge(true)
    }

    #[test]
    fn the_latest_tick_and_the_longest_exit_are_found() {
        let figures = judged(&LINES).unwrap();
        assert_eq!((figures.late, figures.exit()), (2_071_536, 91_392));
        assert_eq!(figures.longest.reason, "ITS write");
    }

    #[test]
    fn a_guest_that_does_not_end_or_does_nothing_fails() {
        for missing in 0..4 {
            let mut lines = LINES.to_vec();
            lines.remove(missing);
            assert!(judged(&lines).is_err(), "without line {missing}");
        }
        for instead in [
            "[1] hostile - registers: 0 turns, 3 exceptions",
            "[1] hostile - registers: 7 turns, 0 exceptions",
        ] {
            let mut lines = LINES.to_vec();
            lines[0] = instead;
            assert!(judged(&lines).is_err(), "{instead}");
        }
        let mut lines = LINES.to_vec();
        lines[1] = "[0] ticker - 7 ticks, at most 1 ns late, 1 ns on average";
        assert!(judged(&lines).is_err());
    }
}
