//! Tests with malformed and hostile files.

use super::guest::{CONFIG, Guest, ITS, PENDING};
use super::{of_model, rules};
use crate::snapshot::diff::differences;
use crate::snapshot::explain::{Question, answer};
use crate::snapshot::file::{parse, read};
use crate::snapshot::inspect::Summary;
use gic_arch::IntId;
use msi_types::{DeviceId, EventId};
use serde_json::{Value, json};
use vgic::its::ItsConfig;
use vgic::saved_state::DeviceState;

/// Reads a file, and passes it to every command. The commands may fail, but must not panic.
fn use_all(bytes: &[u8]) {
    let Ok(machine) = parse("hostile", bytes) else { return };
    let _ = rules(&machine);
    let _ = Summary::of(&machine);
    assert_eq!(differences(&machine, &machine), []);
    let question = Question::Event(0, DeviceId::new(8), EventId::new(0));
    let _ = answer(&machine, question, false);
}

fn error(value: &Value) -> String {
    format!("{:#}", parse("file", &serde_json::to_vec(value).unwrap()).unwrap_err())
}

fn model() -> Value {
    serde_json::to_value(Guest::new().save()).unwrap()
}

fn kvm() -> Value {
    serde_json::to_value(Guest::new().kvm()).unwrap()
}

#[test]
fn files_that_are_not_snapshots_are_refused_with_a_reason() {
    assert!(error(&json!({})).contains("none of the fields `format`, `version` and `gic`"));
    assert!(error(&json!({ "version": 7 })).contains("version is 7, but this command reads 2"));
    assert!(error(&json!({ "format": "kvm-vgic", "version": 1 })).contains("missing field `cpus`"));
    let mut other = kvm();
    other["version"] = json!(2);
    assert!(error(&other).contains("version 2, but this library reads"));
    let mut unknown = kvm();
    unknown["attributes"][0]["group"] = json!(99);
    assert!(error(&unknown).contains("no attribute group 99"));
    let mut odd = kvm();
    odd["attributes"][0]["value"] = json!("-0x1");
    assert!(error(&odd).contains("a number must be a string such as"));
}

#[test]
fn machines_that_are_too_large_are_refused() {
    let mut many = kvm();
    let cpu = many["cpus"][0].clone();
    many["cpus"] = vec![cpu; 513].into();
    assert!(error(&many).contains("513 vCPUs; 1 to 512 are supported"));
    let mut none = kvm();
    none["cpus"] = json!([]);
    assert!(error(&none).contains("0 vCPUs"));
    let mut same = kvm();
    same["cpus"][1] = same["cpus"][0].clone();
    assert!(error(&same).contains("two vCPUs have the affinity"));
    let mut its = model();
    let one = its["its"][0].clone();
    its["its"] = vec![one; 17].into();
    assert!(error(&its).contains("17 ITSes; at most 16 are supported"));
}

#[test]
fn a_gic_state_embedded_in_a_monitor_state_is_read() {
    let mut guest = Guest::new();
    let embedded = json!({ "gic": guest.save(), "function": { "vectors": [] } });
    let machine = parse("monitor", &serde_json::to_vec(&embedded).unwrap()).unwrap();
    assert_eq!(differences(&machine, &of_model(&guest.save())), []);
}

#[test]
fn a_state_with_a_million_lpis_is_read() {
    const EVENTS: u32 = (1 << 16) - (1 << 9);
    let config = Guest::config_with(ItsConfig::new(ITS)).with_lpi_id_bits(Some(20));
    let mut state = Guest::with(config).save();
    for (cpu, table) in state.cpus.iter_mut().zip([PENDING, PENDING + 0x10_0000]) {
        cpu.redistributor.propbaser = CONFIG | 0x13;
        cpu.redistributor.pendbaser = table;
    }
    let device = state.its[0].devices.remove(0);
    for number in 0..16 {
        let of_event = |event| {
            let mut state = device.events[0];
            state.event = EventId::new(event);
            state.intid = IntId::new(8192 + EVENTS * number + event);
            state
        };
        let mut more = DeviceState::new(DeviceId::new(number), 16, device.itt);
        more.events = (0..EVENTS).map(of_event).collect();
        state.its[0].devices.push(more);
    }
    let path = std::env::temp_dir().join(format!("doorbell-{}.json", std::process::id()));
    std::fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();
    let machine = read(&path);
    std::fs::remove_file(&path).unwrap();
    let machine = machine.unwrap();
    assert_eq!(machine.events().count(), (1 << 20) - (1 << 13));
    assert_eq!(rules(&machine), []);
}

/// Replaces numbers and strings in a file by extreme values, one at a time, and passes each result
/// to every command.
fn damage(original: &Value) {
    let pointers = leaves(original, String::new());
    let stride = pointers.len().div_ceil(300);
    for pointer in pointers.iter().step_by(stride) {
        for value in [json!(0), json!(u32::MAX), json!(u64::MAX), json!("0xffffffffffffffff")] {
            let mut damaged = original.clone();
            *damaged.pointer_mut(pointer).unwrap() = value;
            use_all(&serde_json::to_vec(&damaged).unwrap());
        }
    }
}

fn leaves(value: &Value, pointer: String) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            fields.iter().flat_map(|(key, of)| leaves(of, format!("{pointer}/{key}"))).collect()
        }
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.flat_map(|(at, of)| leaves(of, format!("{pointer}/{at}"))).collect()
        }
        _ => vec![pointer],
    }
}

#[test]
fn damaged_states_and_snapshots_do_not_panic() {
    let mut guest = Guest::new();
    guest.send(0);
    damage(&serde_json::to_value(guest.save()).unwrap());
    damage(&serde_json::to_value(guest.kvm()).unwrap());
}

#[test]
fn truncated_files_are_refused() {
    let bytes = serde_json::to_vec(&kvm()).unwrap();
    for length in (0..bytes.len()).step_by(97) {
        assert!(parse("truncated", &bytes[..length]).is_err());
    }
}
