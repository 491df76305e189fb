//! Facts from a Linux guest's first process, which is a shell script.

use crate::Text;
use serde::{Deserialize, Serialize};

/// A fact of a Linux guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinuxFact {
    /// The CPUs that are online.
    Cpus {
        /// Their number.
        online: usize,
        /// Set if all CPUs except the first were offline before.
        again: bool,
    },
    /// The guest waits for a line of input.
    Listens {},
    /// The line of input that the guest read.
    Heard {
        /// The line.
        text: Text,
        /// Set if this is the second line that the guest read.
        again: bool,
    },
    /// Exit status of a program that accessed a device that doesn't exist.
    AbsentDevice {
        /// The status, as a shell reports it.
        status: u32,
    },
    /// A line of the kernel's log about an MSI controller.
    Controller {
        /// The line.
        line: Text,
    },
    /// A line of the kernel's log about a window for PCI or the address of a device's memory.
    PciMemory {
        /// The line.
        line: Text,
    },
    /// A line of `/proc/interrupts`.
    Row {
        /// The line.
        line: Text,
    },
    /// A failure that the guest detected.
    Complaint {
        /// The failure, as free text.
        line: Text,
    },
    /// Disk reads.
    Reads {
        /// Reads that programs requested.
        requested: u64,
        /// Reads that the kernel counts as completed.
        completed: u64,
    },
    /// Pings.
    Pings {
        /// Pings that were sent.
        sent: u64,
        /// Answers that arrived.
        answered: u64,
    },
    /// Changes of a vector's affinity that took effect.
    Affinities {
        /// Number of moves.
        moved: u64,
    },
    /// A message that the kernel's driver sent again, because a CPU went offline.
    Resent {
        /// The interrupt, as `/proc/interrupts` numbers it.
        interrupt: u32,
    },
    /// The guest's program replaces the kernel, or has suspended it. The kernel's counts lack
    /// interrupts that were taken before.
    Replaces {
        /// Number of messages that this kernel's driver sent again, because a CPU went offline.
        resent: u64,
    },
    /// An interrupt that the guest's program made pending.
    Retriggered {
        /// The interrupt, as `/proc/interrupts` numbers it.
        interrupt: u32,
        /// Number of interrupts that were then taken.
        taken: u64,
    },
    /// Hotplug cycles under load. In each cycle, all CPUs except the first go offline and come back
    /// online.
    Hotplugs {
        /// Number of cycles.
        turns: u64,
    },
}
