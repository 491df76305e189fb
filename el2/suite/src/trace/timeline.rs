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
mod tests {
    use super::*;

    const GUEST: Option<usize> = Some(0);
    const MACHINE: Option<usize> = None;
    const ITS: u64 = 0x0808_0000;
    const SENT: TracedMessage = TracedMessage { device: 0x10, address: ITS + DOORBELL, data: 3 };
    /// Maps the message to [`LPI`].
    const MAP: TraceEvent =
        TraceEvent::Command { its: ITS, words: [0x10 << 32 | MAPTI, 8195 << 32 | 3, 0, 0] };
    const LPI: TracedInterrupt = TracedInterrupt { cpu: 1, intid: 8195 };
    const PHYSICAL: TracedInterrupt = TracedInterrupt { cpu: 0, intid: 8200 };

    /// Draws events with times in microseconds.
    fn draw(events: &[(u64, u32, Option<usize>, TraceEvent)]) -> Value {
        let traced = |&(at, cpu, guest, event)| Traced { at, cpu, guest, event };
        let events = events.iter().map(traced).collect();
        let trace = Trace { ticks_per_millisecond: 1000, events, ..Trace::default() };
        let mut file = Vec::new();
        trace.write(&mut file).expect("the memory has room");
        serde_json::from_slice(&file).expect("the timeline is JSON")
    }

    /// Returns the events of a kind, each with its track's name, its own name, its time and its
    /// duration.
    fn drawn(document: &Value, kind: &str) -> Value {
        let events = document["traceEvents"].as_array().expect("there are events");
        let track = |event: &Value| {
            let name = |it: &&Value| it["name"] == "thread_name" && it["tid"] == event["tid"];
            events.iter().find(name).map(|it| it["args"]["name"].clone())
        };
        let of_kind = events.iter().filter(|event| event["ph"] == kind);
        of_kind.map(|it| json!([track(it), it["name"], it["ts"], it["dur"]])).collect()
    }

    #[test]
    fn a_message_flows_from_the_physical_interrupt_to_the_guests() {
        let document = draw(&[
            (0, 1, GUEST, MAP),
            (10, 0, MACHINE, TraceEvent::Taken(PHYSICAL)),
            (12, 0, GUEST, TraceEvent::Translated(SENT)),
            (13, 0, GUEST, TraceEvent::Kicked { cpu: 1 }),
            (14, 0, GUEST, TraceEvent::Pending(SENT)),
            (16, 0, MACHINE, TraceEvent::Ended(PHYSICAL)),
            (20, 1, GUEST, TraceEvent::Listed(LPI)),
            (28, 1, GUEST, TraceEvent::Taken(LPI)),
            (30, 1, GUEST, TraceEvent::Ended(LPI)),
        ]);
        let (device, its) = ("guest 0 device 00:02.0", "guest 0 ITS at 0x8080000");
        let slices = json!([
            [device, "message 0x3", 10.0, 4.0],
            [its, "DeviceID 0x10 writes 0x3", 12.0, 2.0],
            ["CPU 0", "LPI 8200", 10.0, 6.0],
            ["guest 0 vCPU 1", "LPI 8195", 20.0, 10.0],
        ]);
        assert_eq!(drawn(&document, "X"), slices);
        assert_eq!(drawn(&document, "s"), json!([[device, "message", 10.0, null]]));
        assert_eq!(drawn(&document, "t"), json!([[its, "message", 12.0, null]]));
        assert_eq!(drawn(&document, "f"), json!([["guest 0 vCPU 1", "message", 20.0, null]]));
        let instants = json!([[its, "MAPTI", 0.0, null], ["guest 0 vCPU 1", "kicked", 13.0, null]]);
        assert_eq!(drawn(&document, "i"), instants);
    }

    #[test]
    fn messages_share_an_interrupt_until_it_is_acknowledged() {
        let sent = |at| {
            [
                (at, 0, GUEST, TraceEvent::Translated(SENT)),
                (at, 0, GUEST, TraceEvent::Pending(SENT)),
            ]
        };
        let listed = |at| (at, 1, GUEST, TraceEvent::Listed(LPI));
        let over =
            |at| [(at, 1, GUEST, TraceEvent::Taken(LPI)), (at, 1, GUEST, TraceEvent::Ended(LPI))];
        let first = [&sent(10)[..], &[listed(20)], &sent(22), &[listed(25)], &over(30)].concat();
        let second = [&sent(32)[..], &[listed(40)], &over(50)].concat();
        let document = draw(&[&[(0, 1, GUEST, MAP)][..], &first, &second].concat());
        let ends = [20.0, 25.0, 40.0].map(|at| json!(["guest 0 vCPU 1", "message", at, null]));
        assert_eq!(drawn(&document, "f"), json!(ends));
        let starts = [10.0, 22.0, 32.0];
        let starts = starts.map(|at| json!(["guest 0 device 00:02.0", "message", at, null]));
        assert_eq!(drawn(&document, "s"), json!(starts));
    }

