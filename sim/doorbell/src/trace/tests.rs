//! Tests that timelines conform to the trace format and agree with the run's report.

use super::timeline;
use doorbell_machine::{
    BuildOptions, Disturbance, Fault, Migration, Recorder, Report, RunOptions, TraceTime, build,
    embedded, run, simulate,
};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;

/// Timeline and report of a run.
struct Drawn {
    events: Vec<Value>,
    facts: Value,
    report: Report,
}

/// Scheduling of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Schedule {
    Threads,
    Simulated,
}

fn draw(machine: &str, schedule: Schedule, limit: u64, mut options: BuildOptions) -> Drawn {
    let description = embedded::machine(machine).unwrap().firmware.describe().unwrap();
    let (time, messages) = match schedule {
        Schedule::Threads => (TraceTime::Nanoseconds, 40),
        Schedule::Simulated => (TraceTime::Steps, 12),
    };
    let recorder = Recorder::new(time, limit);
    options.recorder = Some(recorder.clone());
    let disturbances = match options.migration {
        Migration::Never => vec![Disturbance::Moves],
        Migration::AtRandom { .. } => Disturbance::ALL.to_vec(),
    };
    let machine = build(&description, &options).unwrap();
    let options = RunOptions { messages, seed: 3, disturbances };
    let report = match schedule {
        Schedule::Threads => run(machine, &options, &mut |_| {}).unwrap(),
        Schedule::Simulated => simulate(machine, &options).unwrap(),
    };
    let mut file = Vec::new();
    timeline::write(&mut file, &recorder.take(), &report).unwrap();
    let mut document: Value = serde_json::from_slice(&file).unwrap();
    let events = document["traceEvents"].take().as_array().unwrap().clone();
    Drawn { events, facts: document["otherData"].take(), report }
}

fn draw_all(machine: &str, schedule: Schedule) -> Drawn {
    draw(machine, schedule, u64::MAX, BuildOptions::default())
}

impl Drawn {
    fn of_kind<'a>(&'a self, ph: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["ph"] == ph)
    }

    fn named<'a>(&'a self, ph: &'a str, part: &'a str) -> impl Iterator<Item = &'a Value> {
        self.of_kind(ph).filter(move |event| event["name"].as_str().unwrap().contains(part))
    }

    /// Returns the slices, in the order in which they end. Each has the arguments of both events.
    fn slices(&self) -> Vec<Slice> {
        let (mut open, mut slices) = (HashMap::<_, Vec<Slice>>::new(), Vec::new());
        for event in &self.events {
            if event["ph"] == "B" {
                let (track, start) = point(event);
                let (name, args) = (event["name"].as_str().unwrap(), event["args"].clone());
                let slice = Slice { track, start, end: start, name: name.to_owned(), args };
                open.entry(track).or_default().push(slice);
            } else if event["ph"] == "E" {
                let (track, end) = point(event);
                let mut slice = open.get_mut(&track).unwrap().pop().unwrap();
                assert!(end > slice.start, "{event}");
                slice.end = end;
                let more = event["args"].as_object().unwrap().clone();
                slice.args.as_object_mut().unwrap().extend(more);
                slices.push(slice);
            }
        }
        assert!(open.values().flatten().all(|slice| slice.name == "asleep"), "{open:?}");
        slices
    }
}

/// Slice of a track.
#[derive(Debug)]
struct Slice {
    track: (u64, u64),
    start: u64,
    end: u64,
    name: String,
    args: Value,
}

