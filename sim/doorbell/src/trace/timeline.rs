//! Draws the trace of a run as a timeline, with a track per device, controller and CPU. The flow of
//! a message leads from the device's write to the handler run that found the message.
//!
//! Several flows may end in the same handler run, because messages for an interrupt that is already
//! pending are merged. A message that was not sent, that was dropped, or that no handler found has
//! no flow, but an instant that states the reason.

use super::chrome::{ChromeWriter, FlowPoint, Track};
use super::flows::Flows;
use super::names::{command, interrupt_name};
use super::tracks::Tracks;
use doorbell_machine::{
    Cpu, Delivery, DeviceId, Event, HwIrq, MsiMessage, Occurrence, Record, Report, Signaled,
    Subject, Trace, TraceTime,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, Write};

/// Writes the trace of a run. `report` is the report of the same run.
pub(super) fn write(out: &mut impl Write, trace: &Trace, report: &Report) -> io::Result<()> {
    let scale = scale(trace.time);
    let mut out = ChromeWriter::new(out, scale)?;
    let tracks = Tracks::write(&mut out, trace, report)?;
    let flows = Flows::of(trace);
    let mut timeline = Timeline {
        out,
        tracks,
        scale,
        is_whole: trace.left_out == 0,
        flows,
        open: Open::default(),
        controller_ends: HashMap::new(),
        counts: DrawnCounts::default(),
    };
    timeline.reserve(trace);
    for record in &trace.records {
        timeline.add(record)?;
    }
    let Timeline { out, flows, counts, .. } = timeline;
    let facts = facts(trace, report, &counts, flows.len());
    out.finish(&facts)
}

/// Returns the number of nanoseconds per unit of the trace's time. A step is drawn as a
/// microsecond.
const fn scale(time: TraceTime) -> u64 {
    match time {
        TraceTime::Nanoseconds => 1,
        TraceTime::Steps => 1000,
    }
}

fn facts(trace: &Trace, report: &Report, counts: &DrawnCounts, flows: usize) -> Value {
    json!({
        "machine": report.machine,
        "time": match trace.time {
            TraceTime::Nanoseconds => "nanoseconds since recording started",
            TraceTime::Steps => "steps of a simulation, drawn as microseconds",
        },
        "messages": counts.messages,
        "handler_runs": counts.handler_runs,
        "flows": flows,
        "lost": counts.lost,
        "moves": counts.moves,
        "commands": counts.commands,
        "events_left_out": trace.left_out,
    })
}

/// Numbers of events that have been drawn.
#[derive(Default)]
struct DrawnCounts {
    messages: u64,
    handler_runs: u64,
    lost: u64,
    moves: u64,
    commands: u64,
}

/// Slices that have begun but not ended.
#[derive(Default)]
struct Open {
    sends: HashMap<Subject, Send>,
    /// Arrival times of the messages that a controller has not answered yet.
    arrivals: HashMap<(Option<Subject>, DeviceId, MsiMessage), u64>,
    /// Interrupts that CPUs have taken but not ended.
    taken: HashMap<Cpu, Taken>,
    sleeps: HashMap<Cpu, u64>,
}

/// Message that a device is sending.
struct Send {
    start: u64,
    message: Option<(Option<DeviceId>, MsiMessage)>,
    lost: Option<Delivery>,
}

/// Interrupt that a CPU has taken, and its handler runs so far.
struct Taken {
    start: u64,
    hwirq: HwIrq,
    runs: Vec<HandlerRun>,
}

/// Handler run that found `messages` messages, the last of which is `last`.
struct HandlerRun {
    start: u64,
    last: Subject,
    messages: u64,
}

struct Timeline<W> {
    out: ChromeWriter<W>,
    tracks: Tracks,
    /// Nanoseconds per unit of the trace's time.
    scale: u64,
    /// `true` if the trace has all events of the run.
    is_whole: bool,
    flows: Flows,
    open: Open,
    /// For each arrival at a controller, the time of the next arrival. The slice of the first
    /// message must end there, because the slices of a track must not overlap.
    controller_ends: HashMap<(Track, u64), u64>,
    counts: DrawnCounts,
}

