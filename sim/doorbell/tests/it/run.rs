//! `doorbell run`: its report, its text, its traces and its exit statuses.

use crate::contract::{has_fields, text};
use crate::{Folder, board, doorbell, marina, refusal, rows, test_data};
use doorbell_machine::embedded;
use gic_firmware::{ControllerKind, Fact, IntIdSpan};
use serde_json::Value;
use std::fs;

/// Runs `doorbell run --json` with these arguments. The run must be clean.
#[track_caller]
fn report(arguments: &[&str]) -> Value {
    doorbell(&[&["run", "--json"], arguments].concat()).with_status(0).json()
}

fn total(report: &Value, name: &str) -> u64 {
    report["totals"][name].as_u64().unwrap()
}

/// The totals that are 0 in a clean run.
const DEFECTS: [&str; 7] =
    ["lost", "spurious", "wrong_cpu", "refused", "short", "guest_faults", "no_doorbell"];

#[test]
fn a_run_reports_its_fields_and_loses_no_message() {
    let report = report(&["--messages", "20", "--cpus", "3", "--seed", "7"]);
    has_fields(&report, &["machine", "controllers", "totals"]);
    assert_eq!(report["cpus"], 3);
    for controller in rows(&report["controllers"]) {
        has_fields(controller, &["id", "kind", "doorbells", "isolates"]);
    }
    let fields = ["id", "kind", "controller", "requester_id", "device_id", "isolation", "refused"];
    let mut vectors = 0;
    for device in rows(&report["devices"]) {
        has_fields(device, &fields);
        for vector in rows(&device["vectors"]) {
            has_fields(vector, &["irq", "hwirq", "delivered", "coalesced"]);
            assert!(vector["sent"] == 20 && vector["cpu"].as_u64().unwrap() < 3, "{vector}");
            vectors += 1;
        }
    }
    has_fields(&report["totals"], &["redelivered"]);
    for bad in DEFECTS {
        assert_eq!(total(&report, bad), 0, "{bad}");
    }
    assert_eq!((total(&report, "vectors"), total(&report, "sent")), (vectors, 20 * vectors));
    assert_eq!(total(&report, "sent"), total(&report, "delivered") + total(&report, "coalesced"));
}

#[test]
fn the_output_of_a_run_fits_one_screen() {
    for machine in embedded::machines() {
        let run = ["--messages", "3", "--machine", machine.name];
        let text = text(&[&["run"], &run[..]].concat());
        assert!(text.lines().count() <= 42 && !text.contains("INTID"), "{text}");
        assert!(text.contains("\nverdict: clean\n"), "{text}");
        let lines = text.lines().filter(|line| line.ends_with("  clean"));
        assert_eq!(lines.count(), rows(&report(&run)["devices"]).len(), "{text}");
    }
}

#[test]
fn vectors_are_shown_on_demand() {
    let text = text(&["run", "--vectors", "--messages", "3"]);
    assert!(text.contains("CPU6  CPU7  INTID") && text.contains("03:05.0-7"), "{text}");
}

#[test]
fn the_same_seed_simulates_the_same_run() {
    let folder = Folder::new("run-seeds");
    let simulated = |seed: &str| {
        let run = ["--simulate", "--messages", "4", "--seed", seed];
        let report = report(&[&run[..], &["--trace", &folder.path("trace")]].concat());
        assert_eq!(report["simulated"], true);
        (report, fs::read_to_string(folder.0.join("trace")).unwrap())
    };
    let (report, trace) = simulated("3");
    let chrome: Value = serde_json::from_str(&trace).unwrap();
    assert_eq!(chrome["otherData"]["flows"], 4 * 136);
    assert!((report, trace.clone()) == simulated("3"));
    assert!(trace != simulated("4").1);
}

#[test]
fn a_run_has_only_the_requested_disturbances() {
    let happened = |disturb: &[&str]| {
        let run = ["--simulate", "--messages", "20", "--cpus", "3"];
        let report = report(&[&run[..], disturb].concat());
        ["migrated", "replugged", "readded", "suspended"].map(|kind| total(&report, kind) > 0)
    };
    assert_eq!(happened(&[]), [false; 4]);
    for (number, kind) in ["migrate", "hotplug", "remove", "suspend"].into_iter().enumerate() {
        let only = [0, 1, 2, 3].map(|other| other == number);
        assert_eq!(happened(&["--disturb", kind]), only, "{kind}");
    }
    assert_eq!(happened(&["--disturb", "migrate,hotplug,remove,suspend"]), [true; 4]);
}

#[test]
fn an_unwritable_trace_file_is_an_error() {
    for (file, status) in [("/dev/null", 0), ("/dev/full", 2), ("/nowhere/t", 2)] {
        doorbell(&["run", "--messages", "1", "--simulate", "--trace", file]).with_status(status);
    }
}

