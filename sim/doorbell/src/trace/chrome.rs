//! Writer of Chrome's trace format, which Google's document "Trace Event Format" defines. A trace
//! is a JSON object whose array `traceEvents` contains slices, instants, and flows between slices.
//! Each is on a track, which the format calls a thread of a process.

use serde::ser::{SerializeMap as _, Serializer as _};
use serde_json::{Value, json};
use std::io::{self, Write};

/// Row in the viewer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Track {
    /// Number of the process that groups this track with others.
    pub(super) process: u32,
    /// Number of the track, which must be unique among the tracks of all processes.
    pub(super) thread: u32,
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

/// Writer that writes a trace event by event.
#[derive(Debug)]
pub(super) struct ChromeWriter<W> {
    out: W,
    /// Nanoseconds per unit of the times that the caller passes.
    scale: u64,
    is_first: bool,
}

impl<W: Write> ChromeWriter<W> {
    /// Begins the JSON object.
    pub(super) fn new(mut out: W, scale: u64) -> io::Result<Self> {
        out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
        Ok(Self { out, scale, is_first: true })
    }

    /// Ends the JSON object, and writes `facts` about the whole trace as `otherData`.
    pub(super) fn finish(mut self, facts: &Value) -> io::Result<()> {
        write!(self.out, "\n],\"otherData\":")?;
        serde_json::to_writer(&mut self.out, facts)?;
        writeln!(self.out, "}}")
    }

    /// Names a process, which groups tracks. Viewers show processes in the order of their numbers.
    pub(super) fn process(&mut self, number: u32, name: &str) -> io::Result<()> {
        self.metadata(Track { process: number, thread: 0 }, "process", name, number)
    }

    /// Names a track. Viewers show the tracks of a process in the order of their numbers.
    pub(super) fn track(&mut self, track: Track, name: &str) -> io::Result<()> {
        self.metadata(track, "thread", name, track.thread)
    }

    fn metadata(&mut self, track: Track, of: &str, name: &str, order: u32) -> io::Result<()> {
        let (name, order) = (json!({ "name": name }), json!({ "sort_index": order }));
        self.event('M', track, &format!("{of}_name"), &[("args", name)])?;
        self.event('M', track, &format!("{of}_sort_index"), &[("args", order)])
    }

    /// Draws a slice, which lasts at least a nanosecond, because a flow cannot connect a slice
    /// without a duration. The slices of a track must be nested or disjoint.
    pub(super) fn slice(
        &mut self,
        track: Track,
        (start, end): (u64, u64),
        name: &str,
        args: Value,
    ) -> io::Result<()> {
        let duration = (end.saturating_sub(start) * self.scale).max(1);
        let times = [("ts", self.time(start)), ("dur", microseconds(duration))];
        self.event('X', track, name, &[&times[..], &[("args", args)]].concat())
    }

    /// Adds a point to a flow. The slice that contains the point must already have been drawn.
    pub(super) fn flow(
        &mut self,
        track: Track,
        at: u64,
        id: u64,
        point: FlowPoint,
    ) -> io::Result<()> {
        let (kind, binding) = match point {
            FlowPoint::Start => ('s', Value::Null),
            FlowPoint::Step => ('t', Value::Null),
            // Connects the flow to the enclosing slice instead of the next one.
            FlowPoint::End => ('f', json!("e")),
        };
        let place = [("cat", json!("message")), ("ts", self.time(at)), ("id", json!(id))];
        self.event(kind, track, "message", &[&place[..], &[("bp", binding)]].concat())
    }

    /// Draws an instant on a track.
    pub(super) fn instant(
        &mut self,
        track: Track,
        at: u64,
        name: &str,
        args: Value,
    ) -> io::Result<()> {
        self.event('i', track, name, &[("ts", self.time(at)), ("s", json!("t")), ("args", args)])
    }

    /// Draws an instant across all tracks. The viewer selects the instant on `track`.
    pub(super) fn instant_everywhere(
        &mut self,
        track: Track,
        at: u64,
        name: &str,
    ) -> io::Result<()> {
        self.event('i', track, name, &[("ts", self.time(at)), ("s", json!("g"))])
    }

    /// Writes an element of `traceEvents`, with those of the `more` fields that are not null.
    fn event(
        &mut self,
        kind: char,
        Track { process, thread }: Track,
        name: &str,
        more: &[(&str, Value)],
    ) -> io::Result<()> {
        self.out.write_all(if self.is_first { b"\n" } else { b",\n" })?;
        self.is_first = false;
        let mut writer = serde_json::Serializer::new(&mut self.out);
        let mut fields = writer.serialize_map(None)?;
        fields.serialize_entry("ph", &kind)?;
        fields.serialize_entry("pid", &process)?;
        fields.serialize_entry("tid", &thread)?;
        fields.serialize_entry("name", name)?;
        for (field, value) in more.iter().filter(|(_, value)| !value.is_null()) {
            fields.serialize_entry(field, value)?;
        }
        Ok(fields.end()?)
    }

    fn time(&self, at: u64) -> Value {
        microseconds(at * self.scale)
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 ns, which is a hundred days")]
fn microseconds(nanoseconds: u64) -> Value {
    json!(nanoseconds as f64 / 1000.0)
}