impl<W: Write> Timeline<W> {
    /// Computes where the slices of controllers must end. Without this limit, they could overlap,
    /// because devices write to a controller concurrently.
    fn reserve(&mut self, trace: &Trace) {
        let mut latest: HashMap<Track, u64> = HashMap::new();
        for record in &trace.records {
            if let Occurrence::Event(Event::Translated { message, .. }) = record.what {
                let row = self.tracks.controller(message.address);
                if let Some(before) = latest.insert(row, record.at) {
                    self.controller_ends.insert((row, before), record.at);
                }
            }
        }
    }

    fn add(&mut self, record: &Record) -> io::Result<()> {
        let at = record.at;
        match (record.what, record.subject) {
            (Occurrence::Event(event), subject) => self.event(at, subject, event),
            (Occurrence::Sends, Some(subject)) => {
                self.open.sends.insert(subject, Send { start: at, message: None, lost: None });
                Ok(())
            }
            (Occurrence::Answered(answer), Some(subject)) => self.answered(at, subject, answer),
            (Occurrence::Handles { cpu, messages }, Some(last)) => {
                let run = HandlerRun { start: at, last, messages };
                self.open.taken.entry(cpu).and_modify(|taken| taken.runs.push(run));
                Ok(())
            }
            (Occurrence::Slept { cpu }, _) => {
                self.open.sleeps.insert(cpu, at);
                Ok(())
            }
            (Occurrence::Woke { cpu }, _) => match self.open.sleeps.remove(&cpu) {
                Some(start) => {
                    self.out.slice(self.tracks.cpu(cpu), (start, at), "asleep", Value::Null)
                }
                None => Ok(()),
            },
            (Occurrence::Replugged { cpu }, _) => {
                self.out.instant(self.tracks.cpu(cpu), at, "was offline", Value::Null)
            }
            (Occurrence::Readded, Some(subject)) => {
                let track = Tracks::device(subject.device);
                self.out.instant(track, at, "removed and added again", Value::Null)
            }
            (Occurrence::Suspended, _) => self.everywhere(at, "the machine suspended"),
            (Occurrence::Migrated, _) => self.everywhere(at, "the controller migrated"),
            _ => Ok(()),
        }
    }

    fn event(&mut self, at: u64, subject: Option<Subject>, event: Event) -> io::Result<()> {
        match event {
            Event::Sent { message, .. } => {
                self.describe(subject, None, message);
                Ok(())
            }
            Event::Translated { device, message } => {
                self.describe(subject, Some(device), message);
                self.open.arrivals.insert((subject, device, message), at);
                Ok(())
            }
            Event::Pending { device, message } => {
                self.arrived(at, subject, (device, message), Delivery::Pending)
            }
            Event::Dropped { device, message, delivery } => {
                self.arrived(at, subject, (device, message), delivery)
            }
            Event::Kicked { cpu } => {
                let by = subject.map_or(Value::Null, |subject| self.named(subject));
                self.out.instant(self.tracks.cpu(cpu), at, "kicked", by)
            }
            Event::Taken { cpu, hwirq } => {
                self.open.taken.insert(cpu, Taken { start: at, hwirq, runs: Vec::new() });
                Ok(())
            }
            Event::Ended { cpu, .. } => match self.open.taken.remove(&cpu) {
                Some(taken) => self.ended(cpu, at, &taken),
                None => Ok(()),
            },
            Event::Command { its, words } => {
                self.counts.commands += 1;
                let (name, args) = command(words);
                self.out.instant(self.tracks.its(its), at, name, args)
            }
            Event::Moved { hwirq, to } => {
                let Some(subject) = subject else { return Ok(()) };
                self.counts.moves += 1;
                let name = format!("vector {} moves to CPU {to}", subject.vector);
                let args = json!({ "interrupt": interrupt_name(hwirq.get()) });
                self.out.instant(Tracks::device(subject.device), at, &name, args)
            }
            _ => Ok(()),
        }
    }

    /// Stores the contents of the message that a device is sending.
    fn describe(
        &mut self,
        subject: Option<Subject>,
        device: Option<DeviceId>,
        message: MsiMessage,
    ) {
        if let Some(send) = subject.and_then(|subject| self.open.sends.get_mut(&subject)) {
            send.message = Some((device, message));
        }
    }

