//! Draws the trace of a run as a timeline, with a track per device, controller and CPU. The flow of
//! a message leads from the device's write to the handler run that found the message.
//!
//! Several flows may end in the same handler run, because messages for an interrupt that is already
//! pending are merged. A message that was dropped, or that no handler found, has an instant that
//! states the reason.

use super::chrome::{ChromeWriter, Track};
use super::tracks::Tracks;
use doorbell_machine::{
    Cpu, Delivery, DeviceId, Event, MsiMessage, Occurrence, Record, Report, Signaled, Subject,
    Trace, TraceTime,
};
use gic_arch::IntId;
use gic_arch::its::Command;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};

/// Writes the trace of a run. `report` is the report of the same run.
pub(super) fn write(out: &mut impl Write, trace: &Trace, report: &Report) -> io::Result<()> {
    let (time, scale) = match trace.time {
        TraceTime::Nanoseconds => ("nanoseconds since recording started", 1),
        TraceTime::Steps => ("steps of a simulation, drawn as microseconds", 1000),
    };
    let mut out = ChromeWriter::new(out, scale)?;
    let tracks = Tracks::write(&mut out, trace, report)?;
    let mut timeline = Timeline {
        out,
        tracks,
        sends: BTreeMap::new(),
        arrived: HashMap::new(),
        taken: HashMap::new(),
        asleep: HashSet::new(),
        counts: DrawnCounts::default(),
    };
    for record in &trace.records {
        timeline.add(record)?;
    }
    timeline.add_lost(trace.left_out == 0)?;
    let Timeline { out, counts, .. } = timeline;
    out.finish(&json!({
        "machine": report.machine,
        "time": time,
        "messages": counts.messages,
        "handler_runs": counts.handler_runs,
        "flows": counts.flows,
        "lost": counts.lost,
        "moves": counts.moves,
        "commands": counts.commands,
        "events_left_out": trace.left_out,
    }))
}

/// Numbers of events that have been drawn.
#[derive(Default)]
struct DrawnCounts {
    messages: u64,
    handler_runs: u64,
    flows: u64,
    lost: u64,
    moves: u64,
    commands: u64,
}

/// Attempt of a device to send a message.
struct Send {
    start: u64,
    /// The controller's track, and the time at which the message arrived there.
    arrival: Option<(Track, u64)>,
    /// The message's contents.
    args: Value,
    /// The answer to the device; `None` while it is still sending.
    answer: Option<Signaled>,
    /// `true` if a handler has found the message.
    is_found: bool,
}

/// Message at a controller. The sender is `None` if a mask held the message back.
type Arrival = (Option<Subject>, DeviceId, MsiMessage);

struct Timeline<W> {
    out: ChromeWriter<W>,
    tracks: Tracks,
    sends: BTreeMap<Subject, Send>,
    /// The message whose slice is open on a controller's track.
    arrived: HashMap<Track, Arrival>,
    /// Number of open slices of each CPU that has taken an interrupt.
    taken: HashMap<Cpu, u64>,
    asleep: HashSet<Cpu>,
    counts: DrawnCounts,
}

impl<W: Write> Timeline<W> {
    fn add(&mut self, record: &Record) -> io::Result<()> {
        let at = record.at;
        match (record.what, record.subject) {
            (Occurrence::Event(event), subject) => self.event(at, subject, event),
            (Occurrence::Sends, Some(subject)) => {
                let args = json!({ "vector": subject.vector, "message": subject.message });
                let send = Send { start: at, arrival: None, args, answer: None, is_found: false };
                self.sends.insert(subject, send);
                let name = format!("vector {}", subject.vector);
                self.out.begin(Tracks::device(subject.device), at, &name, &json!({}))
            }
            (Occurrence::Answered(answer), Some(subject)) => self.answered(at, subject, answer),
            (Occurrence::Handles { cpu, messages }, Some(last)) => {
                self.handles(at, cpu, last, messages)
            }
            (Occurrence::Slept { cpu }, _) if self.asleep.insert(cpu) => {
                self.out.begin(self.tracks.cpu(cpu), at, "asleep", &json!({}))
            }
            (Occurrence::Woke { cpu }, _) if self.asleep.remove(&cpu) => {
                self.out.end(self.tracks.cpu(cpu), at, &json!({}))
            }
            (Occurrence::Replugged { cpu }, _) => {
                self.out.instant(self.tracks.cpu(cpu), at, "was offline", &json!({}))
            }
            (Occurrence::Readded, Some(subject)) => {
                let track = Tracks::device(subject.device);
                self.out.instant(track, at, "removed and added again", &json!({}))
            }
            (Occurrence::Suspended, _) => self.everywhere(at, "the machine suspended"),
            (Occurrence::Migrated, _) => self.everywhere(at, "the controller migrated"),
            _ => Ok(()),
        }
    }

