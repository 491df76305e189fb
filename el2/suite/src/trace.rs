//! Checks the hypervisor's trace (`--trace`), using a guest whose interrupts are all known in
//! advance.

mod timeline;

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail, ensure};
use doorbell_facts::{Fact, HypervisorFact};
use doorbell_harness::process;
use doorbell_harness::suite::Case;
use serde_json::Value;

use crate::board::{LIMIT, Record};
use crate::built;
use crate::microbench::{self, EACH};
use crate::record::TURNS;
pub(crate) use timeline::Trace;

/// Tracks that the timeline must have.
const TRACKS: &[&str] =
    &["guest 0 ITS at 0x8080000", "CPU 0", "CPU 1", "guest 0 vCPU 0", "guest 0 vCPU 1"];

/// Lists the cases.
pub(crate) fn cases() -> Vec<Case> {
    vec![built::case("a trace shows each message and each interrupt of a guest", LIMIT, run)]
}

fn run() -> Result<()> {
    let record = Record { trace: true, stats: true, ..Record::default() };
    let mut qemu = microbench::command(EACH, record, None)?;
    let (mut trace, mut counts) = (Trace::default(), HashMap::new());
    process::watch(&mut qemu, LIMIT, |line| {
        let Some(fact) = Fact::parse(line) else { return };
        trace.fact(&fact);
        if let Fact::Hypervisor(HypervisorFact::Count { reason, times, .. }) = fact {
            counts.insert(reason.to_string(), times);
        }
    })?;
    judge_events(&trace)?;
    let mut file = Vec::new();
    trace.write(&mut file)?;
    let document: Value = serde_json::from_slice(&file).context("the timeline is not JSON")?;
    let document = Document::new(&document)?;
    for class in ["LPI", "SGI"] {
        let counted = counts.get(&format!("{class} taken")).copied().unwrap_or(0);
        let drawn = document.count("X", "guest 0 vCPU ", class)?;
        ensure!(drawn == counted, "{drawn} slices of {class}s, not {counted}");
    }
    // The device's messages to each vCPU, and LPIs from commands.
    let sent = 2 * TURNS;
    let commands = document.count("i", "guest 0 ITS ", "INT")?;
    ensure!(commands == TURNS, "{commands} INT commands, not {TURNS}");
    let physical = document.count("X", "CPU ", "LPI ")?;
    ensure!(physical == sent, "{physical} physical LPIs, not {sent}");
    let flows = document.flows()?;
    ensure!(flows == sent, "{flows} flows, but the device sent {sent} messages");
    Ok(())
}

/// Checks that all events arrived, and that each CPU's events are in chronological order.
fn judge_events(trace: &Trace) -> Result<()> {
    ensure!(trace.left_out == 0, "{} events were left out", trace.left_out);
    ensure!(trace.announced > 0, "no events were recorded");
    let (found, announced) = (trace.events.len(), trace.announced);
    ensure!(found == announced, "{found} of {announced} events arrived");
    let mut latest = HashMap::new();
    for event in &trace.events {
        let before = latest.insert(event.cpu, event.at).unwrap_or(0);
        ensure!(before <= event.at, "CPU {}: {} follows {before}", event.cpu, event.at);
    }
    Ok(())
}

/// A timeline in Chrome's format.
struct Document<'a> {
    events: &'a [Value],
    /// Names of the tracks, by process and thread.
    tracks: BTreeMap<(u64, u64), &'a str>,
}

impl<'a> Document<'a> {
    /// Checks that each event is on a named track.
    fn new(document: &'a Value) -> Result<Self> {
        let events = document["traceEvents"].as_array().context("no `traceEvents`")?;
        let mut tracks = BTreeMap::new();
        for event in events.iter().filter(|event| event["name"] == "thread_name") {
            let name = event["args"]["name"].as_str().context("a track without a name")?;
            ensure!(tracks.insert(track(event)?, name).is_none(), "{name} is named twice");
        }
        for event in events.iter().filter(|event| event["ph"] != "M") {
            ensure!(tracks.contains_key(&track(event)?), "{event} is on no track");
        }
        for name in TRACKS {
            ensure!(tracks.values().any(|found| found == name), "no track {name}: {tracks:?}");
        }
        let device = |name: &&str| name.starts_with("guest 0 device ");
        ensure!(tracks.values().filter(|name| device(name)).count() == 1, "not one device");
        Ok(Self { events, tracks })
    }

    /// Returns the number of events of a kind whose names start with `name`, on tracks whose names
    /// start with `track_name`.
    fn count(&self, kind: &str, track_name: &str, name: &str) -> Result<u64> {
        let mut count = 0;
        for event in self.events.iter().filter(|event| event["ph"] == kind) {
            let is_named = event["name"].as_str().is_some_and(|found| found.starts_with(name));
            count += u64::from(is_named && self.tracks[&track(event)?].starts_with(track_name));
        }
        Ok(count)
    }

    /// Returns the number of flows. Checks that each has one start, one step and one end, in
    /// chronological order, from a device through a controller to a vCPU, and that each point is in
    /// a slice. The hypervisor executes hundreds of instructions between the points, so no two are
    /// at the same time.
    fn flows(&self) -> Result<u64> {
        let mut flows: BTreeMap<u64, Vec<(&str, f64, u64)>> = BTreeMap::new();
        for event in self.events {
            let Some(kind @ ("s" | "t" | "f")) = event["ph"].as_str() else { continue };
            let id = event["id"].as_u64().context("a flow without an identifier")?;
            let (track, at) = (track(event)?, number(event, "ts")?);
            ensure!(self.is_in_slice(track, at)?, "{event} is in no slice");
            flows.entry(id).or_default().push((kind, at, track.0));
        }
        for (id, points) in &flows {
            let [("s", start, 1), ("t", step, 2), ("f", end, 4)] = points[..] else {
                bail!("flow {id}: {points:?}");
            };
            ensure!(start < step && step < end, "flow {id}: {points:?}");
        }
        Ok(flows.len() as u64)
    }

    fn is_in_slice(&self, place: (u64, u64), at: f64) -> Result<bool> {
        for slice in self.events.iter().filter(|event| event["ph"] == "X") {
            let start = number(slice, "ts")?;
            let end = start + number(slice, "dur")?;
            if track(slice)? == place && start <= at && at < end {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn track(event: &Value) -> Result<(u64, u64)> {
    let field = |name| event[name].as_u64().with_context(|| format!("no `{name}` in {event}"));
    Ok((field("pid")?, field("tid")?))
}

fn number(event: &Value, name: &str) -> Result<f64> {
    event[name].as_f64().filter(|it| *it >= 0.0).with_context(|| format!("`{name}` of {event}"))
}
