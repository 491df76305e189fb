//! Simulation events.

use msi_types::Cpu;
use std::fmt;

/// An event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TraceEvent {
    /// A device sent a message.
    Sent {
        /// Index of the device in [`Report::devices`](crate::Report::devices).
        device: usize,
        /// Index of the device's vector.
        vector: usize,
    },
    /// A CPU took an interrupt, handled it and signaled EOI.
    Took {
        /// The CPU.
        cpu: Cpu,
    },
    /// A CPU had nothing to do and went to sleep.
    Slept {
        /// The CPU.
        cpu: Cpu,
    },
    /// A CPU was woken by a kick.
    Woke {
        /// The CPU.
        cpu: Cpu,
    },
    /// An affinity change completed.
    Moved {
        /// Index of the device.
        device: usize,
        /// Index of the device's vector.
        vector: usize,
        /// The new target.
        to: Cpu,
    },
    /// A CPU went offline and came back online.
    Replugged {
        /// The CPU.
        cpu: Cpu,
    },
    /// The machine suspended to RAM and resumed.
    Suspended,
    /// A device was removed and added again.
    Readded {
        /// Index of the device.
        device: usize,
    },
    /// The interrupt controller model was saved and restored from the saved bytes, usually into a
    /// fresh model that replaced the old one.
    Migrated,
}

/// Formats an event as one line, with devices, vectors and CPUs by number.
impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent { device, vector } => write!(f, "device {device} vector {vector} sends"),
            Self::Took { cpu } => write!(f, "CPU{cpu} takes an interrupt"),
            Self::Slept { cpu } => write!(f, "CPU{cpu} sleeps"),
            Self::Woke { cpu } => write!(f, "CPU{cpu} wakes"),
            Self::Moved { device, vector, to } => {
                write!(f, "device {device} vector {vector} moves to CPU{to}")
            }
            Self::Replugged { cpu } => write!(f, "CPU{cpu} was offline"),
            Self::Suspended => f.write_str("the machine suspends and resumes"),
            Self::Readded { device } => write!(f, "device {device} was removed"),
            Self::Migrated => f.write_str("the interrupt controller migrates"),
        }
    }
}
