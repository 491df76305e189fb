//! `doorbell run`: its report, its text, its traces and its exit statuses.

use crate::contract::{has_fields, json, text};
use crate::{doorbell, marina, temporary, test_data};
use doorbell_machine::embedded;
use gic_firmware::{Affinity, ControllerKind, CpuNode, Fact, IntIdSpan, Region, devicetree};
use serde_json::Value;
use std::path::PathBuf;

fn total(report: &Value, name: &str) -> u64 {
    report["totals"][name].as_u64().unwrap()
}

/// The totals that are 0 in a clean run.
const DEFECTS: [&str; 7] =
    ["lost", "spurious", "wrong_cpu", "refused", "short", "guest_faults", "no_doorbell"];

#[test]
fn a_run_reports_its_fields_and_loses_no_message() {
    let output = doorbell(&["--json", "--messages", "50"]);
    assert_eq!(output.status.code(), Some(0));
    let report = json(&output);
    has_fields(&report, &["machine", "cpus", "controllers", "devices", "totals"]);
    for controller in report["controllers"].as_array().unwrap() {
        has_fields(controller, &["id", "kind", "doorbells", "isolates"]);
    }
    for device in report["devices"].as_array().unwrap() {
        has_fields(
            device,
            &[
                "id",
                "kind",
                "controller",
                "requester_id",
                "device_id",
                "isolation",
                "refused",
                "vectors",
            ],
        );
        for vector in device["vectors"].as_array().unwrap() {
            has_fields(vector, &["irq", "hwirq", "cpu", "sent", "delivered", "coalesced"]);
        }
    }
    has_fields(&report["totals"], &["vectors", "sent", "delivered", "coalesced", "redelivered"]);
    for bad in DEFECTS {
        assert_eq!(total(&report, bad), 0, "{bad}");
    }
    assert_eq!(total(&report, "sent"), total(&report, "delivered") + total(&report, "coalesced"));
}

#[test]
fn the_output_of_a_run_fits_one_screen() {
    for machine in embedded::machines() {
        let run = ["run", "--messages", "3", "--machine", machine.name];
        let text = text(&run);
        assert!(text.lines().count() <= 42 && !text.contains("INTID"), "{text}");
        assert!(text.contains("\nverdict: clean\n"), "{text}");
        let report = json(&doorbell(&[&run[..], &["--json"]].concat()));
        let devices = report["devices"].as_array().unwrap();
        let lines = text.lines().filter(|line| line.ends_with("  clean"));
        assert_eq!(lines.count(), devices.len(), "{text}");
    }
}

#[test]
fn vectors_are_shown_on_demand() {
    for (cpus, header) in [("2", "CPU0  CPU1  INTID"), ("8", "CPU6  CPU7  INTID")] {
        let run = ["run", "--vectors", "--messages", "3", "--cpus", cpus];
        let text = text(&run);
        assert!(text.contains(header) && text.contains("03:05.0-7"), "{text}");
    }
}

#[test]
fn output_to_a_pipe_has_a_column_for_each_of_many_cpus() {
    let path = temporary("many-cpus.dtb");
    let mut board = embedded::machine("lagoon").unwrap().firmware.describe().unwrap();
    let gic = board.gic.as_mut().unwrap();
    gic.redistributors = vec![Fact::stated(Region::new(0x80a_0000, 64 * 0x2_0000).unwrap())];
    board.cpus = (0..32)
        .map(|number: u8| {
            let affinity = Affinity::new(0, 0, number / 16, number % 16);
            CpuNode::new(format!("/cpus/cpu@{:x}", affinity.packed()), affinity)
        })
        .collect();
    std::fs::write(&path, devicetree::write(&board).unwrap()).unwrap();
    let run = ["run", "--vectors", "--messages", "3", "--dtb", path.to_str().unwrap()];
    let text = text(&run);
    std::fs::remove_file(path).unwrap();
    assert!(text.contains("CPU30  CPU31  INTID") && text.contains(" and 31 more"), "{text}");
}

#[test]
fn the_same_seed_simulates_the_same_run() {
    let simulated = |seed: &str| {
        let path = temporary(&format!("trace-{seed}"));
        let run = ["run", "--simulate", "--messages", "4", "--seed", seed, "--trace"];
        let output = doorbell(&[&run[..], &[path.to_str().unwrap(), "--json"]].concat());
        let trace = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(
            (output.status.code(), json(&output)["simulated"].as_bool()),
            (Some(0), Some(true))
        );
        (output.stdout, trace)
    };
    let (report, trace) = simulated("3");
    assert!(trace.lines().any(|line| line.contains("  CPU 0 takes interrupt 8")), "{trace}");
    let times = trace.lines().map(|line| line.split_whitespace().next().unwrap().parse::<u64>());
    assert!(times.zip(0..).all(|(time, line)| time == Ok(line)), "{trace}");
    assert!((report, trace.clone()) == simulated("3"));
    assert!(trace != simulated("4").1);
}

