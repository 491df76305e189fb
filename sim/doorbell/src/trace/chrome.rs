//! Writer of Chrome's trace format, which Google's document "Trace Event Format" defines. A trace
//! is a JSON object whose array `traceEvents` contains the beginnings and ends of slices, instants,
//! and flows between slices. Each is on a track, which the format calls a thread of a process.

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
        writeln!(self.out, "\n],\"otherData\":{facts}}}")
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
        let order = json!({ "name": format!("{of}_sort_index"), "args": { "sort_index": order } });
        self.event("M", track, json!({ "name": format!("{of}_name"), "args": { "name": name } }))?;
        self.event("M", track, order)
    }

    /// Begins a slice. The slices of a track must be nested.
    pub(super) fn begin(
        &mut self,
        track: Track,
        at: u64,
        name: &str,
        args: &Value,
    ) -> io::Result<()> {
        self.event("B", track, json!({ "name": name, "ts": self.time(at), "args": args }))
    }

    /// Ends the innermost slice of a track, and adds `args` to its arguments.
    pub(super) fn end(&mut self, track: Track, at: u64, args: &Value) -> io::Result<()> {
        self.event("E", track, json!({ "ts": self.time(at), "args": args }))
    }

    /// Draws a flow through points in this order. It connects the slices that contain the points.
    pub(super) fn flow(&mut self, id: u64, points: &[(Track, u64)]) -> io::Result<()> {
        for (index, (track, at)) in points.iter().enumerate() {
            let mut point = json!({ "name": "message", "cat": "message", "id": id });
            point["ts"] = self.time(*at);
            let kind = match index {
                0 => "s",
                last if last + 1 == points.len() => {
                    // Connects the flow to the enclosing slice instead of the next one.
                    point["bp"] = json!("e");
                    "f"
                }
                _ => "t",
            };
            self.event(kind, *track, point)?;
        }
        Ok(())
    }

    /// Draws an instant on a track.
    pub(super) fn instant(
        &mut self,
        track: Track,
        at: u64,
        name: &str,
        args: &Value,
    ) -> io::Result<()> {
        let at = self.time(at);
        self.event("i", track, json!({ "name": name, "ts": at, "s": "t", "args": args }))
    }

    /// Draws an instant across all tracks. The viewer selects the instant on `track`.
    pub(super) fn instant_everywhere(
        &mut self,
        track: Track,
        at: u64,
        name: &str,
    ) -> io::Result<()> {
        self.event("i", track, json!({ "name": name, "ts": self.time(at), "s": "g" }))
    }

    /// Writes an element of `traceEvents`.
    fn event(&mut self, kind: &str, track: Track, mut event: Value) -> io::Result<()> {
        event["ph"] = json!(kind);
        (event["pid"], event["tid"]) = (json!(track.process), json!(track.thread));
        self.out.write_all(if self.is_first { b"\n" } else { b",\n" })?;
        self.is_first = false;
        Ok(serde_json::to_writer(&mut self.out, &event)?)
    }

    /// Returns a time in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 ns, a hundred days")]
    fn time(&self, at: u64) -> Value {
        json!((at * self.scale) as f64 / 1000.0)
    }
}
