//! The command's contract with other programs: JSON fields and exit statuses.

use crate::{doorbell, test_data};
use doorbell_machine::embedded;
use gic_firmware::{Affinity, ControllerKind, CpuNode, Fact, IntIdSpan, Region, devicetree};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::Duration;

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn has_fields(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "{field} is missing in {value}");
    }
}

fn total(report: &Value, name: &str) -> u64 {
    report["totals"][name].as_u64().unwrap()
}

/// The totals that are 0 in a clean run.
const DEFECTS: [&str; 7] =
    ["lost", "spurious", "wrong_cpu", "refused", "short", "guest_faults", "no_doorbell"];

#[test]
fn run_has_its_fields_and_loses_nothing() {
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

/// Returns the command's text output, in which no name may be shortened.
#[track_caller]
fn text(arguments: &[&str]) -> String {
    let text = String::from_utf8(doorbell(arguments).stdout).unwrap();
    assert!(!text.contains('…'), "{arguments:?}: {text}");
    text
}

#[test]
fn a_run_prints_one_screen() {
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
fn many_cpus_have_columns_in_a_pipe() {
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
fn disturbances_happen_on_demand() {
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
fn a_trace_needs_a_file() {
    let status = |arguments: &[&str]| doorbell(arguments).status.code();
    assert_eq!(status(&["run", "--messages", "1", "--trace", "/dev/null"]), Some(0));
    let unwritable = ["run", "--messages", "1", "--simulate", "--trace", "/dev/full"];
    assert_eq!(status(&unwritable), Some(2));
    assert_eq!(status(&["run", "--messages", "1", "--simulate", "--trace", "/nowhere/t"]), Some(2));
}

#[test]
fn a_traces_name_selects_its_format() {
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
fn latencies_are_those_of_the_handled_messages() {
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
fn a_pipe_gets_whole_names() {
    let folder = PathBuf::from(test_data(""));
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let trees: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|it| it == "dtb")).collect();
    assert!(trees.len() > 10);
    for tree in trees {
        text(&["inspect", tree.to_str().unwrap()]);
    }
    text(&["inspect", TABLES]);
    text(&["machines"]);
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

/// The tables for `marina`.
const TABLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../machine/machines/marina");

#[test]
fn acpi_folder_runs_as_the_embedded_machine() {
    let arguments = ["run", "--json", "--messages", "10", "--seed", "3"];
    let from_folder = doorbell(&[&arguments[..], &["--acpi", TABLES]].concat());
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

#[test]
fn tables_are_found_by_name() {
    let folder = temporary("tables");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let copy = |from: &str, to: &str| {
        std::fs::copy(PathBuf::from(TABLES).join(from), folder.join(to)).unwrap()
    };
    copy("apic.aml", "apic.dat");
    copy("iort.aml", "IORT");
    copy("mcfg.aml", "dsdt.dat");
    std::fs::write(folder.join("iort.asl"), "source").unwrap();
    let report = json(&doorbell(&["inspect", "--json", folder.to_str().unwrap()]));
    let ids: Vec<_> = report["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| device["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids[..2],
        ["IORT/root-complex@0000", "IORT/root-complex@0001"],
        "MCFG has another name"
    );
    std::fs::remove_file(folder.join("apic.dat")).unwrap();
    let output = doorbell(&["inspect", folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr).unwrap().contains("APIC byte 0x0: the table is absent")
    );
}

#[test]
fn inspect_emits_the_other_form_or_says_why_not() {
    let dts = doorbell(&["inspect", "--emit", "dts", TABLES]);
    assert_eq!(dts.status.code(), Some(0));
    let dts = String::from_utf8(dts.stdout).unwrap();
    assert!(dts.starts_with("/dts-v1/;") && dts.contains("msi-parent = <0x02 0x40>;"), "{dts}");
    let iort = doorbell(&["inspect", "--emit", "iort", &test_data("single-its.dtb")]);
    assert_eq!(iort.status.code(), Some(0));
    assert!(String::from_utf8(iort.stdout).unwrap().contains("Signature : \"IORT\""));
    let refused = doorbell(&["inspect", "--emit", "iort", &test_data("direct-lpi.dtb")]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0));
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("ACPI has no structure for this kind of controller"), "{why}");
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
fn unclean_run_gives_its_reason_and_status_1() {
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
fn unavailable_choice_gives_status_2() {
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
fn gicv2_gives_the_reason_it_does_not_run() {
    let output = doorbell(&["run", "--dtb", &test_data("gicv2m.dtb")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("is a GICv2"));
}

#[test]
fn unusable_description_gives_status_2() {
    for name in ["gicv2m.dtb", "mbi.dtb", "disabled.dtb"] {
        let output = doorbell(&["run", "--json", "--dtb", &test_data(name)]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        has_fields(&json(&output), &["source", "gic", "controllers", "devices", "findings"]);
        let reason = String::from_utf8(output.stderr).unwrap();
        assert!(reason.contains("nothing to deliver"), "{name}: {reason}");
    }
}

#[test]
fn other_files_are_named_with_status_2() {
    let output = doorbell(&["run", "--dtb", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    assert_eq!(output.status.code(), Some(2));
    let reason = String::from_utf8(output.stderr).unwrap();
    assert!(
        reason.contains("Cargo.toml") && reason.contains("is not a flattened devicetree"),
        "{reason}"
    );
}

#[test]
fn inspect_has_the_fields_of_the_contract() {
    let output = doorbell(&["inspect", "--json", &test_data("msi-map.dtb")]);
    assert_eq!(output.status.code(), Some(0));
    let inspection = json(&output);
    has_fields(&inspection, &["source", "cpus", "gic", "controllers", "devices", "findings"]);
    has_fields(&inspection["gic"], &["version", "distributor", "redistributors"]);
    for redistributor in inspection["gic"]["redistributors"].as_array().unwrap() {
        has_fields(redistributor, &["base", "size", "stride"]);
    }
    for controller in inspection["controllers"].as_array().unwrap() {
        has_fields(controller, &["id", "kind", "enabled", "doorbells", "ranges", "device_id_bits"]);
        has_fields(controller, &["isolates"]);
    }
    let mut routes = 0;
    for device in inspection["devices"].as_array().unwrap() {
        has_fields(device, &["id", "kind", "enabled", "isolation", "routes"]);
        for route in device["routes"].as_array().unwrap() {
            has_fields(route, &["rid_base", "length", "controller", "device_id_base", "via"]);
            has_fields(route, &["isolated", "iommus", "streams"]);
            routes += 1;
        }
    }
    assert!(routes > 1, "the description has several map entries");
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn bench_has_its_fields_and_cases() {
    let output = doorbell(&["bench", "--json", "--rounds", "1", "--processes", "2"]);
    assert_eq!(output.status.code(), Some(0));
    let measured = json(&output);
    has_fields(&measured, &["version", "floor_ns", "cases"]);
    let cases = measured["cases"].as_array().unwrap();
    for case in cases {
        has_fields(case, &["name", "median_ns", "min_ns", "ratio", "of"]);
        assert!(case["min_ns"].as_f64() <= case["median_ns"].as_f64(), "{case}");
    }
    let case = |name: &str| cases.iter().find(|case| case["name"] == name).unwrap();
    assert_eq!(case("inject-1")["of"], "floor-translate-1");
    assert_eq!(case("inject-2-threads")["of"], "inject-1");
    for name in [
        "inject-64k-random",
        "ack-32-priorities",
        "inject-ack-depth-57k",
        "route-update-16",
        "route-update-4096",
        "dispatch",
        "setup-its",
    ] {
        assert!(case(name)["ratio"].as_f64().unwrap() > 0.0, "{name}");
    }
}

#[test]
fn embedded_machines_are_listed() {
    let machines = json(&doorbell(&["machines", "--json"]));
    let names: Vec<&str> = machines
        .as_array()
        .unwrap()
        .iter()
        .map(|machine| machine["name"].as_str().unwrap())
        .collect();
    assert_eq!(names[0], "harbour");
}

#[test]
fn conventional_bridge_makes_one_group() {
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

/// Sends a read of `GICD_PIDR2` to `doorbell qtest`, ends the connection and returns the reply.
fn read_over(stream: &UnixStream) -> String {
    (&mut &*stream).write_all(b"readl 0x0800ffe8\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    (&mut &*stream).read_to_string(&mut said).unwrap();
    said
}

fn qtest_at(socket: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_doorbell"))
        .args(["qtest", "--socket", socket])
        .spawn()
        .unwrap()
}

/// Returns a path that only this process uses.
fn temporary(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("doorbell-{}-{name}", std::process::id()));
    drop(std::fs::remove_file(&path));
    path
}

#[test]
fn qtest_connects_to_a_socket_as_qemu_does() {
    let path = temporary("connects");
    let listener = UnixListener::bind(&path).unwrap();
    let mut server = qtest_at(&format!("unix:{}", path.display()));
    let (stream, _) = listener.accept().unwrap();
    assert_eq!(read_over(&stream), "OK 0x000000000000003b\n");
    assert_eq!(server.wait().unwrap().code(), Some(0));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn qtest_server_waits_for_a_connection() {
    let path = temporary("serves");
    let mut server = qtest_at(&format!("{},server=on", path.display()));
    let stream = loop {
        match UnixStream::connect(&path) {
            Ok(stream) => break stream,
            Err(error) => assert!(server.try_wait().unwrap().is_none(), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(read_over(&stream), "OK 0x000000000000003b\n");
    assert_eq!(server.wait().unwrap().code(), Some(0));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn qtest_says_to_which_socket_it_cannot_connect() {
    let output = doorbell(&["qtest", "--socket", "/nonexistent/socket"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cannot connect to /nonexistent/socket")
    );
}
