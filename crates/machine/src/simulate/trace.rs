//! The events of a simulation.

use msi_types::Cpu;

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
    /// A device was removed and added again.
    Readded {
        /// The device.
        device: usize,
    },
    /// The interrupt controller's model was saved, and restored from the bytes of what was saved:
    /// mostly into a fresh model, which took its place.
    Migrated,
}