#[test]
fn a_run_has_only_the_requested_disturbances() {
    let happened = |disturb: &[&str]| {
        let run = ["run", "--json", "--simulate", "--messages", "20", "--cpus", "3"];
        let output = doorbell(&[&run[..], disturb].concat());
        assert_eq!(output.status.code(), Some(0), "{disturb:?}");
        let report = json(&output);
        ["migrated", "replugged", "readded", "suspended"].map(|kind| total(&report, kind) > 0)
    };
    assert_eq!(happened(&[]), [false; 4]);
    assert_eq!(happened(&["--disturb", "migrate"]), [true, false, false, false]);
    assert_eq!(happened(&["--disturb", "hotplug"]), [false, true, false, false]);
    assert_eq!(happened(&["--disturb", "remove"]), [false, false, true, false]);
    assert_eq!(happened(&["--disturb", "suspend"]), [false, false, false, true]);
    assert_eq!(happened(&["--disturb", "migrate,hotplug,remove,suspend"]), [true; 4]);
}

#[test]
fn an_unwritable_trace_file_is_an_error() {
    let status = |arguments: &[&str]| doorbell(arguments).status.code();
    assert_eq!(status(&["run", "--messages", "1", "--trace", "/dev/null"]), Some(0));
    let unwritable = ["run", "--messages", "1", "--simulate", "--trace", "/dev/full"];
    assert_eq!(status(&unwritable), Some(2));
    assert_eq!(status(&["run", "--messages", "1", "--simulate", "--trace", "/nowhere/t"]), Some(2));
}

#[test]
fn the_file_name_of_a_trace_selects_its_format() {
    let [chrome, text] = ["trace.json", "trace.text"].map(temporary);
    for path in [&chrome, &text] {
        let run = ["run", "--messages", "3", "--trace", path.to_str().unwrap()];
        let output = doorbell(&run);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    }
    let [chrome, text] = [chrome, text].map(|path| {
        let contents = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        contents
    });
    let chrome: Value = serde_json::from_str(&chrome).unwrap();
    assert_eq!(chrome["otherData"]["flows"], 3 * 136);
    assert!(text.lines().all(|line| line[12..].starts_with(" ns  ")), "{text}");
    assert!(text.contains(" vector 0 message 1: DeviceID 0x1"), "{text}");
}

#[test]
fn latencies_cover_every_handled_message() {
    let run = |more: &[&str]| {
        let report = json(&doorbell(&[&["run", "--json", "--messages", "9"], more].concat()));
        let devices = report["devices"].as_array().unwrap().clone();
        let all = devices.into_iter().map(|device| device["send_to_handler"].clone());
        (report["totals"].clone(), all.collect::<Vec<_>>())
    };
    let (totals, devices) = run(&[]);
    let sum = devices.iter().map(|device| device["messages"].as_u64().unwrap()).sum::<u64>();
    assert_eq!((totals["sent"].as_u64(), totals["lost"].as_u64()), (Some(sum), Some(0)));
    for device in devices.iter().chain([&totals["send_to_handler"]]) {
        let [p50, p99] = ["p50", "p99"].map(|name| device[name].as_u64().unwrap());
        assert!(0 < p50 && p50 <= p99, "{device}");
    }
    // A simulation does not measure latencies, because its times differ from those of a real
    // machine.
    let (totals, devices) = run(&["--simulate"]);
    assert!(totals["send_to_handler"].is_null() && devices.iter().all(Value::is_null));
    let text = text(&["run", "--vectors", "--messages", "9"]);
    assert!(text.contains("\nsend to handler: p50 ") && text.contains(" handled messages "));
}

#[test]
fn every_vector_sends_the_requested_messages() {
    let report =
        json(&doorbell(&["run", "--json", "--messages", "20", "--cpus", "3", "--seed", "7"]));
    assert_eq!(report["cpus"], 3);
    let devices = report["devices"].as_array().unwrap();
    let vectors: Vec<&Value> =
        devices.iter().flat_map(|device| device["vectors"].as_array().unwrap()).collect();
    assert_eq!(vectors.len() as u64, total(&report, "vectors"));
    for vector in vectors {
        assert_eq!(vector["sent"], 20);
        assert!(vector["cpu"].as_u64().unwrap() < 3);
    }
}

