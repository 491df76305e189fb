//! The hypervisor's trace as a timeline in Chrome's trace format: a track per device, controller,
//! CPU and vCPU, and a flow per message from the physical interrupt that the hypervisor forwards to
//! the guest's interrupt.
//!
//! The slice of a guest's interrupt begins at the entry that loads the interrupt into a list
//! register, and ends at the exit after which the list register is empty. In the meantime, the
//! guest has acknowledged and ended the interrupt. Messages that arrive before the guest
//! acknowledges the interrupt are merged, so several flows may end in one slice.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};

use doorbell_facts::{Fact, HypervisorFact, TraceEvent, TracedInterrupt, TracedMessage};
use doorbell_timeline::{ChromeWriter, FlowPoint, Span, Track, command, interrupt_name};
use serde_json::{Value, json};

/// Offset of `GITS_TRANSLATER` from the ITS's first register.
const DOORBELL: u64 = 0x1_0040;
/// ITS commands that map an event (IHI 0069 §5.3).
const MAPTI: u64 = 0x0a;
const MAPI: u64 = 0x0b;

/// The hypervisor's trace.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) ticks_per_millisecond: u64,
    /// Number of events that the hypervisor announced.
    pub(crate) announced: usize,
    pub(crate) left_out: u64,
    pub(crate) events: Vec<Traced>,
}

/// An event of the trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traced {
    /// The counter's value.
    pub(crate) at: u64,
    /// The machine's CPU.
    pub(crate) cpu: u32,
    pub(crate) guest: Option<usize>,
    pub(crate) event: TraceEvent,
}

impl Trace {
    /// Adds a fact if it is part of the trace.
    pub(crate) fn fact(&mut self, fact: &Fact) {
        match *fact {
            Fact::Hypervisor(HypervisorFact::Trace { ticks_per_millisecond, events, left_out }) => {
                (self.announced, self.left_out) = (events, left_out);
                self.ticks_per_millisecond = ticks_per_millisecond;
            }
            Fact::Hypervisor(HypervisorFact::Event { at, cpu, guest, event }) => {
                self.events.push(Traced { at, cpu, guest, event });
            }
            _ => {}
        }
    }

    /// Writes the timeline.
    pub(crate) fn write(&self, out: impl Write) -> io::Result<()> {
        let mut events = self.events.clone();
        events.sort_by_key(|event| event.at);
        let start = events.first().map_or(0, |event| event.at);
        let mut timeline = Timeline::default();
        for event in &events {
            timeline.add(Traced { at: self.nanoseconds(event.at - start), ..*event });
        }
        timeline.write(out, self.left_out)
    }

    fn nanoseconds(&self, ticks: u64) -> u64 {
        let frequency = u128::from(self.ticks_per_millisecond.max(1));
        u64::try_from(u128::from(ticks) * 1_000_000 / frequency).unwrap_or(u64::MAX)
    }
}

/// A track, in the order in which tracks are shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Row {
    Device {
        guest: usize,
        device: u32,
    },
    /// A controller, by the address of its registers or of its doorbell.
    Controller {
        guest: usize,
        address: u64,
    },
    Cpu {
        cpu: u32,
    },
    Vcpu {
        guest: usize,
        cpu: u32,
    },
}

/// Names of the processes that group the tracks.
const GROUPS: [&str; 4] = ["devices", "controllers", "CPUs", "vCPUs"];

impl Row {
    /// Returns the number of the row's process.
    const fn group(self) -> u32 {
        match self {
            Self::Device { .. } => 1,
            Self::Controller { .. } => 2,
            Self::Cpu { .. } => 3,
            Self::Vcpu { .. } => 4,
        }
    }

    fn name(self, is_its: bool) -> String {
        match self {
            Self::Device { guest, device } => {
                let (bus, slot, function) = (device >> 8, device >> 3 & 0x1f, device & 7);
                format!("guest {guest} device {bus:02x}:{slot:02x}.{function}")
            }
            Self::Controller { guest, address } if is_its => {
                format!("guest {guest} ITS at {address:#x}")
            }
            Self::Controller { guest, address } => format!("guest {guest} doorbell {address:#x}"),
            Self::Cpu { cpu } => format!("CPU {cpu}"),
            Self::Vcpu { guest, cpu } => format!("guest {guest} vCPU {cpu}"),
        }
    }
}

/// A period on a track.
struct Slice {
    span: Span,
    name: String,
    args: Value,
}

/// A moment on a track.
struct Instant {
    row: Row,
    at: u64,
    name: String,
    args: Value,
}

/// A message in flight.
struct Message {
    /// Time of the physical interrupt, or of the message if no physical interrupt caused it.
    start: u64,
    /// Time at which the message reached its controller.
    arrival: u64,
    device: Row,
    controller: Row,
    contents: TracedMessage,
    /// The guest's interrupt.
    intid: Option<u32>,
    /// The physical interrupt.
    forwards: Option<u32>,
    is_pending: bool,
    /// The vCPU whose interrupt this message caused, and the time at which a list register
    /// contained it.
    end: Option<(Row, u64)>,
}

