//! Saved states that were damaged: whatever is changed in one, it is refused without any effect, or it is a state that
//! the machine can be in, and is then in.

use crate::board::{Board, CPUS, mapd, mapti};
use crate::round_trip::busy;
use gic_arch::lpi::Config;
use msi_types::{Level, Line, SetLine};
use proptest::prelude::*;
use serde_json::{Value, json};
use vgic::saved_state::{InterruptState, SavedState};

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
        group1 || enabled || priority != 0 || edge != sgi || latch || line || message || active || route != 0
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
        board.send(device, event);
    }
    board.gic.poll_its(0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_state_is_refused_without_effect_or_is_what_the_machine_then_is(
        damages in proptest::collection::vec(damage(), 1..4),
    ) {
        let mut tree = serde_json::to_value(busy().save()).unwrap();
        for damage in damages {
            damage.inflict(&mut tree);
        }
        let Ok(mut damaged) = serde_json::from_value::<SavedState>(tree) else { return Ok(()) };
        let mut board = other_work();
        let before = board.save();
        let outcome = board.gic.freeze(&mut board.vcpus).unwrap().restore(&damaged);
        let after = board.save();
        if outcome.is_err() {
            prop_assert_eq!(after, before);
        } else {
            fill_in(&mut damaged, &after);
            prop_assert_eq!(essence(&after), essence(&damaged));
        }
        go_on(&mut board);
    }
}
