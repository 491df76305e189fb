//! Facts from a Linux guest's first process, which is a shell script.
#![expect(missing_docs, reason = "a fact's documentation lists its fields")]

use crate::Text;
use serde::{Deserialize, Serialize};

/// A fact of a Linux guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinuxFact {
    /// The CPUs that are online.
    ///
    /// - `online`: Their number.
    /// - `again`: Set if all CPUs except the first were offline before.
    Cpus { online: usize, again: bool },
    /// The guest waits for a line of input.
    Listens {},
    /// The line of input that the guest read.
    ///
    /// - `text`: The line.
    /// - `again`: Set if this is the second line that the guest read.
    Heard { text: Text, again: bool },
    /// Exit status of a program that accessed a device that doesn't exist.
    ///
    /// - `status`: The status, as a shell reports it.
    AbsentDevice { status: u32 },
    /// A line of the kernel's log about an MSI controller.
    Controller { line: Text },
    /// A line of the kernel's log about a window for PCI or the address of a device's memory.
    PciMemory { line: Text },
    /// A line of `/proc/interrupts`.
    Row { line: Text },
    /// A failure that the guest detected.
    ///
    /// - `line`: The failure, as free text.
    Complaint { line: Text },
    /// Disk reads.
    ///
    /// - `requested`: Reads that programs requested.
    /// - `completed`: Reads that the kernel counts as completed.
    Reads { requested: u64, completed: u64 },
    /// Pings.
    ///
    /// - `sent`: Pings that were sent.
    /// - `answered`: Answers that arrived.
    Pings { sent: u64, answered: u64 },
    /// Changes of a vector's affinity that took effect.
    ///
    /// - `moved`: Number of moves.
    Affinities { moved: u64 },
    /// A message that the kernel's driver sent again, because a CPU went offline.
    ///
    /// - `interrupt`: The interrupt, as `/proc/interrupts` numbers it.
    Resent { interrupt: u32 },
    /// The guest's program replaces the kernel, or has suspended it. The kernel's counts lack
    /// interrupts that were taken before.
    ///
    /// - `resent`: Number of messages that this kernel's driver sent again, because a CPU went
    ///   offline.
    Replaces { resent: u64 },
    /// An interrupt that the guest's program made pending.
    ///
    /// - `interrupt`: The interrupt, as `/proc/interrupts` numbers it.
    /// - `taken`: Number of interrupts that were then taken.
    Retriggered { interrupt: u32, taken: u64 },
    /// Hotplug cycles under load. In each cycle, all CPUs except the first go offline and come back
    /// online.
    ///
    /// - `turns`: Number of cycles.
    Hotplugs { turns: u64 },
}
