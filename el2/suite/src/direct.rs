//! Tests direct injection (GICv4): a device's messages reach the guest without an exit. QEMU's log
//! shows the ITS's commands, and which interrupts the CPU interfaces acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use doorbell_facts::HypervisorFact;
use doorbell_harness::suite::Case;

use crate::board::{Board, COUNTED, Controller, GICV3, GICV4, LIMIT};
use crate::costs::Costs;
use crate::microbench::{self, DIRECT, TURNS};
use crate::output::Output;
use crate::{built, hostile};

/// Operation of the guest: a message of its device.
const MESSAGE: &str = "msi";
/// Maximum number of instructions of a message. On Linux's KVM with GICv4, it takes 99.
const INSTRUCTIONS: u64 = 120;
/// Other operations if each vCPU has its own CPU, and their limits: a message to a vCPU in WFI, a
/// move of the message's interrupt by the guest, and an SGI to a vCPU in WFI, which has the limit
/// without direct injection. On Linux 6.1's KVM with GICv4, they take 41, 9,407 and 7,775.
const LIMITS: [(&str, u64); 3] = [("wake", 41), ("move", 6_700), ("ipi", 856)];
/// Limits if the vCPUs share a CPU, where each change between them also changes the resident vPE.
const SHARED_LIMITS: [(&str, u64); 2] = [("wake", 3_946), ("ipi", 4_262)];
/// QEMU's events.
const EVENTS: [&str; 4] =
    ["gicv3_its_cmd_*", "gicv3_its_translation_write", "gicv3_icv_iar_read", "gicv3_icc_iar1_read"];
const FIRST_LPI: u64 = 8192;
/// Number of vPEs of all guests (`MAX_VPES` of the hypervisor), and of a guest's vCPUs.
const VPES: usize = 64;
const MOST_VCPUS: u8 = 8;

/// Lists the cases.
pub(crate) fn cases() -> Vec<Case> {
    let of = |name, judge: fn() -> Result<()>| built::case(name, LIMIT, judge);
    vec![
        of("a direct message takes at most 120 instructions and no exit", costs),
        of("a direct message is counted once, and its event is handed over in order", || {
            order(2, 1)
        }),
        of("a direct message reaches a vCPU that shares its CPU, and is counted once", || {
            order(1, 1)
        }),
        of("direct messages of two guests are counted once", || order(2, 2)),
        of("direct messages of two guests that share a CPU are counted once", || order(1, 2)),
        of("direct messages of a guest are counted once beside a guest that attacks", neighbor),
        of("direct injection is refused with the reason", refusals),
    ]
}

/// Checks the cost of a message, and counts the exits between the messages in a second run.
fn costs() -> Result<()> {
    let costs = microbench::costs(DIRECT)?;
    eprintln!("instructions with direct injection: {costs}");
    for (operation, limit) in [(MESSAGE, INSTRUCTIONS)].iter().chain(&LIMITS) {
        costs.judge_instructions(operation, *limit)?;
    }
    costs.judge_exits(MESSAGE, 0)
}

/// Runs guests of two vCPUs, and checks the ITS's commands and the number of interrupts.
fn order(cpus: u8, guests: u8) -> Result<()> {
    let log = built::log_of(&format!("direct-{cpus}-{guests}"))?;
    let mut qemu = microbench::command(Board { cpus, ..DIRECT }, guests.into())?;
    logged(&mut qemu, &log);
    let output = Output::of(&mut qemu)?;
    let vpes = output.hypervisor().filter_map(|fact| match fact {
        HypervisorFact::Direct { vpes, .. } => Some(vpes),
        _ => None,
    });
    let (vpes, costs) = (vpes.sum::<usize>(), Costs::of(&output));
    eprintln!("instructions of 2 vCPUs on {cpus} CPUs with direct injection: {costs}");
    if (cpus, guests) == (1, 1) {
        for (operation, limit) in SHARED_LIMITS {
            costs.judge_instructions(operation, limit)?;
        }
    }
    let log = Log::read(&log)?;
    // The machine is turned off when the last guest ends.
    let freed = vpes - vpes / usize::from(guests);
    ensure!(log.count("VMAPP") == vpes + freed, "{} VMAPP of {vpes} vPEs", log.count("VMAPP"));
    ensure!(vpes == 2 * usize::from(guests), "{vpes} vPEs of {guests} guests");
    log.judge_order()?;
    let (sent, taken, doorbells) = (log.sent(), log.taken(), log.doorbells()?);
    let expected = 2 * u64::from(guests) * TURNS;
    ensure!(sent == expected, "the devices sent {sent} messages, not {TURNS} for each vCPU");
    ensure!(taken == sent, "the guests took {taken} LPIs of {sent} messages");
    let expected = if vpes > cpus.into() { 1..=sent } else { 0..=0 };
    ensure!(expected.contains(&doorbells), "{doorbells} doorbells rang");
    Ok(())
}