    fn event(&mut self, at: u64, subject: Option<Subject>, event: Event) -> io::Result<()> {
        match event {
            Event::Sent { message, .. } => {
                if let Some(send) = subject.and_then(|subject| self.sends.get_mut(&subject)) {
                    send.args["address"] = json!(format!("{:#x}", message.address));
                    send.args["data"] = json!(format!("{:#x}", message.data));
                }
                Ok(())
            }
            Event::Translated { device, message } => self.arrives(at, (subject, device, message)),
            Event::Pending { device, message } => {
                self.leaves((subject, device, message), at, Delivery::Pending)
            }
            Event::Dropped { device, message, delivery } => {
                self.leaves((subject, device, message), at, delivery)
            }
            Event::Kicked { cpu } => {
                let by = subject.map_or_else(|| json!({}), |subject| self.named(subject));
                self.out.instant(self.tracks.cpu(cpu), at, "kicked", &by)
            }
            Event::Taken { cpu, hwirq } => {
                self.end_interrupt(at, cpu)?;
                self.taken.insert(cpu, 1);
                let name = IntId::new(hwirq.get()).to_string();
                self.out.begin(self.tracks.cpu(cpu), at, &name, &json!({}))
            }
            Event::Ended { cpu, .. } => self.end_interrupt(at, cpu),
            Event::Command { its, words } => {
                self.counts.commands += 1;
                let (name, text) = match Command::decode(words) {
                    Ok(command) => (command.opcode().name(), command.to_string()),
                    Err(_) => ("unknown command", format!("{words:#x?}")),
                };
                self.out.instant(self.tracks.its(its), at, name, &json!({ "command": text }))
            }
            Event::Moved { hwirq, to } => {
                let Some(subject) = subject else { return Ok(()) };
                self.counts.moves += 1;
                let name = format!("vector {} moves to CPU {to}", subject.vector);
                let args = json!({ "interrupt": IntId::new(hwirq.get()).to_string() });
                self.out.instant(Tracks::device(subject.device), at, &name, &args)
            }
            _ => Ok(()),
        }
    }

    /// Begins the slice of a message on its controller's track. Devices write concurrently, but the
    /// slices of a track must not overlap, so the slice of the previous message ends.
    fn arrives(&mut self, at: u64, arrival: Arrival) -> io::Result<()> {
        let (subject, device, message) = arrival;
        let track = self.tracks.controller(message.address);
        if self.arrived.insert(track, arrival).is_some() {
            self.out.end(track, at, &json!({}))?;
        }
        let mut args = json!({ "address": format!("{:#x}", message.address) });
        match subject.and_then(|subject| self.sends.get_mut(&subject)) {
            Some(send) => {
                send.arrival = Some((track, at));
                send.args["DeviceID"] = json!(device.to_string());
            }
            None => args["released"] = json!("a mask held this message back"),
        }
        let name = format!("DeviceID {device} writes {:#x}", message.data);
        self.out.begin(track, at, &name, &args)
    }

