//! Tests for the format of saved states. A state must remain readable for as long as the library
//! supports the version that wrote it.

use super::board::{Board, CPUS, config};
use doorbell_test_support::guest::{mapc, mapd, mapti, movall, unmapc};
use gic_arch::gicd::Irouter;
use gic_arch::{IntId, gicd, gicr, icc};
use msi_types::{Cpu, Level, Line, SetLine};
use serde_json::{Value, json};
use vgic::saved_state::{SavedState, StateVersion, VERSION};
use vgic::{V2mConfig, VgicConfig};

/// The state of [`something_of_everything`] as version 2 wrote it. This file must not change,
/// because a change in the output requires a new version.
const VERSION_2: &str = include_str!("version-2.json");
/// The same state with registers as numbers, which version 2 also accepts.
const WITH_NUMBERS: &str = include_str!("version-2-numbers.json");

/// The shape that version 3 adds.
const SHAPE: &str = include_str!("version-3-shape.json");

/// Returns the same state as version 3 writes it.
fn version_3() -> Value {
    let mut state: Value = serde_json::from_str(VERSION_2).unwrap();
    state["version"] = json!(3);
    state["shape"] = serde_json::from_str(SHAPE).unwrap();
    state
}

fn small() -> VgicConfig {
    config()
        .with_extended_spis(0)
        .with_extended_ppis(0)
        .with_mbi_alias(Some(0x0b00_0000))
        .with_v2m(vec![V2mConfig::new(0x0b01_0000, 48, 8)])
}

/// Creates a machine whose saved state has an element in each list, and a value in each optional
/// field.
fn something_of_everything() -> Board {
    let mut board = Board::new(small());
    board.start();
    for register in gicd::IGROUPR.registers().iter() {
        board.write_gicd(register, 0);
    }
    for cpu in 0..usize::from(CPUS) {
        let private = gicr::IGROUPR.locate(IntId::new(27)).unwrap().register();
        board.write_gicr(cpu, private, 1 << 27 | 1 << 3);
    }
    let first_spis = gicd::IGROUPR.locate(IntId::new(40)).unwrap().register();
    board.write_gicd(first_spis, 1 << (40 - 32) | 1 << (41 - 32) | 1 << (60 - 32));
    board.run([
        mapd(5, 3, 0x4010_0000),
        mapti(5, 0, 8192, 0),
        mapti(5, 7, 8193, 1),
        mapd(0x1234, 12, 0x4010_1000),
        mapc(9, 1),
        mapti(0x1234, 0, 8200, 9),
    ]);
    board.send(5, 0);
    board.send(0x1234, 0);
    board.run([unmapc(9), movall(0, 2)]);
    board.enable_spi(40);
    board.enable_spi(41);
    board.enable_private(1, 27);
    board.enable_private(2, 3);
    for (intid, route) in [
        (40, Irouter::to(config().cpus[0].affinity)),
        (41, Irouter::new().with_any_participating(true)),
        (60, Irouter::to(config().cpus[2].affinity)),
    ] {
        board.route(intid, route);
    }
    board.raise(40);
    assert_eq!(board.acknowledge(0), 40);
    board.raise(41);
    board.gic.set_line(Line::Ppi { cpu: Cpu::new(1), intid: 27 }, Level::High);
    board.write_gicd(gicd::SETSPI_NSR, 60);
    board.msr(2, icc::BPR1.encoding(), 5);
    board
}

#[test]
fn a_state_of_version_2_is_read_and_restored() {
    let saved: SavedState = serde_json::from_str(VERSION_2).unwrap();
    let mut board = Board::new(small());

    board.restore(&saved);

    assert_eq!(serde_json::to_value(board.save()).unwrap(), version_3());
}

#[test]
fn a_state_is_written_in_the_format_of_version_3() {
    let state = serde_json::to_value(something_of_everything().save()).unwrap();
    assert_eq!(state, version_3());
}

#[test]
fn registers_may_also_be_json_numbers() {
    let read = |text| serde_json::from_str::<SavedState>(text).unwrap();
    assert_eq!(read(WITH_NUMBERS), read(VERSION_2));
}

#[test]
fn an_invalid_register_value_is_refused_with_its_line() {
    let refused = |value: &str| {
        let text = VERSION_2.replacen("\"0x53\"", value, 1);
        serde_json::from_str::<SavedState>(&text).unwrap_err().to_string()
    };
    let expected = "expected a value of 32 bits as a hexadecimal string like \"0x1f\", or a number";
    for wrong in ["\"53\"", "\"0x\"", "\"0x+5\"", "\"0x100000000\"", "4294967296", "-1", "null"] {
        let error = refused(wrong);
        assert!(error.contains(expected) && error.contains("at line 4 column"), "{wrong}: {error}");
    }
    let error = refused("\"0xfg\"");
    assert!(error.starts_with("invalid value: string \"0xfg\", expected"), "{error}");
}