/// An interrupt in a list register.
struct Presented {
    vcpu: u32,
    start: u64,
    /// Time of the exit after which the interrupt was no longer pending.
    taken: Option<u64>,
    /// Indices of the messages that it delivers, each with the time of the entry that loaded it.
    messages: Vec<(usize, u64)>,
}

/// Identity of a guest's interrupt: the guest, the vCPU of a private interrupt, and the INTID.
type Interrupt = (usize, Option<u32>, u32);

fn interrupt_of(guest: usize, TracedInterrupt { cpu, intid }: TracedInterrupt) -> Interrupt {
    (guest, (intid < 32 || (1056..1120).contains(&intid)).then_some(cpu), intid)
}

#[derive(Default)]
struct Timeline {
    rows: BTreeMap<Row, Vec<Slice>>,
    instants: Vec<Instant>,
    messages: Vec<Message>,
    /// Addresses of each guest's ITSes.
    its: HashSet<(usize, u64)>,
    /// LPIs of a guest's events, by DeviceID and EventID.
    mapped: HashMap<(usize, u32, u32), u32>,
    /// The physical interrupt that each CPU has taken, with the time.
    physical: HashMap<u32, (u64, u32)>,
    /// The message that each CPU is sending, as an index.
    sending: HashMap<u32, usize>,
    /// Messages whose interrupts have not been in a list register since they arrived, as indices.
    waiting: HashMap<(usize, u32), Vec<usize>>,
    presented: HashMap<Interrupt, Presented>,
}

impl Timeline {
    fn add(&mut self, Traced { at, cpu, guest, event }: Traced) {
        match (event, guest) {
            (TraceEvent::Taken(it), None) => _ = self.physical.insert(cpu, (at, it.intid)),
            (TraceEvent::Ended(_), None) => {
                if let Some((start, intid)) = self.physical.remove(&cpu) {
                    self.slice(Row::Cpu { cpu }, (start, at), interrupt_name(intid), Value::Null);
                }
            }
            (TraceEvent::Translated(message), Some(guest)) => {
                self.translated(at, cpu, guest, message);
            }
            (TraceEvent::Pending(_), Some(_)) => self.answered(at, cpu, true),
            (TraceEvent::Dropped(_), Some(_)) => self.answered(at, cpu, false),
            (TraceEvent::Kicked { cpu }, Some(guest)) => {
                self.instant(Row::Vcpu { guest, cpu }, at, "kicked", Value::Null);
            }
            (TraceEvent::Listed(it), Some(guest)) => self.listed(at, guest, it),
            (TraceEvent::Taken(it), Some(guest)) => {
                if let Some(presented) = self.presented.get_mut(&interrupt_of(guest, it)) {
                    presented.taken = Some(at);
                }
            }
            (TraceEvent::Ended(it), Some(guest)) => self.ended(at, guest, it),
            (TraceEvent::Command { its, words }, Some(guest)) => {
                self.command(at, guest, its, words);
            }
            (_, None) => {}
        }
    }

    fn translated(&mut self, at: u64, cpu: u32, guest: usize, message: TracedMessage) {
        let TracedMessage { device, address, data } = message;
        let base = address.wrapping_sub(DOORBELL);
        let is_its = self.its.contains(&(guest, base));
        let intid =
            if is_its { self.mapped.get(&(guest, device, data)).copied() } else { Some(data) };
        let physical = self.physical.get(&cpu);
        let index = self.messages.len();
        self.messages.push(Message {
            start: physical.map_or(at, |(start, _)| *start),
            arrival: at,
            device: Row::Device { guest, device },
            controller: Row::Controller { guest, address: if is_its { base } else { address } },
            contents: message,
            intid,
            forwards: physical.map(|(_, intid)| *intid),
            is_pending: false,
            end: None,
        });
        self.sending.insert(cpu, index);
        if let Some(intid) = intid {
            self.waiting.entry((guest, intid)).or_default().push(index);
        }
    }

    /// Draws a message on the tracks of its device and of the controller that has answered it.
    fn answered(&mut self, at: u64, cpu: u32, is_pending: bool) {
        let Some(index) = self.sending.remove(&cpu) else { return };
        let Some(sent) = self.messages.get_mut(index) else { return };
        sent.is_pending = is_pending;
        let (device, controller, start, arrival) =
            (sent.device, sent.controller, sent.start, sent.arrival);
        let TracedMessage { device: id, address, data } = sent.contents;
        let args = json!({
            "address": format!("{address:#x}"),
            "forwards": sent.forwards.map(interrupt_name),
            "interrupt": sent.intid.map(interrupt_name),
        });
        self.slice(device, (start, at), format!("message {data:#x}"), args);
        let answer = if is_pending { "pending" } else { "dropped" };
        let name = format!("DeviceID {id:#x} writes {data:#x}");
        self.slice(controller, (arrival, at), name, json!({ "answer": answer }));
        if !is_pending {
            self.instant(device, at, "message lost", Value::Null);
            self.waiting.values_mut().for_each(|waiting| waiting.retain(|it| *it != index));
        }
    }

