//! Saved states that were damaged: whatever is changed in one, it is refused without any effect, or it is a state that
//! the machine can be in, and is then in.

use crate::board::{Board, CPUS, config, mapd, mapti};
use crate::round_trip::busy;
use gic_arch::lpi::Config;
use gic_arch::{IntId, gicd, icc};
use msi_types::{Cpu, Level, Line, SetLine};
use proptest::prelude::*;
use serde_json::{Value, json};
use vgic::saved_state::{InterruptState, SavedState};
use vgic::{SecurityView, VgicConfig};

/// One damage: where (of all places, modulo their number) and what.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// A bit of a number flips.
    Bit {
        at: usize,
        bit: u32,
    },
    /// Another number.
    Number {
        at: usize,
        number: u64,
    },
    /// A number becomes that of another place.
    Copy {
        at: usize,
        from: usize,
    },
    /// A list loses an element, or has one twice, or two change places.
    Remove {
        list: usize,
        at: usize,
    },
    Repeat {
        list: usize,
        at: usize,
    },
    Swap {
        list: usize,
        at: usize,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<usize>;
    prop_oneof![
        6 => (at(), prop_oneof![0..8u32, 0..64u32]).prop_map(|(at, bit)| Damage::Bit { at, bit }),
        2 => (at(), prop_oneof![0..70_000u64, any::<u64>()]).prop_map(|(at, number)| Damage::Number { at, number }),
        2 => (at(), at()).prop_map(|(at, from)| Damage::Copy { at, from }),
        1 => (at(), at()).prop_map(|(list, at)| Damage::Remove { list, at }),
        1 => (at(), at()).prop_map(|(list, at)| Damage::Repeat { list, at }),
        1 => (at(), at()).prop_map(|(list, at)| Damage::Swap { list, at }),
    ]
}

/// All places of a kind in a text's tree.
fn places<'a>(value: &'a mut Value, is_meant: fn(&Value) -> bool, found: &mut Vec<&'a mut Value>) {
    if is_meant(value) {
        found.push(value);
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| places(item, is_meant, found)),
        Value::Object(fields) => fields.values_mut().for_each(|field| places(field, is_meant, found)),
        _ => {}
    }
}

/// The place that is reached by a choice at each branch.
fn on_place(tree: &mut Value, mut choice: usize, change: impl FnOnce(&mut Value)) {
    let mut at = tree;
    loop {
        let mut branches: Vec<&mut Value> = match at {
            Value::Array(items) => items.iter_mut().collect(),
            Value::Object(fields) => fields.values_mut().collect(),
            leaf => return change(leaf),
        };
        if branches.is_empty() {
            return;
        }
        let chosen = choice % branches.len();
        choice /= branches.len();
        at = branches.swap_remove(chosen);
    }
}

/// Lists of objects: the others have a fixed length.
fn has_list(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.first().is_some_and(Value::is_object))
}

/// The lists, of those within each other any.
fn on_list(tree: &mut Value, list: usize, change: impl FnOnce(&mut Vec<Value>)) {
    let mut at = tree;
    let mut choice = list;
    loop {
        let lists = lists_in(at);
        let chosen = choice % lists.max(1);
        choice /= lists.max(1);
        let mut found = Vec::new();
        places(at, has_list, &mut found);
        let Some(Value::Array(items)) = found.into_iter().nth(chosen) else { return };
        let below = items.len() + 1;
        let (here, deeper) = (choice % below, choice / below);
        if here == 0 || lists_in(&mut items[here - 1]) == 0 {
            return change(items);
        }
        (at, choice) = (&mut items[here - 1], deeper);
    }
}

fn lists_in(value: &mut Value) -> usize {
    let mut found = Vec::new();
    places(value, has_list, &mut found);
    found.len()
}

impl Damage {
    fn inflict(self, tree: &mut Value) {
        match self {
            Self::Bit { at, bit } => on_place(tree, at, |value| {
                *value = match &*value {
                    Value::Bool(flag) => json!(!flag),
                    other => json!(other.as_u64().unwrap_or(0) ^ (1 << bit)),
                }
            }),
            Self::Number { at, number } => on_place(tree, at, |value| *value = json!(number)),
            Self::Copy { at, from } => {
                let mut copied = Value::Null;
                on_place(tree, from, |value| copied = value.clone());
                on_place(tree, at, |value| *value = copied);
            }
            Self::Remove { list, at } => on_list(tree, list, |items| drop(items.remove(at % items.len()))),
            Self::Repeat { list, at } => on_list(tree, list, |items| {
                let at = at % items.len();
                items.insert(at, items[at].clone());
            }),
            Self::Swap { list, at } => on_list(tree, list, |items| {
                let at = at % items.len();
                items.swap(0, at);
            }),
        }
    }
}

/// Another guest in the middle of other work.
fn other_work() -> Board {
    let mut board = Board::running();
    board.run([mapd(77, 5, 0x4010_0000), mapti(77, 3, 8230, 1)]);
    board.send(77, 3);
    board.gic.set_line(Line::Spi(44), Level::High);
    board.enable_spi(44);
    assert_eq!(board.acknowledge(1), 8230);
    board
}

