//! Tables with corrupted words. KVM and the model must reject the same tables, and must interpret
//! all others in the same way.

use super::count::{Count, accept};
use super::fired::{Fired, kvm, model};
use kvm_judge::layout::{
    COLLECTION_TABLE, CPUS, DEVICE_TABLE, RAM, SECOND_LEVEL, SPECIAL, TRANSLATIONS, of_its,
};
use kvm_judge::scenario::{Dice, Levels, Plan, acknowledge_all};
use kvm_judge::{Failure, Machine, Snapshot, saving};

/// Maximum number of plans, and the number of corrupted tables per plan.
const PLANS: u64 = 4;
const SPOILED: u64 = 16;
/// INTID bits in an event's table entry beyond the sixteen that KVM supports. KVM doesn't check
/// these bits, and reads the LPI's configuration from an address that depends on them. The model
/// rejects entries in which they are set.
const BEYOND: u64 = 0xffff_0000_0000;

pub(super) fn run(plans: u64, count: &mut Count) {
    for seed in 0..plans.min(PLANS) {
        count
            .case(&format!("spoiled tables of plan {seed}"), spoiled_tables(&Plan::of(seed), seed));
    }
}

fn spoiled_tables(plan: &Plan, seed: u64) -> Result<(), Failure> {
    let Fired { taken, snapshot, .. } = Fired::of(plan, kvm)?;
    let (mut refused, mut different) = (0, Vec::new());
    for number in 0..SPOILED {
        let mut dice = Dice::new(seed << 32 | number);
        let (spoiled, what) = spoil(&snapshot, plan, &mut dice);
        let theirs = outcome(&mut *kvm()?, &spoiled, &taken, plan);
        let ours = outcome(&mut *model()?, &spoiled, &taken, plan);
        refused += u64::from(theirs.is_err());
        if theirs != ours {
            different.push(format!("{what}: KVM {theirs:?}, Doorbell {ours:?}"));
        }
    }
    println!("note - {refused} of {SPOILED} spoiled tables are refused");
    accept(different.is_empty(), || format!("{} differ: {}", different.len(), different.join("; ")))
}

/// The acknowledged interrupts, in one list per vCPU.
type Acknowledged = Vec<Vec<u32>>;

/// Restores a snapshot on a new machine. Returns the interrupts delivered before and after messages
/// were sent for all of the plan's events, or the reason why the snapshot was rejected.
fn outcome(
    machine: &mut dyn Machine,
    snapshot: &Snapshot,
    taken: &[u32],
    plan: &Plan,
) -> Result<[Acknowledged; 2], String> {
    let text = |error: Failure| error.to_string();
    saving::restore(machine, snapshot).map_err(text)?;
    let restored = acknowledge_all(machine, taken).map_err(text)?;
    for (its, device, event) in plan.events() {
        machine.signal(its, device, event).map_err(text)?;
    }
    let nothing = [SPECIAL; CPUS as usize];
    Ok([restored, acknowledge_all(machine, &nothing).map_err(text)?])
}

/// Changes a word in the tables. The chosen word is either in use or zero.
fn spoil(snapshot: &Snapshot, plan: &Plan, dice: &mut Dice) -> (Snapshot, String) {
    let mut spoiled = snapshot.clone();
    // Compute the corresponding address at the first ITS.
    let place =
        |address: u64| if address >= of_its(1, RAM) { address - of_its(1, 0) } else { address };
    let in_table = |address: u64| match plan.levels {
        Levels::Flat => (DEVICE_TABLE..COLLECTION_TABLE + 0x1_0000).contains(&address),
        Levels::Two => {
            (DEVICE_TABLE..COLLECTION_TABLE + 0x1_0000).contains(&address)
                || address >= SECOND_LEVEL
        }
    } || (TRANSLATIONS..SECOND_LEVEL).contains(&address);
    let mut rows: Vec<_> =
        spoiled.memory.iter_mut().filter(|(address, _)| in_table(place(*address))).collect();
    let row = dice.below(u32::try_from(rows.len()).unwrap_or(1)) as usize;
    let (address, bytes) = &mut *rows[row];
    let words: Vec<_> = bytes.chunks(8).collect();
    let used = words.iter().position(|word| word.iter().any(|byte| *byte != 0)).unwrap_or(0);
    let which = if dice.one_in(4) { dice.below(4) as usize } else { used };
    let word = &mut bytes[8 * which..8 * which + 8];
    let before = u64::from_le_bytes(word.try_into().unwrap_or_default());
    let after = match dice.below(6) {
        0 => 0,
        1 => u64::from(dice.below(u32::MAX)) << 32 | u64::from(dice.below(u32::MAX)),
        2 => before.swap_bytes(),
        _ => before ^ 1 << dice.below(64),
    };
    let is_event = (TRANSLATIONS..SECOND_LEVEL).contains(&place(*address));
    let after = if is_event { after & !BEYOND } else { after };
    word.copy_from_slice(&after.to_le_bytes());
    let what = format!("{:#x}: {before:#x} is {after:#x}", *address + 8 * which as u64);
    (spoiled, what)
}