#[test]
fn the_test_states_use_each_list_and_optional_field() {
    let mut seen = std::collections::BTreeMap::<String, bool>::new();
    // A machine with direct LPIs has no ITS.
    let direct = serde_json::to_value(super::direct_lpis::started().save()).unwrap();
    for state in [version_3(), direct] {
        each_value(&state, "", &mut |at, value| {
            let is_said =
                !value.is_null() && value.as_array().is_none_or(|items| !items.is_empty());
            let name = at.rsplit('/').next().unwrap();
            *seen.entry(name.to_owned()).or_default() |= is_said;
        });
    }
    let never: Vec<_> = seen.iter().filter(|(_, is_said)| !**is_said).collect();
    assert!(never.is_empty(), "{never:?}");
}

/// Calls `visit` with the path and the value of each node of a JSON tree.
fn each_value(value: &Value, at: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(at, value);
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                each_value(item, &format!("{at}/{index}"), visit);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                each_value(field, &format!("{at}/{name}"), visit);
            }
        }
        _ => {}
    }
}

#[test]
fn the_version_of_an_unknown_format_can_be_read() {
    let later = json!({ "version": VERSION + 1, "what nobody knows yet": [] }).to_string();

    assert!(serde_json::from_str::<SavedState>(&later).is_err());
    let version = |json| serde_json::from_str::<StateVersion>(json).unwrap().version;
    assert_eq!((version(&later), version(VERSION_2)), (VERSION + 1, 2));
}

#[test]
fn enabled_direct_lpis_are_saved_as_ranges() {
    let mut board = super::direct_lpis::started();
    for (lpi, enable, priority) in [(8300, false, 0xa0), (8301, true, 0x48), (9000, true, 0)] {
        board.configure(lpi, enable, priority);
        board.write_gicr(0, gicr::INVLPIR, lpi.into());
    }
    board.write_gicr(0, gicr::SETLPIR, 8200);

    let saved = serde_json::to_value(&board.save().cpus[0].redistributor.enabled_lpis).unwrap();

    let ranges = [(8192, 108, 0xa3), (8301, 1, 0x4b), (8302, 146, 0xa3), (9000, 1, 3)];
    let expected = ranges.map(|(first, count, configuration)| {
        json!({ "first": first, "count": count, "configuration": configuration })
    });
    assert_eq!(saved, json!(expected));
}

#[test]
fn a_missing_or_additional_field_is_refused() {
    let everything = version_3();
    let mut places = Vec::new();
    each_value(&everything, "", &mut |at, value| {
        places.extend(value.is_object().then(|| at.to_owned()));
    });
    assert!(places.len() > 20);
    for place in places {
        let fields = everything.pointer(&place).and_then(Value::as_object).unwrap();
        let is_read = |fields: serde_json::Map<String, Value>| {
            let mut changed = everything.clone();
            *changed.pointer_mut(&place).unwrap() = Value::Object(fields);
            // A state of version 2 has no shape, and no later state can be restored without it.
            serde_json::from_value::<SavedState>(changed).is_ok_and(|it| !it.shape.is_empty())
        };
        let mut more = fields.clone();
        more.insert("another".to_owned(), json!(0));
        assert!(!is_read(more), "{place} with an additional field");
        for name in fields.keys() {
            let mut less = fields.clone();
            less.remove(name);
            assert!(!is_read(less), "{place} without {name}");
        }
    }
}

#[test]
fn a_binary_state_begins_with_its_version() {
    let saved: SavedState = serde_json::from_value(version_3()).unwrap();
    let bytes = postcard::to_allocvec(&saved).unwrap();

    assert_eq!(postcard::from_bytes(&bytes), Ok(saved));
    assert_eq!(postcard::from_bytes::<StateVersion>(&bytes).unwrap().version, VERSION);
    for end in 0..bytes.len() {
        assert!(
            postcard::from_bytes::<SavedState>(&bytes[..end]).is_err(),
            "the first {end} bytes"
        );
    }
}

#[test]
fn an_overlong_list_length_returns_unexpected_end() {
    // The input contains the version, the distributor's three registers, and a number of interrupts
    // that is far too large.
    let bytes = [&[3, 0, 0, 0][..], &[0xff; 9], &[1]].concat();

    assert_eq!(
        postcard::from_bytes::<SavedState>(&bytes),
        Err(postcard::Error::DeserializeUnexpectedEnd)
    );
}
