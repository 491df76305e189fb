//! Events of the hypervisor's trace.

use serde::{Deserialize, Serialize};

/// An event on an interrupt's path, as defined by `msi_types::trace::Event`. The INTIDs, CPUs and
/// DeviceIDs in a guest's events are the guest's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceEvent {
    /// A message reaches a controller.
    Translated(TracedMessage),
    /// The message's interrupt is pending.
    Pending(TracedMessage),
    /// No controller makes an interrupt pending because of the message.
    Dropped(TracedMessage),
    /// A CPU is kicked.
    Kicked {
        /// The CPU.
        cpu: u32,
    },
    /// A list register presents an interrupt to a CPU.
    Listed(TracedInterrupt),
    /// A CPU has acknowledged an interrupt.
    Taken(TracedInterrupt),
    /// A CPU has signaled the end of an interrupt.
    Ended(TracedInterrupt),
    /// Software passes a command to an ITS.
    Command {
        /// Address of the ITS's registers.
        its: u64,
        /// The command, encoded as in the queue.
        words: [u64; 4],
    },
}

/// A message of a traced event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TracedMessage {
    /// DeviceID of the sender.
    pub device: u32,
    /// Address that the device writes to.
    pub address: u64,
    /// Value that the device writes.
    pub data: u32,
}

/// An interrupt of a traced event, on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TracedInterrupt {
    /// The CPU.
    pub cpu: u32,
    /// The interrupt.
    pub intid: u32,
}
