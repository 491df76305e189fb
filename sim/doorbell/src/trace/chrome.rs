//! Writer of Chrome's trace format, which Google's document "Trace Event Format" defines. A trace
//! is a JSON object whose array `traceEvents` contains slices, instants, and flows between slices.
//! Each is on a track, which the format calls a thread of a process.

use serde::Serialize;
use serde_json::Value;
use std::io::{self, Write};

/// Row in the viewer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Track {
    /// Number of the process that groups this track with others.
    pub(super) process: u32,
    /// Number of the track, which must be unique among the tracks of all processes.
    pub(super) thread: u32,
}

/// Period of time, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    /// Start of the period.
    pub(super) start: u64,
    /// End of the period.
    pub(super) end: u64,
}

impl Span {
    /// Creates a period. Extends it to one nanosecond if it is empty, because a flow cannot connect
    /// a slice without a duration.
    pub(super) fn new(start: u64, end: u64) -> Self {
        Self { start, end: end.max(start + 1) }
    }
}

/// Point of a flow. The flow connects the slices that contain its points.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FlowPoint {
    /// The flow's first point.
    Start,
    /// A point between the first and the last.
    Step,
    /// The flow's last point.
    End,
}

/// Element of `traceEvents`.
#[derive(Serialize)]
struct TraceEvent<'a> {
    ph: char,
    pid: u32,
    tid: u32,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cat: Option<&'a str>,
    /// Time in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    /// Binding point of a flow's end: `e` connects the flow to the enclosing slice instead of the
    /// next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    bp: Option<&'a str>,
    /// Scope of an instant: its track, or all tracks.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<char>,
    #[serde(skip_serializing_if = "Value::is_null")]
    args: Value,
}

/// Writer that writes a trace event by event.
#[derive(Debug)]
pub(super) struct ChromeWriter<W> {
    out: W,
    is_first: bool,
}

impl<W: Write> ChromeWriter<W> {
    /// Begins the JSON object.
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
        Ok(Self { out, is_first: true })
    }

    /// Ends the JSON object, and writes `facts` about the whole trace as `otherData`.
    pub(super) fn finish(mut self, facts: &Value) -> io::Result<()> {
        write!(self.out, "\n],\"otherData\":")?;
        serde_json::to_writer(&mut self.out, facts)?;
        writeln!(self.out, "}}")
    }

    /// Names a process, which groups tracks. Viewers show processes in the order of their numbers.
    pub(super) fn process(&mut self, number: u32, name: &str) -> io::Result<()> {
        let track = Track { process: number, thread: 0 };
        self.metadata(track, "process_name", serde_json::json!({ "name": name }))?;
        self.metadata(track, "process_sort_index", serde_json::json!({ "sort_index": number }))
    }

    /// Names a track. Viewers show the tracks of a process in the order of their numbers.
    pub(super) fn track(&mut self, track: Track, name: &str) -> io::Result<()> {
        let order = serde_json::json!({ "sort_index": track.thread });
        self.metadata(track, "thread_name", serde_json::json!({ "name": name }))?;
        self.metadata(track, "thread_sort_index", order)
    }

    /// Draws a slice. The slices of a track must be nested or disjoint.
    pub(super) fn slice(
        &mut self,
        track: Track,
        span: Span,
        name: &str,
        args: Value,
    ) -> io::Result<()> {
        let event = TraceEvent::new('X', track, name);
        let (ts, dur) = (microseconds(span.start), microseconds(span.end - span.start));
        self.write(&TraceEvent { ts: Some(ts), dur: Some(dur), args, ..event })
    }

    /// Adds a point to a flow. The slice that contains the point must already have been drawn.
    pub(super) fn flow(
        &mut self,
        track: Track,
        at: u64,
        id: u64,
        point: FlowPoint,
    ) -> io::Result<()> {
        let (ph, bp) = match point {
            FlowPoint::Start => ('s', None),
            FlowPoint::Step => ('t', None),
            FlowPoint::End => ('f', Some("e")),
        };
        let event = TraceEvent::new(ph, track, "message");
        let (ts, cat) = (Some(microseconds(at)), Some("message"));
        self.write(&TraceEvent { ts, cat, id: Some(id), bp, ..event })
    }

    /// Draws an instant on a track.
    pub(super) fn instant(
        &mut self,
        track: Track,
        at: u64,
        name: &str,
        args: Value,
    ) -> io::Result<()> {
        let event = TraceEvent::new('i', track, name);
        self.write(&TraceEvent { ts: Some(microseconds(at)), s: Some('t'), args, ..event })
    }

    /// Draws an instant across all tracks. The viewer selects the instant on `track`.
    pub(super) fn instant_everywhere(
        &mut self,
        track: Track,
        at: u64,
        name: &str,
    ) -> io::Result<()> {
        let event = TraceEvent::new('i', track, name);
        self.write(&TraceEvent { ts: Some(microseconds(at)), s: Some('g'), ..event })
    }

    fn metadata(&mut self, track: Track, name: &str, args: Value) -> io::Result<()> {
        self.write(&TraceEvent { args, ..TraceEvent::new('M', track, name) })
    }

    fn write(&mut self, event: &TraceEvent<'_>) -> io::Result<()> {
        self.out.write_all(if self.is_first { b"\n" } else { b",\n" })?;
        self.is_first = false;
        serde_json::to_writer(&mut self.out, event).map_err(Into::into)
    }
}

impl<'a> TraceEvent<'a> {
    const fn new(ph: char, track: Track, name: &'a str) -> Self {
        let Track { process: pid, thread: tid } = track;
        let args = Value::Null;
        Self {
            ph,
            pid,
            tid,
            name,
            cat: None,
            ts: None,
            dur: None,
            id: None,
            bp: None,
            s: None,
            args,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 ns, which is a hundred days")]
fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}