/// Runs a guest next to one whose events change all the time, and checks that it takes each of its
/// messages once.
fn neighbor() -> Result<()> {
    let log = built::log_of("direct-neighbor")?;
    let board = Board { devices: &[microbench::DEVICE, "nvme,serial=1"], cpus: 1, ..DIRECT };
    let attack = hostile::guest("attack=messages milliseconds=150")?;
    let mut qemu = board.command(&[microbench::guest()?, attack])?;
    qemu.args(COUNTED);
    logged(&mut qemu, &log);
    let attacked = hostile::attacked(&Output::of(&mut qemu)?, 1);
    ensure!(attacked.is_some(), "the other guest did not attack");
    let log = Log::read(&log)?;
    log.judge_order()?;
    // The first device is the neighbor's.
    let (device, sent) = log.messages.first_key_value().context("no messages")?;
    let taken = log.taken_of(|operands| operands.get("DeviceID") == Some(device));
    let others = |(name, operands): &&(String, Operands)| {
        name == "DISCARD" && operands.get("DeviceID") != Some(device)
    };
    let others = log.commands.iter().filter(others).count();
    ensure!(*sent == 2 * TURNS, "the neighbor's device sent {sent} messages");
    ensure!(taken == *sent, "the neighbor took {taken} LPIs of {sent} messages");
    ensure!(others > 1_000, "the other guest changed only {others} mappings");
    Ok(())
}

/// Checks that the guest's messages arrive through the hypervisor, which says why.
fn refusals() -> Result<()> {
    let controller = Controller::DirectLpi;
    for (board, expected) in [
        (Board { machine: GICV3, ..DIRECT }, "the ITS does not implement GICv4.0"),
        (Board { controller, ..DIRECT }, "the guest has no ITS"),
    ] {
        let output = Output::of(&mut microbench::command(board, 1)?)?;
        judge_refusal(&output, expected)?;
        let is_direct = Costs::of(&output).judge_instructions(MESSAGE, INSTRUCTIONS).is_ok();
        ensure!(!is_direct, "the message is direct, although {expected}");
    }
    // The last guest finds no vPEs.
    let many = Board { machine: GICV4, direct: true, vcpus: MOST_VCPUS, ..hostile::BOARD };
    let guests = [hostile::guest("delay=1")?; VPES / MOST_VCPUS as usize + 1];
    judge_refusal(&hostile::run(many, &guests)?, "the vPE table is full")
}

fn judge_refusal(output: &Output, expected: &str) -> Result<()> {
    let mut reasons = output.hypervisor().rev().filter_map(|fact| match fact {
        HypervisorFact::NotDirect { reason, .. } => Some(reason),
        _ => None,
    });
    let reason = reasons.next().context("the hypervisor did not refuse")?;
    ensure!(reason.contains(expected), "`{reason}` instead of `{expected}`");
    Ok(())
}

/// Makes QEMU log the events.
pub(crate) fn logged(qemu: &mut Command, log: &Path) {
    qemu.args(EVENTS.iter().flat_map(|event| ["-trace", event])).arg("-D").arg(log);
}