#[test]
fn every_controller_kind_can_be_chosen() {
    let cases = [
        ("harbour", "its", true),
        ("lagoon", "direct-lpi", false),
        ("estuary", "mbi", false),
        ("estuary", "its", true),
        ("cove", "v2m", false),
        ("hyperv", "hyperv-vpci", false),
    ];
    for (machine, kind, isolates) in cases {
        let output = doorbell(&[
            "run",
            "--json",
            "--messages",
            "10",
            "--machine",
            machine,
            "--controller",
            kind,
        ]);
        assert_eq!(output.status.code(), Some(0), "{machine} {kind}");
        let report = json(&output);
        let driven: Vec<_> = report["controllers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|it| it["driven"] == true)
            .collect();
        assert!(!driven.is_empty(), "{machine} {kind}");
        assert!(
            driven.iter().all(|it| it["kind"] == kind && it["isolates"] == isolates),
            "{driven:?}"
        );
        let said = if isolates { "isolated by" } else { "not isolated: " };
        for device in report["devices"].as_array().unwrap() {
            assert!(device["isolation"].as_str().unwrap().starts_with(said), "{device}");
        }
    }
}

#[test]
fn an_acpi_folder_runs_like_the_embedded_machine() {
    let arguments = ["run", "--json", "--messages", "10", "--seed", "3"];
    let from_folder = doorbell(&[&arguments[..], &["--acpi", &marina()]].concat());
    let embedded = doorbell(&[&arguments[..], &["--machine", "marina"]].concat());
    assert_eq!((from_folder.status.code(), embedded.status.code()), (Some(0), Some(0)));
    let (from_folder, embedded) = (json(&from_folder), json(&embedded));
    assert_eq!(total(&from_folder, "sent"), total(&embedded, "sent"));
    let ids = |report: &Value| -> Vec<String> {
        report["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["id"].to_string())
            .collect()
    };
    assert_eq!(ids(&from_folder), ids(&embedded));
    assert!(ids(&embedded).iter().any(|id| id.contains("DMA0")));
}

/// Returns `estuary` with one message-based SPI per device.
fn scarce() -> PathBuf {
    let mut board = embedded::machine("estuary").unwrap().firmware.describe().unwrap();
    let mbi = board.controllers.iter_mut().find(|one| one.kind == ControllerKind::Mbi).unwrap();
    mbi.ranges = vec![Fact::stated(IntIdSpan::new(mbi.ranges[0].first(), 9).unwrap())];
    let path = temporary("scarce.dtb");
    std::fs::write(&path, devicetree::write(&board).unwrap()).unwrap();
    path
}

#[test]
fn an_unclean_run_prints_its_reason_and_exits_with_status_1() {
    let path = scarce();
    let run = ["run", "--controller", "mbi", "--messages", "5", "--dtb", path.to_str().unwrap()];
    let output = doorbell(&[&run[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!((total(&report, "lost"), total(&report, "refused")), (0, 0));
    let devices = report["devices"].as_array().unwrap();
    let count = |device: &Value| device["vectors"].as_array().unwrap().len() as u64;
    let few = |device: &&Value| count(device) < device["useful_minimum"].as_u64().unwrap();
    assert!(total(&report, "short") > 0);
    assert_eq!(total(&report, "short"), devices.iter().filter(few).count() as u64);
    let output = doorbell(&run);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("1, short of 2") && text.contains("\nshort "), "{text}");
    assert!(text.contains("\nverdict: not clean\n"), "{text}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn choosing_an_unavailable_controller_exits_with_status_2() {
    let output = doorbell(&["run", "--machine", "cove", "--controller", "direct-lpi"]);
    assert_eq!(output.status.code(), Some(2));
    let reason = String::from_utf8(output.stderr).unwrap();
    assert!(reason.contains("no enabled direct LPIs") && reason.contains("(v2m)"), "{reason}");
}

#[test]
fn direct_lpis_of_a_devicetree_are_delivered() {
    let output =
        doorbell(&["run", "--json", "--messages", "20", "--dtb", &test_data("direct-lpi.dtb")]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json(&output)["controllers"][0]["kind"], "direct-lpi");
}

#[test]
fn run_refuses_a_gicv2_and_names_it_as_the_reason() {
    let output = doorbell(&["run", "--dtb", &test_data("gicv2m.dtb")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("is a GICv2"));
}

#[test]
fn running_an_unusable_description_exits_with_status_2() {
    for name in ["gicv2m.dtb", "mbi.dtb", "disabled.dtb"] {
        let output = doorbell(&["run", "--json", "--dtb", &test_data(name)]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        has_fields(&json(&output), &["source", "gic", "controllers", "devices", "findings"]);
        let reason = String::from_utf8(output.stderr).unwrap();
        assert!(reason.contains("nothing to deliver"), "{name}: {reason}");
    }
}

#[test]
fn functions_behind_a_conventional_bridge_share_a_device_id() {
    let report = json(&doorbell(&["--json", "--messages", "5"]));
    let devices = report["devices"].as_array().unwrap();
    let groups: Vec<&Value> =
        devices.iter().filter(|device| device.get("shares_device_id_with").is_some()).collect();
    assert!(!groups.is_empty(), "harbour has functions behind a conventional bridge");
    for device in groups {
        for other in device["shares_device_id_with"].as_array().unwrap() {
            let other = devices.iter().find(|one| one["id"] == *other).unwrap();
            assert_eq!(other["device_id"], device["device_id"]);
            assert_eq!(other["controller"], device["controller"]);
            assert_ne!(other["id"], device["id"]);
        }
    }
}
