//! Records what happens to each message, from the device's write to the end of its interrupt.
//!
//! The recorder observes the interfaces through which devices, the model and CPUs are connected. It
//! adds facts that only the machine knows: the vector and the number of a message that passes an
//! interface, and the messages that a handler run found.

use doorbell_hardware::lock::lock;
use doorbell_hardware::pci::Signaled;
use msi_types::Cpu;
use msi_types::trace::{Event, Observer};
use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Instant;

thread_local! {
    /// Message that this thread is sending.
    static SENDING: Cell<Option<Subject>> = const { Cell::new(None) };
}

/// Unit of a trace's times.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TraceTime {
    /// Nanoseconds since the recorder was created.
    Nanoseconds,
    /// Number of earlier records, which is the same in every simulation with the same seed.
    Steps,
}

/// Vector of a device, or one of the vector's messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Subject {
    /// Index of the device in [`Trace::devices`].
    pub device: u32,
    /// The device's vector, as the device numbers it.
    pub vector: u16,
    /// Number of the vector's message, counted from 1; 0 for the vector itself.
    pub message: u64,
}

/// Record in a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Time, in units of [`Trace::time`].
    pub at: u64,
    /// Message that the recording thread was sending, or else the message or vector concerned;
    /// `None` if unknown.
    pub subject: Option<Subject>,
    /// What happened.
    pub what: Occurrence,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Occurrence {
    /// An event at an interface between devices, model and CPUs.
    Event(Event),
    /// A device starts to send the message.
    Sends,
    /// The device's attempt to send the message has ended.
    Answered(Signaled),
    /// The vector's handler starts.
    Handles {
        /// The CPU.
        cpu: Cpu,
        /// Number of messages that no earlier handler run saw. The record's subject is the last of
        /// these messages. The number is 0 if an earlier run already saw the message that caused
        /// this interrupt.
        messages: u64,
    },
    /// A CPU has nothing to do and goes to sleep.
    Slept {
        /// The CPU.
        cpu: Cpu,
    },
    /// A CPU wakes up.
    Woke {
        /// The CPU.
        cpu: Cpu,
    },
    /// A CPU went offline and came back online.
    Replugged {
        /// The CPU.
        cpu: Cpu,
    },
    /// The device was removed and added again.
    Readded,
    /// The machine suspended to RAM and resumed.
    Suspended,
    /// The interrupt controller model was saved and restored.
    Migrated,
}

/// Records of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trace {
    /// Unit of the times.
    pub time: TraceTime,
    /// Names of the devices that had vectors, as in [`DeviceReport::id`](crate::DeviceReport).
    pub devices: Vec<String>,
    /// Records, in the order of their times. No two records have the same time.
    pub records: Vec<Record>,
    /// Number of records that were left out because the recorder was full.
    pub left_out: u64,
}

/// Recorder of a run's events. A run is recorded if
/// [`BuildOptions::recorder`](crate::BuildOptions::recorder) contains a recorder.
pub struct Recorder {
    time: TraceTime,
    start: Instant,
    limit: u64,
    recording: Mutex<Recording>,
}

/// Contents of a recorder.
#[derive(Default)]
struct Recording {
    devices: Vec<String>,
    records: Vec<Record>,
    /// Number of records so far, including those that were left out.
    count: u64,
    /// Set once the run has ended. Later occurrences, such as those while the drivers are dropped,
    /// are not recorded.
    has_ended: bool,
}

impl Recorder {
    /// Creates a recorder that keeps the first `limit` records.
    pub fn new(time: TraceTime, limit: u64) -> Arc<Self> {
        Arc::new(Self { time, start: Instant::now(), limit, recording: Mutex::default() })
    }

    /// Takes the records out of the recorder. They still count toward the limit.
    pub fn take(&self) -> Trace {
        let mut recording = lock(&self.recording);
        Trace {
            time: self.time,
            devices: recording.devices.clone(),
            records: std::mem::take(&mut recording.records),
            left_out: recording.count.saturating_sub(self.limit),
        }
    }

    /// Returns the index of the device with this name, and assigns an index to a new name.
    pub(crate) fn device(&self, name: &str) -> u32 {
        let devices = &mut lock(&self.recording).devices;
        let index = devices.iter().position(|known| known == name).unwrap_or_else(|| {
            devices.push(name.to_owned());
            devices.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// Records `what`. The subject is the message that this thread is sending, if any.
    pub(crate) fn record(&self, what: Occurrence) {
        self.record_of(SENDING.get(), what);
    }

    /// Ends the trace.
    pub(crate) fn end(&self) {
        lock(&self.recording).has_ended = true;
    }

    /// Records `what` with this subject.
    pub(crate) fn record_of(&self, subject: Option<Subject>, what: Occurrence) {
        let mut recording = lock(&self.recording);
        if recording.has_ended {
            return;
        }
        let number = recording.count;
        recording.count += 1;
        if number >= self.limit {
            return;
        }
        let at = match self.time {
            TraceTime::Steps => number,
            TraceTime::Nanoseconds => {
                let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                now.max(recording.records.last().map_or(0, |last| last.at + 1))
            }
        };
        recording.records.push(Record { at, subject, what });
    }

    /// Sends a message by calling `send`, and records the answer. Until then, `subject` is the
    /// subject of this thread's events.
    pub(crate) fn sending(
        &self,
        subject: Option<Subject>,
        send: impl FnOnce() -> Signaled,
    ) -> Signaled {
        let before = SENDING.replace(subject);
        let answer = send();
        self.record(Occurrence::Answered(answer));
        SENDING.set(before);
        answer
    }
}

impl Observer for Recorder {
    fn observe(&self, event: Event) {
        self.record(Occurrence::Event(event));
    }
}

msi_types::debug_by!(
    Recorder as "Recorder",
    |it| {time: it.time, limit: it.limit}
);