    /// Ends the slice of a message on its controller's track, unless another message ended it.
    fn leaves(&mut self, arrival: Arrival, at: u64, answer: Delivery) -> io::Result<()> {
        let (_, _, message) = arrival;
        let track = self.tracks.controller(message.address);
        if self.arrived.get(&track) != Some(&arrival) {
            return Ok(());
        }
        self.arrived.remove(&track);
        let answer = match answer {
            Delivery::Pending => "pending",
            Delivery::Blocked | Delivery::NoDoorbell => "dropped",
        };
        self.out.end(track, at, &json!({ "answer": answer }))
    }

    /// Ends the slice of a message on its device's track.
    fn answered(&mut self, at: u64, subject: Subject, answer: Signaled) -> io::Result<()> {
        let Some(send) = self.sends.get_mut(&subject) else { return Ok(()) };
        let mut args = send.args.clone();
        send.answer = Some(answer);
        let track = Tracks::device(subject.device);
        match answer {
            Signaled::Off => {
                self.sends.remove(&subject);
                let reason = json!({ "reason": "the device is disabled or unplugged" });
                self.out.instant(track, at, "not sent", &reason)?;
            }
            Signaled::Held => {
                self.counts.messages += 1;
                args["held"] = json!("a mask holds the message back");
            }
            Signaled::Sent(_) => self.counts.messages += 1,
        }
        self.out.end(track, at, &args)
    }

    /// Begins the slice of a handler run, which ends with the interrupt, and draws the flows of the
    /// messages that it found. `last` is the last of them.
    fn handles(&mut self, at: u64, cpu: Cpu, last: Subject, messages: u64) -> io::Result<()> {
        let Some(slices) = self.taken.get_mut(&cpu) else { return Ok(()) };
        *slices += 1;
        self.counts.handler_runs += 1;
        let mut args = self.named(last);
        args["messages"] = json!(messages);
        if messages > 1 {
            args["coalesced"] = json!(messages - 1);
        }
        let track = self.tracks.cpu(cpu);
        self.out.begin(track, at, &format!("handler of vector {}", last.vector), &args)?;
        for message in last.message + 1 - messages..=last.message {
            let Some(send) = self.sends.get_mut(&Subject { message, ..last }) else { continue };
            send.is_found = true;
            self.counts.flows += 1;
            let start = (Tracks::device(last.device), send.start);
            let way = [Some(start), send.arrival, Some((track, at))].into_iter().flatten();
            self.out.flow(self.counts.flows, &way.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Ends the slices of the interrupt that a CPU has taken, if any.
    fn end_interrupt(&mut self, at: u64, cpu: Cpu) -> io::Result<()> {
        let slices = self.taken.remove(&cpu).unwrap_or(0);
        let args = match slices {
            1 => json!({ "reason": "no handler of a device ran" }),
            _ => json!({}),
        };
        (0..slices).try_for_each(|_| self.out.end(self.tracks.cpu(cpu), at, &args))
    }

    /// Marks the messages that were dropped and, if the trace has all events, those that no handler
    /// found.
    fn add_lost(&mut self, is_whole: bool) -> io::Result<()> {
        for (subject, send) in &self.sends {
            let reason = match (send.answer, send.arrival) {
                (Some(Signaled::Sent(Delivery::Blocked)), None) => {
                    "the bus has no DeviceID for the sender"
                }
                (Some(Signaled::Sent(Delivery::Blocked)), Some(_)) => {
                    "the controller dropped the message"
                }
                (Some(Signaled::Sent(Delivery::NoDoorbell)), _) => {
                    "no controller receives messages at the address"
                }
                (Some(_), _) if !send.is_found && is_whole => "no handler found the message",
                _ => continue,
            };
            self.counts.lost += 1;
            let name = format!("vector {} lost", subject.vector);
            let args = json!({ "message": subject.message, "reason": reason });
            self.out.instant(Tracks::device(subject.device), send.start, &name, &args)?;
        }
        Ok(())
    }

    fn named(&self, subject: Subject) -> Value {
        let device = self.tracks.device_name(subject.device);
        json!({ "device": device, "vector": subject.vector, "message": subject.message })
    }

    fn everywhere(&mut self, at: u64, name: &str) -> io::Result<()> {
        self.out.instant_everywhere(self.tracks.cpu(Cpu::new(0)), at, name)
    }
}