#[test]
fn latencies_cover_every_handled_message() {
    let run = |more: &[&str]| {
        let report = report(&[&["--messages", "9"], more].concat());
        let devices = rows(&report["devices"]).iter();
        let all = devices.map(|device| device["send_to_handler"].clone()).collect::<Vec<_>>();
        (report["totals"].clone(), all)
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
fn every_controller_kind_can_be_chosen() {
    for (machine, kind, isolates) in [
        ("harbour", "its", true),
        ("lagoon", "direct-lpi", false),
        ("estuary", "mbi", false),
        ("estuary", "its", true),
        ("cove", "v2m", false),
        ("hyperv", "hyperv-vpci", false),
    ] {
        let report = report(&["--messages", "10", "--machine", machine, "--controller", kind]);
        let all = rows(&report["controllers"]).iter();
        let driven: Vec<_> = all.filter(|it| it["driven"] == true).collect();
        assert!(!driven.is_empty(), "{machine} {kind}");
        let is_right = |it: &&Value| it["kind"] == kind && it["isolates"] == isolates;
        assert!(driven.iter().all(is_right), "{driven:?}");
        let said = if isolates { "isolated by" } else { "not isolated: " };
        for device in rows(&report["devices"]) {
            assert!(device["isolation"].as_str().unwrap().starts_with(said), "{device}");
        }
    }
}

#[test]
fn an_acpi_folder_runs_like_the_embedded_machine() {
    let run = ["--messages", "10", "--seed", "3"];
    let [from_folder, embedded] = [["--acpi", &marina()], ["--machine", "marina"]]
        .map(|source| report(&[&run[..], &source].concat()));
    assert_eq!(total(&from_folder, "sent"), total(&embedded, "sent"));
    let ids = |report: &Value| -> Vec<String> {
        rows(&report["devices"]).iter().map(|device| device["id"].to_string()).collect()
    };
    assert_eq!(ids(&from_folder), ids(&embedded));
    assert!(ids(&embedded).iter().any(|id| id.contains("DMA0")));
}

#[test]
fn an_unclean_run_prints_its_reason_and_exits_with_status_1() {
    // One message-based SPI per device.
    let mut board = board("estuary");
    let mbi = board.controllers.iter_mut().find(|one| one.kind == ControllerKind::Mbi).unwrap();
    mbi.ranges = vec![Fact::stated(IntIdSpan::new(mbi.ranges[0].first(), 9).unwrap())];
    let folder = Folder::new("run-scarce");
    folder.describe("scarce.dtb", &board);
    let run = ["run", "--controller", "mbi", "--messages", "5", "--dtb", "scarce.dtb"];
    let report = folder.run(&[&run[..], &["--json"]].concat()).with_status(1).json();
    assert_eq!((total(&report, "lost"), total(&report, "refused")), (0, 0));
    let devices = rows(&report["devices"]);
    let count = |device: &Value| rows(&device["vectors"]).len() as u64;
    let few = |device: &&Value| count(device) < device["useful_minimum"].as_u64().unwrap();
    assert!(total(&report, "short") > 0);
    assert_eq!(total(&report, "short"), devices.iter().filter(few).count() as u64);
    let text = folder.run(&run).with_status(1).out;
    assert!(text.contains("1, short of 2") && text.contains("\nshort "), "{text}");
    assert!(text.contains("\nverdict: not clean\n"), "{text}");
}

#[test]
fn choosing_an_unavailable_controller_exits_with_status_2() {
    let reason = refusal(&["run", "--machine", "cove", "--controller", "direct-lpi"]);
    assert!(reason.contains("no enabled direct LPIs") && reason.contains("(v2m)"), "{reason}");
}

#[test]
fn running_an_unusable_description_exits_with_status_2() {
    for (name, why) in
        [("gicv2m.dtb", "is a GICv2"), ("mbi.dtb", "nothing to"), ("disabled.dtb", "disabled")]
    {
        let said = doorbell(&["run", "--json", "--dtb", &test_data(name)]).with_status(2);
        has_fields(&said.json(), &["source", "gic", "controllers", "devices", "findings"]);
        let reason = said.err;
        assert!(reason.contains("nothing to deliver") && reason.contains(why), "{name}: {reason}");
    }
}

#[test]
fn functions_behind_a_conventional_bridge_share_a_device_id() {
    let report = report(&["--messages", "5"]);
    let devices = rows(&report["devices"]);
    let groups = devices.iter().filter(|one| one.get("shares_device_id_with").is_some());
    assert!(groups.clone().count() > 0, "harbour has functions behind a conventional bridge");
    for device in groups {
        for other in rows(&device["shares_device_id_with"]) {
            let other = devices.iter().find(|one| one["id"] == *other).unwrap();
            assert_ne!(other["id"], device["id"]);
            for same in ["device_id", "controller"] {
                assert_eq!(other[same], device[same]);
            }
        }
    }
}