/// Checks a Linux guest whose devices' messages were all injected directly, and whose interrupts
/// moved. `expected` is the number of doorbells. Returns the number of events that were taken back
/// while they were pending.
pub(crate) fn judge_linux(log: &Path, expected: &RangeInclusive<u64>) -> Result<u64> {
    let log = Log::read(log)?;
    log.judge_order()?;
    let (sent, taken, moves) = (log.sent(), log.taken(), log.count("VMOVI"));
    let Log { coalesced, taken_back, recalled, .. } = log;
    let doorbells = log.doorbells()?;
    eprintln!(
        "{taken} virtual LPIs of {sent} messages ({coalesced} coalesced), {moves} VMOVI, \
         {doorbells} doorbells, {taken_back} events taken back, {recalled} of them while pending"
    );
    // An event that is taken back counts as pending.
    let possible = sent - coalesced..=sent + taken_back;
    ensure!(possible.contains(&taken), "the guest took {taken} LPIs, not {possible:?}");
    ensure!(moves > 0, "no event moved");
    ensure!(expected.contains(&doorbells), "{doorbells} doorbells rang");
    Ok(recalled)
}

/// QEMU's log of a run.
#[derive(Debug, Default)]
struct Log {
    /// Commands of the ITS: the name, and the operands.
    commands: Vec<(String, Operands)>,
    /// Number of messages of each device.
    messages: BTreeMap<u64, u64>,
    /// Number of messages of direct events that were already pending.
    coalesced: u64,
    /// Number of direct events that were taken back, and of those that were pending.
    taken_back: u64,
    recalled: u64,
    /// Number of times that the guests acknowledged an INTID.
    virtual_lpis: BTreeMap<u64, u64>,
    /// Number of times that the hypervisor acknowledged an LPI.
    physical_lpis: BTreeMap<u64, u64>,
}

/// A command's operands, by name.
type Operands = BTreeMap<String, u64>;

impl Log {
    fn read(log: &Path) -> Result<Self> {
        let text = fs::read_to_string(log);
        Self::parse(&text.with_context(|| format!("cannot read {}", log.display()))?)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut log = Self::default();
        // For each direct event, its virtual LPI, and whether it is pending.
        let mut direct = BTreeMap::new();
        for line in text.lines() {
            let (event, detail) = line.split_once(' ').unwrap_or((line, ""));
            let intid = || {
                let value = detail.rsplit(" value ").next().and_then(number);
                value.filter(|intid| *intid >= FIRST_LPI)
            };
            if let Some(command) = event.strip_prefix("gicv3_its_cmd_") {
                let words: Vec<_> = detail.split(' ').collect();
                let named = |pair: &[&str]| Some((pair[0].to_owned(), number(pair[1])?));
                let operands: Operands = words.windows(2).filter_map(named).collect();
                let event = ["DeviceID", "EventID"].map(|name| operands.get(name).copied());
                match operands.get("vINTID") {
                    Some(lpi) => _ = direct.insert(event, (*lpi, false)),
                    None if command == "discard" => {
                        let removed = direct.remove(&event);
                        log.taken_back += u64::from(removed.is_some());
                        log.recalled += u64::from(matches!(removed, Some((_, true))));
                    }
                    None => {}
                }
                log.commands.push((command.to_uppercase(), operands));
            } else if event == "gicv3_its_translation_write" {
                let operand = |name| detail.split_once(name)?.1.split(' ').next().and_then(number);
                let event = [operand("requester_id "), operand(" data ")];
                *log.messages.entry(event[0].unwrap_or_default()).or_default() += 1;
                if let Some((_, is_pending)) = direct.get_mut(&event) {
                    log.coalesced += u64::from(mem::replace(is_pending, true));
                }
            } else if event == "gicv3_icv_iar_read" {
                if let Some(lpi) = intid() {
                    *log.virtual_lpis.entry(lpi).or_default() += 1;
                    let all = direct.values_mut().filter(|(direct, _)| *direct == lpi);
                    all.for_each(|(_, is_pending)| *is_pending = false);
                }
            } else if event == "gicv3_icc_iar1_read"
                && let Some(lpi) = intid()
            {
                *log.physical_lpis.entry(lpi).or_default() += 1;
            }
        }
        ensure!(!log.commands.is_empty(), "QEMU's log has no commands");
        Ok(log)
    }

