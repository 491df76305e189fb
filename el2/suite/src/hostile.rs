//! Runs a hostile guest (`el2/hostile`) next to a guest that waits for its timer, and checks two
//! bounds: the delay of a tick, and the duration of an exit.
//!
//! Virtual time is counted in instructions, so every run has the same results. On several CPUs, it
//! passes while another CPU runs. Therefore we check there for how many of its own instructions a
//! CPU does not look for interrupts ([`latency`]), and that every tick arrives.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use doorbell_facts::{Ending, HostileFact, HypervisorFact};
use doorbell_harness::image::Image;
use doorbell_harness::suite::{Case, Shared};

use crate::board::{Board, COUNTED, COUNTING, GICV4, LIMIT};
use crate::files::{Files, PHYSICAL_RAM, RAM};
use crate::output::Output;
use crate::{built, latency};

/// A guest's time slice while others wait for its CPU (`scheduler.rs`), in nanoseconds.
const TURN: u64 = 2_000_000;
/// Maximum number of instructions from an exit to the next entry: the budgets of an access and of
/// the following entry (`WORK_PER_ACCESS` in `controller.rs`), and the chunks of LPIs that both
/// have already begun.
pub(crate) const EXIT: u64 = 400_000;
/// Maximum delay of a tick in nanoseconds, at one nanosecond per instruction. The other guest first
/// completes the exit in progress at the deadline, then its time slice, and then the exit in
/// progress when the time slice ends.
const LATENCY: u64 = EXIT + TURN + EXIT;

const MEMORY: u32 = 64;
const TICKS: u64 = 8;
/// Duration of the attack, which must outlast all ticks, including their delays.
const MILLISECONDS: u32 = 50;

/// Names of the attacks, and whether the guest must have handled exceptions.
const ATTACKS: &[(&str, bool)] = &[
    ("registers", true),
    ("state-registers", false),
    ("system-registers", true),
    ("undescribed-accesses", true),
    ("calls", false),
    ("fixed-devices", true),
    ("timer", false),
    ("physical-timer", false),
    ("sgis", false),
    ("commands", false),
    ("overlapping-tables", false),
    ("absent-tables", false),
    ("interrupts-to-itself", false),
    ("invalidations", false),
    ("moves", false),
    ("mappings", false),
    ("many-pending", false),
    ("enables", false),
    (LINE, false),
    (MESSAGES, false),
];
/// The attack by INTx, for which each guest has a device, on a line of its own.
const LINE: &str = "line";
const LINE_DEVICES: [&str; 2] = ["edu,addr=1", "edu,addr=2"];
/// The attack on messages that are injected directly. The devices alternate between the guests.
const MESSAGES: &str = "messages";
const MESSAGE_DEVICES: [&str; 2] = ["edu,addr=1", "nvme,serial=1,addr=2"];
/// Attacks in which vCPUs interact, and the number of vCPUs, each of which has its own CPU.
const TOGETHER: &[(&str, u8)] = &[
    ("state-registers", 2),
    ("sgis", 2),
    ("commands", 2),
    ("many-pending", 4),
    ("crowd-toggles", 4),
    (MESSAGES, 4),
    ("enables", 8),
];
/// Number of vCPUs that only compute or sleep.
const CROWD: u8 = 8;
/// Attacks by several vCPUs that share the other guest's CPU, and their number: some with all LPIs
/// pending at them, some by the first on the guest entries of the second.
const CROWDED: &[(&str, u8)] = &[
    ("spin", CROWD),
    ("wake-ups", CROWD),
    ("stale-cleared", 2),
    ("stale-moved", 4),
    ("stale-discarded", 2),
    ("crowd-toggles", 4),
    ("crowd-power", 4),
    ("crowd-invalidations", 4),
];
/// Interval between moves, in milliseconds. A move kicks all vCPUs, so WFI ends without an
/// interrupt.
const MOVE_EVERY: u32 = 7;

/// A run of the two guests.
#[derive(Clone, Copy)]
struct Run {
    attack: &'static str,
    takes_exceptions: bool,
    /// `true` if the first guest uses its physical timer.
    is_physical: bool,
    /// Number of vCPUs of each guest.
    vcpus: u8,
    cpus: u8,
    /// Interval between moves of the guests, in milliseconds.
    move_every: Option<u32>,
}

impl Run {
    const fn of(attack: &'static str, vcpus: u8, cpus: u8) -> Self {
        let (takes_exceptions, is_physical) = (false, false);
        Self { attack, takes_exceptions, is_physical, vcpus, cpus, move_every: None }
    }

    fn name(&self) -> String {
        let Self { attack, vcpus, cpus, .. } = self;
        let moved = if self.move_every.is_some() { ", moved" } else { "" };
        match (cpus, vcpus) {
            _ if self.is_physical => format!(
                "a guest's ticks of its physical timer come in time beside `{attack}` of {vcpus} \
                 vCPUs{moved}"
            ),
            _ if self.move_every.is_some() => {
                format!("a guest's ticks come beside `{attack}` of {vcpus} vCPUs{moved}")
            }
            (1, 1) => format!("a guest's ticks come in time beside `{attack}`"),
            (1, _) => format!("a guest's ticks come in time beside `{attack}` of {vcpus} vCPUs"),
            _ => format!("exits on {cpus} CPUs are short despite `{attack}`"),
        }
    }