    #[test]
    fn a_dropped_message_is_marked_and_has_no_flow() {
        let document = draw(&[
            (0, 1, GUEST, MAP),
            (10, 0, GUEST, TraceEvent::Translated(SENT)),
            (11, 0, GUEST, TraceEvent::Dropped(SENT)),
            (20, 1, GUEST, TraceEvent::Listed(LPI)),
            (30, 1, GUEST, TraceEvent::Taken(LPI)),
            (30, 1, GUEST, TraceEvent::Ended(LPI)),
        ]);
        assert_eq!(drawn(&document, "f"), json!([]));
        let lost = json!(["guest 0 device 00:02.0", "message lost", 11.0, null]);
        assert_eq!(drawn(&document, "i")[1], lost);
        let slices = document["traceEvents"].as_array().expect("there are events").iter();
        let messages: Vec<_> = slices.filter_map(|it| it["args"]["messages"].as_u64()).collect();
        assert_eq!(messages, [0], "the guest's interrupt delivers no message");
    }

    #[test]
    fn the_data_for_another_doorbell_is_the_interrupt() {
        let sent = TracedMessage { address: 0x0800_0040, data: 80, ..SENT };
        let spi = TracedInterrupt { cpu: 0, intid: 80 };
        let document = draw(&[
            (0, 0, GUEST, TraceEvent::Translated(sent)),
            (1, 0, GUEST, TraceEvent::Pending(sent)),
            (2, 0, GUEST, TraceEvent::Listed(spi)),
            (3, 0, GUEST, TraceEvent::Taken(spi)),
            (3, 0, GUEST, TraceEvent::Ended(spi)),
        ]);
        let step = json!([["guest 0 doorbell 0x8000040", "message", 0.0, null]]);
        assert_eq!(drawn(&document, "t"), step);
        assert_eq!(drawn(&document, "f"), json!([["guest 0 vCPU 0", "message", 2.0, null]]));
    }

    #[test]
    fn an_interrupt_is_drawn_at_the_vcpu_that_takes_it() {
        let at_first = TracedInterrupt { cpu: 0, ..LPI };
        let sgi = |cpu| TracedInterrupt { cpu, intid: 1 };
        let document = draw(&[
            (0, 0, GUEST, TraceEvent::Listed(at_first)),
            (0, 0, GUEST, TraceEvent::Listed(sgi(0))),
            (1, 1, GUEST, TraceEvent::Listed(sgi(1))),
            (2, 0, GUEST, TraceEvent::Taken(sgi(0))),
            (2, 0, GUEST, TraceEvent::Ended(sgi(0))),
            (4, 1, GUEST, TraceEvent::Listed(LPI)),
            (6, 1, GUEST, TraceEvent::Taken(LPI)),
            (6, 1, GUEST, TraceEvent::Ended(LPI)),
            (8, 1, GUEST, TraceEvent::Taken(sgi(1))),
            (8, 1, GUEST, TraceEvent::Ended(sgi(1))),
        ]);
        let slices = json!([
            ["guest 0 vCPU 0", "SGI 1", 0.0, 2.0],
            ["guest 0 vCPU 1", "SGI 1", 1.0, 7.0],
            ["guest 0 vCPU 1", "LPI 8195", 4.0, 2.0],
        ]);
        assert_eq!(drawn(&document, "X"), slices);
    }

    #[test]
    fn a_slice_that_outlasts_the_one_around_it_is_cut() {
        let slice = |(start, end)| Slice {
            span: Span::new(start, end),
            name: String::new(),
            args: Value::Null,
        };
        let slices = nested([(12, 15), (5, 20), (0, 10)].map(slice).into());
        let periods: Vec<_> = slices.iter().map(|it| (it.span.start, it.span.end)).collect();
        assert_eq!(periods, [(0, 10), (5, 10), (12, 15)]);
    }
}