/// Returns the track of an event, and its time in picoseconds.
fn point(event: &Value) -> ((u64, u64), u64) {
    let microseconds = event["ts"].as_f64().unwrap();
    assert!(microseconds >= 0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    let picoseconds = (microseconds * 1e6).round() as u64;
    ((event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap()), picoseconds)
}

const MACHINES: [&str; 5] = ["harbour", "lagoon", "estuary", "cove", "hyperv"];
const SCHEDULES: [Schedule; 2] = [Schedule::Threads, Schedule::Simulated];

#[test]
fn events_have_the_fields_of_the_trace_format() {
    for schedule in SCHEDULES {
        let drawn = draw_all("harbour", schedule);
        for event in &drawn.events {
            let fields: &[&str] = match event["ph"].as_str().unwrap() {
                "M" => &["name", "args"],
                "B" => &["name", "ts", "args"],
                "E" => &["ts", "args"],
                "i" => &["name", "ts", "s"],
                "s" | "t" => &["name", "ts", "id", "cat"],
                "f" => &["name", "ts", "id", "cat", "bp"],
                other => panic!("{other} is not drawn"),
            };
            for field in fields.iter().chain(&["pid", "tid"]) {
                assert!(!event[field].is_null(), "{event} has no {field}");
            }
        }
    }
}

#[test]
fn every_track_is_named_once() {
    let drawn = draw_all("harbour", Schedule::Threads);
    let mut names = HashMap::new();
    for name in drawn.of_kind("M").filter(|event| event["name"] == "thread_name") {
        let track = (name["pid"].as_u64().unwrap(), name["tid"].as_u64().unwrap());
        assert_eq!(names.insert(track, name["args"]["name"].as_str().unwrap()), None);
    }
    let threads: HashSet<_> = names.keys().map(|(_, tid)| tid).collect();
    assert_eq!(threads.len(), names.len(), "two processes share a thread");
    for event in drawn.events.iter().filter(|event| event["ph"] != "M") {
        let (track, _) = point(event);
        assert!(names.contains_key(&track), "{event}");
        assert_ne!(names[&track], "other addresses", "{event}");
    }
    let names: HashSet<_> = names.into_values().collect();
    let devices = drawn.report.devices.iter().map(|device| device.id.as_str());
    let controllers = drawn.report.controllers.iter().map(|controller| controller.id.as_str());
    for name in devices.chain(controllers).chain(["CPU 0", "CPU 7"]) {
        assert!(names.contains(name), "{name}");
    }
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn each_message_has_a_flow_from_its_write_to_its_handler() {
    for machine in MACHINES {
        for schedule in SCHEDULES {
            let drawn = draw_all(machine, schedule);
            let mut slices = HashMap::<_, Vec<_>>::new();
            for slice in drawn.slices() {
                slices.entry(slice.track).or_default().push(slice.start..slice.end);
            }
            let mut flows: HashMap<u64, [Vec<_>; 3]> = HashMap::new();
            for (index, ph) in ["s", "t", "f"].into_iter().enumerate() {
                for event in drawn.of_kind(ph) {
                    let (track, at) = point(event);
                    assert!(slices[&track].iter().any(|times| times.contains(&at)), "{event}");
                    let flow = flows.entry(event["id"].as_u64().unwrap()).or_default();
                    flow[index].push((track.0, at));
                }
            }
            for (id, [start, steps, end]) in &flows {
                assert_eq!((start.len(), end.len()), (1, 1), "{machine} flow {id}");
                assert!(steps.len() <= 1, "{machine} flow {id}");
                let way: Vec<_> = [start, steps, end].into_iter().flatten().collect();
                assert!(way.is_sorted_by_key(|(process, _)| process), "{machine} flow {id}");
                assert!(way.is_sorted_by(|a, b| a.1 < b.1), "{machine} flow {id}");
            }
            let totals = &drawn.report.totals;
            assert!(totals.is_clean(), "{machine}: {totals:?}");
            assert_eq!(flows.len() as u64, totals.sent, "{machine}");
            assert!(drawn.of_kind("t").count() * 10 > flows.len() * 9, "{machine}");
        }
    }
}

#[test]
fn the_timeline_agrees_with_the_totals() {
    for machine in MACHINES {
        for schedule in SCHEDULES {
            let drawn = draw_all(machine, schedule);
            let totals = &drawn.report.totals;
            assert_eq!(drawn.facts["messages"], totals.sent, "{machine}");
            assert_eq!(drawn.facts["moves"], totals.moves, "{machine}");
            assert_eq!(drawn.named("i", " moves to CPU ").count() as u64, totals.moves);
            assert_eq!(
                (&drawn.facts["lost"], &drawn.facts["events_left_out"]),
                (&0.into(), &0.into())
            );
            // Every slice has an end.
            let slices = drawn.slices();
            let runs: Vec<_> =
                slices.iter().filter(|one| one.name.starts_with("handler of ")).collect();
            let mut of_vectors = HashMap::<_, u64>::new();
            for run in &runs {
                let vector = (run.args["device"].as_str(), run.args["vector"].as_u64());
                *of_vectors.entry(vector).or_default() += 1;
            }
            // Like the totals, count at most as many handler runs of a vector as it sent messages.
            let sent = if schedule == Schedule::Threads { 40 } else { 12 };
            let delivered: u64 = of_vectors.values().map(|runs| u64::min(*runs, sent)).sum();
            assert_eq!(delivered, totals.delivered, "{machine}");
            let coalesced: u64 = runs.iter().filter_map(|run| run.args["coalesced"].as_u64()).sum();
            let empty = runs.iter().filter(|run| run.args["messages"] == 0).count();
            assert_eq!(coalesced, totals.sent - (runs.len() - empty) as u64, "{machine}");
        }
    }
}

#[test]
fn the_trace_shows_the_commands_of_an_its() {
    let drawn = draw_all("harbour", Schedule::Simulated);
    let of = |name: &str| drawn.named("i", name).count();
    assert_eq!(of("MAPTI") as u64, drawn.report.totals.vectors);
    assert!(of("MAPD") > 0 && of("MAPC") > 0 && of("MOVI") as u64 >= drawn.report.totals.moves / 2);
    assert_eq!(of("unknown command"), 0);
}

#[test]
fn the_trace_marks_each_lost_message_with_its_reason() {
    let astray = BuildOptions { fault: Fault::WrongDoorbell, ..BuildOptions::default() };
    let skips = Fault::SkipsHandlers(NonZeroU32::new(40).unwrap());
    let unhandled = BuildOptions { fault: skips, ..BuildOptions::default() };
    let cases = [
        (astray, "no controller receives messages at the address"),
        (unhandled, "no handler found the message"),
    ];
    for (options, reason) in cases {
        let drawn = draw("harbour", Schedule::Simulated, u64::MAX, options);
        let totals = &drawn.report.totals;
        assert!(totals.lost > 0, "{totals:?}");
        let lost: Vec<_> = drawn.named("i", " lost").collect();
        assert_eq!(drawn.facts["lost"], lost.len());
        assert_eq!((drawn.of_kind("f").count() + lost.len()) as u64, totals.sent, "{totals:?}");
        for instant in lost {
            assert_eq!(instant["args"]["reason"], reason);
        }
    }
}

#[test]
fn a_full_recorder_keeps_only_complete_flows() {
    let all = draw_all("harbour", Schedule::Simulated);
    let drawn = draw("harbour", Schedule::Simulated, 3000, BuildOptions::default());
    assert!(drawn.facts["events_left_out"].as_u64().unwrap() > 1000);
    let [all, starts, ends] =
        [(&all, "s"), (&drawn, "s"), (&drawn, "f")].map(|(of, ph)| of.of_kind(ph).count());
    assert!(starts == ends && starts > 10 && starts < all);
    // A message does not count as lost if its handler ran after the recorder was full.
    assert_eq!(drawn.facts["lost"], 0);
}

#[test]
fn the_trace_shows_every_disturbance() {
    let options =
        BuildOptions { migration: Migration::AtRandom { seed: 1 }, ..BuildOptions::default() };
    let drawn = draw("harbour", Schedule::Simulated, u64::MAX, options);
    let totals = &drawn.report.totals;
    assert!(totals.is_clean(), "{totals:?}");
    let of = |name: &str| drawn.named("i", name).count() as u64;
    assert_eq!(of("the controller migrated"), totals.migrated);
    assert_eq!(of("the machine suspended"), totals.suspended);
    assert_eq!(of("removed and added again"), totals.readded);
    assert!(totals.migrated > 0 && of("was offline") >= totals.replugged);
}