/// A guest that sees the Non-secure side of its GIC, in the middle of its work.
pub(crate) fn non_secure() -> Board {
    let mut board = Board::new(VgicConfig {
        security: SecurityView::NonSecure,
        secure_interrupts: vec![IntId::new(33), IntId::new(15)],
        its: Vec::new(),
        lpi_id_bits: None,
        redistributor_invalidation: false,
        priority_bits: 6,
        ..config()
    });
    board.enable_spi(40);
    board.enable_spi(41);
    board.enable_private(1, 27);
    board.msr(1, icc::PMR.encoding(), 0xf0);
    board.msr(1, icc::IGRPEN1.encoding(), 1);
    board.write_gicd(gicd::CTLR, gicd::Ctlr::from(2));
    for line in [Line::Spi(33), Line::Spi(40), Line::Ppi { cpu: Cpu::new(1), intid: 27 }] {
        board.gic.set_line(line, Level::High);
    }
    assert_eq!(board.acknowledge(1), 27);
    board
}

/// What a state says apart from what may be said in several ways.
fn essence(saved: &SavedState) -> SavedState {
    let mut saved = saved.clone();
    let canonical = |byte: Option<u8>| {
        byte.map(|byte| {
            let config = Config::from_bits(byte);
            Config::new()
                .with_enable(config.enable())
                .with_priority(config.priority().truncated(5))
                .into_bits()
        })
    };
    essential(&mut saved.distributor.interrupts);
    for cpu in &mut saved.cpus {
        essential(&mut cpu.redistributor.interrupts);
        for lpi in &mut cpu.redistributor.lpis {
            lpi.configuration = canonical(lpi.configuration);
        }
    }
    for event in saved.its.iter_mut().flat_map(|its| &mut its.devices).flat_map(|device| &mut device.events) {
        event.configuration = canonical(event.configuration);
    }
    saved
}

/// Interrupts that are as after reset need not be listed. Which CPU a 1-of-N interrupt goes to is chosen anew where the
/// chosen one takes no part.
fn essential(interrupts: &mut Vec<InterruptState>) {
    for interrupt in &mut *interrupts {
        interrupt.chosen = None;
    }
    interrupts.retain(|interrupt| {
        let InterruptState { group1, enabled, priority, edge, latch, line, message, active, route, .. } =
            *interrupt;
        let sgi = interrupt.intid.get() < 16;
        let initial = matches!((group1, priority), (false, 0) | (true, 0x80));
        !initial || enabled || edge != sgi || latch || line || message || active || route != 0
    });
}

/// Where a state leaves something open, it is as the machine has it.
fn fill_in(open: &mut SavedState, found: &SavedState) {
    let events = |state: &mut SavedState| -> Vec<_> {
        let devices = state.its.iter().flat_map(|its| &its.devices);
        devices.flat_map(|device| &device.events).map(|event| (event.stays_at, event.configuration)).collect()
    };
    let known = events(&mut found.clone());
    let open_events =
        open.its.iter_mut().flat_map(|its| &mut its.devices).flat_map(|device| &mut device.events);
    for (event, (stays_at, configuration)) in open_events.zip(known) {
        event.stays_at = event.stays_at.or(stays_at);
        event.configuration = event.configuration.or(configuration);
    }
    for (cpu, found) in open.cpus.iter_mut().zip(&found.cpus) {
        for (lpi, found) in cpu.redistributor.lpis.iter_mut().zip(&found.redistributor.lpis) {
            lpi.configuration = lpi.configuration.or(found.configuration);
        }
    }
}

/// What a guest and its devices then do harms nobody.
fn go_on(board: &mut Board) {
    for cpu in 0..usize::from(CPUS) {
        for _ in 0..20 {
            let intid = board.acknowledge(cpu);
            board.end(cpu, intid);
        }
    }
    for (device, event) in [(5, 0), (5, 7), (0x1234, 40)] {
        if board.gic.its(0).is_some() {
            board.send(device, event);
        }
    }
    board.gic.poll_its(0);
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    proptest::collection::vec(damage(), 1..4)
}

/// Damages what `source` saves, and has `board` restored from it.
fn refused_or_restored(source: &mut Board, board: &mut Board, all: &[Damage]) -> Result<(), TestCaseError> {
    let mut tree = serde_json::to_value(source.save()).unwrap();
    for damage in all {
        damage.inflict(&mut tree);
    }
    let Ok(mut received) = serde_json::from_value::<SavedState>(tree) else { return Ok(()) };
    let before = board.save();
    let outcome = board.gic.freeze(&mut board.vcpus).unwrap().restore(&received);
    let after = board.save();
    if outcome.is_err() {
        prop_assert_eq!(after, before);
    } else {
        fill_in(&mut received, &after);
        prop_assert_eq!(essence(&after), essence(&received));
    }
    go_on(board);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_state_is_refused_without_effect_or_is_what_the_machine_then_is(damages in damages()) {
        refused_or_restored(&mut busy(), &mut other_work(), &damages)?;
    }

    #[test]
    fn so_is_one_of_a_machine_with_two_security_states(damages in damages()) {
        let mut other = non_secure();
        other.acknowledge(1);
        other.gic.set_line(Line::Spi(41), Level::High);
        refused_or_restored(&mut non_secure(), &mut other, &damages)?;
    }
}
