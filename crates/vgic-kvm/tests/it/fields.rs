//! Each field of a saved state comes back from KVM's format, or has a reason not to. A field that
//! is new in saved states fails the test until this crate handles it.

use crate::board::fresh;
use crate::round_trip::{memory, moved, states};
use gic_arch::IntId;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use vgic::saved_state::{EnabledLpis, LpiState, SavedState};

/// Fields that come back.
const KEPT: &[&str] = &[
    "cpus.interface.ap0r",
    "cpus.interface.ap1r",
    "cpus.interface.bpr0",
    "cpus.interface.bpr1",
    "cpus.interface.ctlr",
    "cpus.interface.igrpen0",
    "cpus.interface.igrpen1",
    "cpus.interface.pmr",
    "cpus.redistributor.ctlr",
    "cpus.redistributor.interrupts.active",
    "cpus.redistributor.interrupts.edge",
    "cpus.redistributor.interrupts.enabled",
    "cpus.redistributor.interrupts.group1",
    "cpus.redistributor.interrupts.intid",
    "cpus.redistributor.interrupts.latch",
    "cpus.redistributor.interrupts.line",
    "cpus.redistributor.interrupts.priority",
    "cpus.redistributor.pendbaser",
    "cpus.redistributor.propbaser",
    "distributor.ctlr",
    "distributor.interrupts.active",
    "distributor.interrupts.edge",
    "distributor.interrupts.enabled",
    "distributor.interrupts.group1",
    "distributor.interrupts.intid",
    "distributor.interrupts.latch",
    "distributor.interrupts.line",
    "distributor.interrupts.priority",
    "distributor.interrupts.route",
    "its.baser",
    "its.cbaser",
    "its.collections.collection",
    "its.collections.target",
    "its.creadr",
    "its.ctlr",
    "its.cwriter",
    "its.devices.device",
    "its.devices.event_bits",
    "its.devices.events.collection",
    "its.devices.events.event",
    "its.devices.events.intid",
    "its.devices.events.pending",
    "its.devices.itt",
];

const MACHINE: &str = "describes the machine, which must be the same";
const PRIVATE: &str = "is a property of shared interrupts";
const REFUSED: &str = "is refused as `OutsideKvm` unless it has its reset value";
const REREAD: &str = "is read again from the guest's configuration table";
const PENDING: &str = "is merged with the event that maps the LPI";

/// Fields that do not come back, and the reasons.
const NOT_KEPT: &[(&str, &str)] = &[
    ("version", "is checked when a view is created"),
    ("cpus.affinity", MACHINE),
    ("cpus.redistributor.typer", MACHINE),
    ("cpus.redistributor.waker", "has no attribute"),
    ("cpus.redistributor.interrupts.active_at", PRIVATE),
    ("cpus.redistributor.interrupts.chosen", PRIVATE),
    ("cpus.redistributor.interrupts.message", PRIVATE),
    ("cpus.redistributor.interrupts.route", PRIVATE),
    ("cpus.redistributor.lpis.configuration", REREAD),
    ("cpus.redistributor.lpis.intid", PENDING),
    ("cpus.redistributor.enabled_lpis.configuration", REREAD),
    ("cpus.redistributor.enabled_lpis.count", REREAD),
    ("cpus.redistributor.enabled_lpis.first", REREAD),
    ("distributor.iidr", MACHINE),
    ("distributor.typer", MACHINE),
    ("distributor.interrupts.active_at", "is found by the active priorities (module `active`)"),
    ("distributor.interrupts.chosen", REFUSED),
    ("distributor.interrupts.message", REFUSED),
    ("its.base", MACHINE),
    ("its.iidr", MACHINE),
    ("its.typer", MACHINE),
    ("shape.name", MACHINE),
    ("shape.of", MACHINE),
    ("shape.value", MACHINE),
    ("its.devices.events.configuration", REREAD),
    ("its.devices.events.stays_at", "is dropped with the pending state of no collection"),
];

type Fields = BTreeMap<String, Vec<Value>>;

/// Returns the values of each field of a state, in order.
fn fields(state: &SavedState) -> Fields {
    fn walk(path: &str, value: Value, fields: &mut Fields) {
        match value {
            Value::Object(object) => object.into_iter().for_each(|(name, value)| {
                let separator = if path.is_empty() { "" } else { "." };
                walk(&format!("{path}{separator}{name}"), value, fields);
            }),
            Value::Array(values) => values.into_iter().for_each(|value| walk(path, value, fields)),
            value => fields.entry(path.to_owned()).or_default().push(value),
        }
    }
    let mut fields = Fields::new();
    walk("", serde_json::to_value(state).unwrap(), &mut fields);
    fields
}

fn is_set(value: &Value) -> bool {
    ![Value::Null, false.into(), 0.into(), "0x0".into()].contains(value)
}

#[test]
fn each_state_field_is_kept_or_listed_as_not_kept() {
    let (mut runner, before) = (TestRunner::deterministic(), fields(&fresh()));
    let (mut found, mut kept) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..64 {
        let (levels, mut state) = states().new_tree(&mut runner).unwrap().current();
        (state.its[0].creadr, state.its[0].cwriter) = (0x40, 0x40);
        let moved = fields(&moved(&state, &memory(levels)));
        for (name, values) in fields(&state) {
            let is_new = values.iter().any(is_set) && before.get(&name) != Some(&values);
            if is_new && moved.get(&name) == Some(&values) {
                kept.insert(name);
            }
        }
        state.cpus[0].redistributor.lpis.push(LpiState::new(IntId::new(8192)));
        state.cpus[0].redistributor.enabled_lpis.push(EnabledLpis::new(IntId::new(8192), 1, 1));
        found.extend(fields(&state).into_keys());
    }
    assert_eq!(kept, KEPT.iter().map(|name| (*name).to_owned()).collect());
    let listed = KEPT.iter().copied().chain(NOT_KEPT.iter().map(|(name, _)| *name));
    assert_eq!(found, listed.map(str::to_owned).collect());
}