    fn count(&self, name: &str) -> usize {
        self.commands.iter().filter(|(command, _)| command == name).count()
    }

    fn sent(&self) -> u64 {
        self.messages.values().sum()
    }

    /// Returns the number of direct virtual LPIs that the guests acknowledged.
    fn taken(&self) -> u64 {
        self.taken_of(|_| true)
    }

    /// Returns the same number for the virtual LPIs of commands with such operands.
    fn taken_of(&self, is_one: impl Fn(&Operands) -> bool) -> u64 {
        let all = self.commands.iter().filter(|(_, operands)| is_one(operands));
        let direct: BTreeSet<_> = all.filter_map(|(_, operands)| operands.get("vINTID")).collect();
        direct.into_iter().filter_map(|lpi| self.virtual_lpis.get(lpi)).sum()
    }

    /// Returns the values of this operand in all commands.
    fn operands(&self, name: &str) -> BTreeSet<u64> {
        self.commands.iter().filter_map(|(_, operands)| operands.get(name).copied()).collect()
    }

    /// Checks that the hypervisor took no device's message. Returns the number of doorbells that it
    /// took.
    fn doorbells(&self) -> Result<u64> {
        let doorbells = self.operands("Dbell_pINTID");
        let taken = self.physical_lpis.iter();
        let (rung, others): (Vec<_>, Vec<_>) = taken.partition(|(lpi, _)| doorbells.contains(lpi));
        ensure!(others.is_empty(), "the hypervisor took LPIs {others:?}");
        Ok(rung.into_iter().map(|(_, count)| count).sum())
    }

    /// Checks that each vPE is mapped and invalidated before it is used, that each event has left
    /// its LPI before it is handed over, and that each change of a virtual LPI is synchronized.
    fn judge_order(&self) -> Result<()> {
        let name = |index: usize| self.commands.get(index).map_or("nothing", |it| &it.0);
        let event = |index: usize| {
            let (_, operands) = &self.commands[index];
            ["DeviceID", "EventID"].map(|operand| operands.get(operand))
        };
        ensure!(self.count("VMAPTI") > 0, "no event is handed over");
        // For each event, the vPE to which it is mapped.
        let mut direct = BTreeMap::new();
        for (index, (command, operands)) in self.commands.iter().enumerate() {
            match command.as_str() {
                "VMAPTI" | "VMOVI" => _ = direct.insert(event(index), operands.get("vPEID")),
                "DISCARD" => _ = direct.remove(&event(index)),
                _ => {}
            }
            match command.as_str() {
                "VMAPP" if operands.get("V") == Some(&1) => {
                    let after = [1, 2, 3].map(|more| name(index + more));
                    ensure!(after == ["VSYNC", "VINVALL", "VSYNC"], "VMAPP, then {after:?}");
                }
                "VMAPTI" => {
                    let (before, after) = ([index - 2, index - 1].map(name), name(index + 1));
                    let is_left = matches!(before, ["DISCARD", "SYNC" | "VSYNC"]);
                    ensure!(is_left, "{before:?}, then VMAPTI {operands:x?}");
                    ensure!(event(index - 2) == event(index), "another event is discarded");
                    ensure!(after == "VSYNC", "VMAPTI, then {after}");
                }
                "VMAPP" => {
                    let vpe = operands.get("vPEID");
                    let is_mapped = direct.values().any(|mapped| *mapped == vpe);
                    ensure!(!is_mapped, "vPE {vpe:?} is unmapped before its events");
                    ensure!(name(index + 1) == "VSYNC", "VMAPP, then {}", name(index + 1));
                }
                "VMOVI" | "VMOVP" if name(index + 1) != "VSYNC" => {
                    bail!("{command}, then {}", name(index + 1));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
