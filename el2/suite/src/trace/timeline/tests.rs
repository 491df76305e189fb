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

/// Renders events as a timeline; times are in microseconds.
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
fn an_arrow_links_each_message_to_the_guest_interrupt() {
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
fn messages_share_one_interrupt_until_the_guest_acknowledges_it() {
    let sent = |at| {
        [(at, 0, GUEST, TraceEvent::Translated(SENT)), (at, 0, GUEST, TraceEvent::Pending(SENT))]
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
fn a_dropped_message_is_marked_as_lost_and_has_no_arrow() {
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
fn an_arrow_links_a_doorbell_message_to_the_spi_in_the_data() {
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
fn the_timeline_shows_an_interrupt_at_the_vcpu_that_takes_it() {
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
fn a_slice_that_outlasts_the_enclosing_slice_is_truncated() {
    let slice = |(start, end)| Slice {
        span: Span::new(start, end),
        name: String::new(),
        args: Value::Null,
    };
    let slices = nested([(12, 15), (5, 20), (0, 10)].map(slice).into());
    let periods: Vec<_> = slices.iter().map(|it| (it.span.start, it.span.end)).collect();
    assert_eq!(periods, [(0, 10), (5, 10), (12, 15)]);
}
