//! States with one fault each, and KVM's answers to a restore. Both are rows of the table in
//! `data/restore.md`.

use crate::layout::{RAM, RAM_BYTES};
use crate::procedure::{PAGE, Procedure, WrittenPages, plan, to_restore};
use crate::scenario::{Levels, Plan, play};
use crate::{Failure, Machine, Snapshot, memory};
use std::ops::Range;
use vgic::GuestMemory as _;
use vgic_kvm::abi::Errno;
use vgic_kvm::snapshot::KvmSnapshot;

const TABLE: &str = include_str!("../data/restore.md");

/// A state that a row has changed.
#[derive(Debug)]
pub struct Damaged {
    /// The registers and memory.
    pub snapshot: Snapshot,
    /// The same state, with memory exported from a guest that lacks the removed page.
    pub exported: KvmSnapshot,
    /// Ranges of the guest's memory.
    pub ranges: Vec<Range<u64>>,
}

/// Restores the state of each row. Returns the rows for which the answers are not those of the
/// table. `machine` saves the original states, and `restore` restores a changed state.
pub fn different_answers(
    machine: fn() -> Result<Box<dyn Machine>, Failure>,
    restore: impl Fn(&Damaged) -> Result<(), Failure>,
) -> Result<Vec<String>, Failure> {
    let mut different = Vec::new();
    for (name, levels) in [("| flat |", Levels::Flat), ("| two |", Levels::Two)] {
        let original = saved(&mut *machine()?, levels)?;
        for row in TABLE.lines().filter(|row| row.contains(name)) {
            let cells: Vec<_> = row.split('|').map(|cell| cell.replace('`', "")).collect();
            let damaged = Damaged::of(original.clone(), cells[3].trim(), &cells[4])?;
            let failure = restore(&damaged).err().map(|it| it.to_string());
            let answer =
                failure.as_deref().map_or("–", |failure| named(failure).unwrap_or(failure));
            if answer != cells[5].trim() {
                different.push(format!("{answer}: {row}"));
            }
        }
    }
    Ok(different)
}

/// Returns the name of the error in a message.
fn named(message: &str) -> Option<&str> {
    let name = message.split(['(', ')']).find(|word| word.starts_with('E'))?;
    Errno::ALL.iter().any(|errno| errno.to_string().contains(name)).then_some(name)
}

/// Saves a machine that has carried out the plan, with pending LPIs.
fn saved(machine: &mut dyn Machine, levels: Levels) -> Result<KvmSnapshot, Failure> {
    let plan = Plan { levels, ..plan() };
    play(machine, &plan)?;
    Procedure::Documented.save(machine)
}

impl Damaged {
    /// Removes a page, and makes changes in the form of a snapshot's lines.
    fn of(mut exported: KvmSnapshot, page: &str, changes: &str) -> Result<Self, Failure> {
        let changes: Snapshot = changes.replace('–', "").replace("<br>", "\n").parse()?;
        for register in &mut exported.attributes {
            let value = changes.get(register.device, register.attribute);
            register.value = value.unwrap_or(register.value);
        }
        let hex = page.strip_prefix("0x").map(|page| u64::from_str_radix(page, 16));
        let (absent, end) = (hex.transpose()?, RAM + RAM_BYTES as u64);
        let after = absent.map(|page| page + PAGE..end);
        let ranges: Vec<_> = std::iter::once(RAM..absent.unwrap_or(end)).chain(after).collect();

        let (ram, mut snapshot) = (memory::ram()?, to_restore(&exported));
        snapshot.memory.extend(changes.memory);
        snapshot.memory.retain(|(address, _)| absent != Some(address / PAGE * PAGE));
        for (address, bytes) in &snapshot.memory {
            ram.write(*address, bytes)?;
        }
        let written = ranges.iter().flat_map(|range| range.start / PAGE..range.end / PAGE);
        let written = written.collect();
        exported.copy_tables(&WrittenPages { ram, written })?;
        Ok(Self { snapshot, exported, ranges })
    }
}