    fn listed(&mut self, at: u64, guest: usize, it: TracedInterrupt) {
        let waiting = self.waiting.remove(&(guest, it.intid)).unwrap_or_default();
        let first = || Presented { vcpu: it.cpu, start: at, taken: None, messages: Vec::new() };
        let presented = self.presented.entry(interrupt_of(guest, it)).or_insert_with(first);
        if presented.vcpu != it.cpu {
            // The interrupt has a new target, which delivers it to another vCPU.
            (presented.vcpu, presented.start) = (it.cpu, at);
            presented.messages.iter_mut().for_each(|(_, from)| *from = at);
        }
        presented.messages.extend(waiting.into_iter().map(|index| (index, at)));
    }

    fn ended(&mut self, at: u64, guest: usize, it: TracedInterrupt) {
        let Some(presented) = self.presented.remove(&interrupt_of(guest, it)) else { return };
        let Presented { vcpu, start, taken: Some(taken), messages } = presented else { return };
        let row = Row::Vcpu { guest, cpu: vcpu };
        for (index, from) in &messages {
            if let Some(message) = self.messages.get_mut(*index) {
                message.end = Some((row, *from));
            }
        }
        let args = json!({ "messages": messages.len(), "acknowledged within": taken - start });
        self.slice(row, (start, at), interrupt_name(it.intid), args);
    }

    fn command(&mut self, at: u64, guest: usize, its: u64, words: [u64; 4]) {
        self.its.insert((guest, its));
        let (device, event, lpi) =
            ((words[0] >> 32) as u32, (words[1] & 0xffff_ffff) as u32, (words[1] >> 32) as u32);
        match words[0] & 0xff {
            MAPTI => _ = self.mapped.insert((guest, device, event), lpi),
            MAPI => _ = self.mapped.insert((guest, device, event), event),
            _ => {}
        }
        let (name, args) = command(words);
        self.instant(Row::Controller { guest, address: its }, at, name, args);
    }

    fn slice(&mut self, row: Row, (start, end): (u64, u64), name: String, args: Value) {
        let slice = Slice { span: Span::new(start, end), name, args };
        self.rows.entry(row).or_default().push(slice);
    }

    fn instant(&mut self, row: Row, at: u64, name: &str, args: Value) {
        self.rows.entry(row).or_default();
        self.instants.push(Instant { row, at, name: name.to_owned(), args });
    }

    fn write(self, out: impl Write, left_out: u64) -> io::Result<()> {
        let mut out = ChromeWriter::new(out)?;
        for (number, name) in (1..).zip(GROUPS) {
            out.process(number, name)?;
        }
        let track = |(row, thread): (&Row, u32)| (*row, Track { process: row.group(), thread });
        let tracks: BTreeMap<Row, Track> = self.rows.keys().zip(1..).map(track).collect();
        for (row, track) in &tracks {
            let is_its = match *row {
                Row::Controller { guest, address } => self.its.contains(&(guest, address)),
                _ => false,
            };
            out.track(*track, &row.name(is_its))?;
        }
        for (row, slices) in self.rows {
            for Slice { span, name, args } in nested(slices) {
                out.slice(tracks[&row], span, &name, args)?;
            }
        }
        for Instant { row, at, name, args } in self.instants {
            out.instant(tracks[&row], at, &name, args)?;
        }
        let delivered = self.messages.iter().filter(|message| message.is_pending);
        let delivered = delivered.filter_map(|message| Some((message, message.end?)));
        let mut flows = 0;
        for (message, (vcpu, end)) in delivered {
            flows += 1;
            out.flow(tracks[&message.device], message.start, flows, FlowPoint::Start)?;
            out.flow(tracks[&message.controller], message.arrival, flows, FlowPoint::Step)?;
            out.flow(tracks[&vcpu], end, flows, FlowPoint::End)?;
        }
        out.finish(&json!({
            "time": "nanoseconds since the first event",
            "messages": self.messages.len(),
            "flows": flows,
            "events_left_out": left_out,
        }))
    }
}

/// Sorts a track's slices, and truncates those that outlast the slice in which they begin.
fn nested(mut slices: Vec<Slice>) -> Vec<Slice> {
    slices.sort_by_key(|Slice { span, .. }| (span.start, Reverse(span.end)));
    let mut open: Vec<u64> = Vec::new();
    for Slice { span, .. } in &mut slices {
        open.retain(|end| *end > span.start);
        span.end = open.iter().fold(span.end, |end, outer| end.min(*outer));
        open.push(span.end);
    }
    slices
}

#[cfg(test)]
mod tests;
