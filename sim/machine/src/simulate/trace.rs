//! The events of a simulation.

use msi_types::Cpu;
use std::fmt;

/// Something that happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TraceEvent {
    /// A device sent a message.
    Sent {
        /// The device, by its place in [`Report::devices`](crate::Report::devices).
        device: usize,
        /// The device's vector.
        vector: usize,
    },
    /// A CPU took an interrupt, handled and ended it.
    Took {
        /// The CPU.
        cpu: Cpu,
    },
    /// A CPU found nothing to do and sleeps.
    Slept {
        /// The CPU.
        cpu: Cpu,
    },
    /// A CPU was kicked.
    Woke {
        /// The CPU.
        cpu: Cpu,
    },
    /// An affinity change completed.
    Moved {
        /// The device.
        device: usize,
        /// The device's vector.
        vector: usize,
        /// The new target.
        to: Cpu,
    },
    /// A CPU went off line and came back.
    Replugged {
        /// The CPU.
        cpu: Cpu,
    },
    /// The machine suspended to RAM and resumed.
    Suspended,
    /// A device was removed and added again.
    Readded {
        /// The device.
        device: usize,
    },
    /// The interrupt controller's model was saved, and restored from the bytes of what was saved:
    /// mostly into a fresh model, which took its place.
    Migrated,
}

/// One line for each event, which names devices, vectors and CPUs by their numbers.
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
            Self::Replugged { cpu } => write!(f, "CPU{cpu} was off line"),
            Self::Suspended => f.write_str("the machine suspends and resumes"),
            Self::Readded { device } => write!(f, "device {device} was removed"),
            Self::Migrated => f.write_str("the interrupt controller migrates"),
        }
    }
}