    fn command(&self) -> Result<Command> {
        let Self { vcpus, cpus, move_every, .. } = *self;
        let devices: &[&str] = match self.attack {
            LINE => &LINE_DEVICES,
            MESSAGES => &MESSAGE_DEVICES,
            _ => &[],
        };
        let board = Board { vcpus, cpus, devices, move_every, stats: cpus == 1, ..BOARD };
        let direct = self.attack == MESSAGES;
        let board = if direct { Board { machine: GICV4, direct, ..board } } else { board };
        let words = format!("attack={} milliseconds={MILLISECONDS} vcpus={vcpus}", self.attack);
        let timer = if self.is_physical { "physical" } else { "virtual" };
        let ticks = format!("ticks={TICKS} timer={timer}");
        let mut qemu = board.command(&[guest(&ticks)?, guest(&words)?])?;
        qemu.args(COUNTED);
        if cpus > 1 {
            latency::counted(&mut qemu)?;
        }
        Ok(qemu)
    }

    /// Runs the guests and checks their results.
    fn judge(&self) -> Result<()> {
        let output = Output::of(&mut self.command()?)?;
        let counted = latency::counts(&output).count();
        ensure!(
            self.cpus == 1 || counted == usize::from(self.cpus),
            "{counted} CPUs looked for interrupts"
        );
        let Figures { late, exit, reason } = Figures::of(&output, self.takes_exceptions)?;
        let Self { attack, cpus, .. } = self;
        eprintln!("{attack} on {cpus} CPUs: {late} ns late, {exit} in an exit: {reason}");
        if self.move_every.is_none() {
            ensure!(self.cpus > 1 || late <= LATENCY, "a tick came {late} ns late");
            ensure!(exit <= EXIT, "an exit took {exit} instructions: {reason}");
        }
        Ok(())
    }
}

/// A machine with one CPU for guests of this image that have one vCPU each.
pub(crate) const BOARD: Board<'_> = Board::plain(COUNTING, MEMORY);

/// Runs guests of this image.
pub(crate) fn run(board: Board<'_>, guests: &[Files<'_>]) -> Result<Output> {
    Output::of(board.command(guests)?.args(COUNTED))
}

/// Returns the files of a guest with the command line `words`.
pub(crate) fn guest(words: &str) -> Result<Files<'_>> {
    static IMAGE: Shared<Image> = Shared::new();
    linked(&IMAGE, RAM, words)
}

/// Returns the files of two trusted guests, whose RAM is at its physical addresses.
pub(crate) fn trusted(words: &str) -> Result<[Files<'_>; 2]> {
    static IMAGES: [Shared<Image>; 2] = [const { Shared::new() }; 2];
    let [first, second] = &IMAGES;
    let place = PHYSICAL_RAM + (u64::from(MEMORY) << 20);
    Ok([linked(first, PHYSICAL_RAM, words)?, linked(second, place, words)?])
}

fn linked<'a>(image: &'static Shared<Image>, address: u64, words: &'a str) -> Result<Files<'a>> {
    Ok(Files::alone(&image.get(|| built::guest("hostile", address))?.flat, words))
}

/// Lists the cases: each attack on one CPU, and some on several.
pub(crate) fn cases() -> Vec<Case> {
    let alone = ATTACKS
        .iter()
        .map(|&(attack, takes_exceptions)| Run { takes_exceptions, ..Run::of(attack, 1, 1) });
    let together = TOGETHER.iter().map(|&(attack, cpus)| Run::of(attack, cpus, cpus));
    let shared = CROWDED.iter().map(|&(attack, vcpus)| Run::of(attack, vcpus, 1));
    let moved = Run { move_every: Some(MOVE_EVERY), ..Run::of("spin", CROWD, 1) };
    let physical = [Run::of("timer", 1, 1), Run::of("wake-ups", CROWD, 1), moved]
        .map(|run| Run { is_physical: true, ..run });
    let all = alone.chain(together).chain(shared).chain([moved]).chain(physical);
    all.map(|run| built::case(run.name(), LIMIT, move || run.judge())).collect()
}

/// Returns the number of turns and of exceptions of a guest's attack.
pub(crate) fn attacked(output: &Output, number: usize) -> Option<(u64, u64)> {
    match *output.hostile(number)? {
        HostileFact::Attacked { turns, exceptions, .. } => Some((turns, exceptions)),
        _ => None,
    }
}

/// Returns the duration in nanoseconds and the reason of the longest exit, or the largest number of
/// instructions and its CPU.
pub(crate) fn longest(output: &Output) -> Option<(u64, String)> {
    let exits = output.hypervisor().filter_map(|fact| match fact {
        HypervisorFact::Count { reason, longest, .. } => Some((*longest, reason.to_string())),
        _ => None,
    });
    exits.chain(latency::counts(output)).max()
}

/// Measurements from a run.
#[derive(Debug)]
struct Figures {
    /// Delay of the latest tick in nanoseconds.
    late: u64,
    /// Duration of the longest exit in nanoseconds.
    exit: u64,
    reason: String,
}

impl Figures {
    /// Returns the figures of a run in which all ticks arrived.
    fn of(output: &Output, takes_exceptions: bool) -> Result<Self> {
        let Some(&HostileFact::Ticked { ticks: TICKS, latest: late, .. }) = output.hostile(0)
        else {
            bail!("the first guest did not receive {TICKS} ticks");
        };
        let attacked = attacked(output, 1);
        let (turns, exceptions) = attacked.context("the hostile guest did not report")?;
        ensure!(turns > 0, "the hostile guest did nothing");
        ensure!(!takes_exceptions || exceptions > 0, "there were no exceptions");
        for guest in [0, 1] {
            let is_off = output.ending(guest) == Some(Ending::Off);
            ensure!(is_off, "guest {guest} did not turn its machine off");
        }
        let (exit, reason) = longest(output).context("the hypervisor did not report counts")?;
        Ok(Self { late, exit, reason })
    }
}