    /// Draws a message on the track of the controller that has answered it.
    fn arrived(
        &mut self,
        at: u64,
        subject: Option<Subject>,
        (device, message): (DeviceId, MsiMessage),
        delivery: Delivery,
    ) -> io::Result<()> {
        let Some(start) = self.open.arrivals.remove(&(subject, device, message)) else {
            return Ok(());
        };
        let track = self.tracks.controller(message.address);
        let next = self.controller_ends.get(&(track, start)).copied().unwrap_or(u64::MAX);
        let name = format!("DeviceID {device} writes {:#x}", message.data);
        let mut args = json!({
            "address": format!("{:#x}", message.address),
            "answer": answer(delivery),
            "duration": (at - start) * self.scale,
        });
        if subject.is_none() {
            args["released"] = json!("a mask held this message back");
        }
        self.out.slice(track, (start, at.min(next)), &name, args)?;
        let Some(subject) = subject else { return Ok(()) };
        if delivery != Delivery::Pending
            && let Some(send) = self.open.sends.get_mut(&subject)
        {
            send.lost = Some(delivery);
        }
        match self.flows.get(subject) {
            Some(flow) if start < flow.end => self.out.flow(track, start, flow.id, FlowPoint::Step),
            _ => Ok(()),
        }
    }

    /// Draws a message on the track of the device that has finished sending it.
    fn answered(&mut self, at: u64, subject: Subject, outcome: Signaled) -> io::Result<()> {
        let Some(send) = self.open.sends.remove(&subject) else { return Ok(()) };
        let track = Tracks::device(subject.device);
        if outcome == Signaled::Off {
            let reason = "the device is disabled or unplugged";
            let args = json!({ "vector": subject.vector, "reason": reason });
            return self.out.instant(track, at, "not sent", args);
        }
        self.counts.messages += 1;
        let mut args = json!({ "vector": subject.vector, "message": subject.message });
        if let Some((device, message)) = send.message {
            args["address"] = json!(format!("{:#x}", message.address));
            args["data"] = json!(format!("{:#x}", message.data));
            if let Some(device) = device {
                args["DeviceID"] = json!(device.to_string());
            }
        }
        if outcome == Signaled::Held {
            args["held"] = json!("a mask holds the message back");
        }
        let name = format!("vector {}", subject.vector);
        self.out.slice(track, (send.start, at), &name, args)?;
        let flow = self.flows.get(subject);
        if let Some(flow) = flow {
            self.out.flow(track, send.start, flow.id, FlowPoint::Start)?;
        }
        let reason = match (outcome, send.lost) {
            (Signaled::Sent(Delivery::Blocked), None) => "the bus has no DeviceID for the sender",
            (Signaled::Sent(delivery @ (Delivery::Blocked | Delivery::NoDoorbell)), _) => {
                answer(delivery)
            }
            _ if flow.is_none() && self.is_whole => "no handler found the message",
            _ => return Ok(()),
        };
        self.counts.lost += 1;
        let args = json!({ "message": subject.message, "reason": reason });
        self.out.instant(track, at, &format!("vector {} lost", subject.vector), args)
    }

    /// Draws an interrupt that a CPU has ended, with its handler runs.
    fn ended(&mut self, cpu: Cpu, at: u64, taken: &Taken) -> io::Result<()> {
        let track = self.tracks.cpu(cpu);
        let args = match taken.runs.as_slice() {
            [] => json!({ "reason": "no handler of a device ran" }),
            _ => Value::Null,
        };
        self.out.slice(track, (taken.start, at), &interrupt_name(taken.hwirq.get()), args)?;
        for run in &taken.runs {
            self.counts.handler_runs += 1;
            let mut args = self.named(run.last);
            args["messages"] = json!(run.messages);
            if run.messages > 1 {
                args["coalesced"] = json!(run.messages - 1);
            }
            let name = format!("handler of vector {}", run.last.vector);
            self.out.slice(track, (run.start, at), &name, args)?;
            for message in Flows::found(run.last, run.messages) {
                if let Some(flow) = self.flows.get(message) {
                    self.out.flow(track, run.start, flow.id, FlowPoint::End)?;
                }
            }
        }
        Ok(())
    }

    fn named(&self, subject: Subject) -> Value {
        let device = self.tracks.device_name(subject.device);
        json!({ "device": device, "vector": subject.vector, "message": subject.message })
    }

    fn everywhere(&mut self, at: u64, name: &str) -> io::Result<()> {
        let track = self.tracks.cpu(Cpu::new(0));
        self.out.instant_everywhere(track, at, name)
    }
}

const fn answer(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Pending => "pending",
        Delivery::Blocked => "the controller dropped the message",
        Delivery::NoDoorbell => "no controller receives messages at the address",
    }
}
