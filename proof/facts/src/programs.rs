//! Facts from programs that report only a few.
#![expect(missing_docs, reason = "a fact's documentation lists its fields")]

use crate::Text;
use serde::{Deserialize, Serialize};

/// A fact of the guest that measures its own operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MicrobenchFact {
    /// The measurement of an operation begins.
    Measures { operation: Text },
    /// An operation was measured.
    ///
    /// - `operation`: The operation.
    /// - `nanoseconds`: Mean time of one iteration in nanoseconds.
    Cost { operation: Text, nanoseconds: u64 },
    /// Number of exits that the hypervisor counted during all repetitions of an operation.
    ///
    /// - `operation`: The operation.
    /// - `exits`: Number of exits.
    Exits { operation: Text, exits: u64 },
    /// A sleeping CPU was woken.
    ///
    /// - `times`: Number of times.
    Woken { times: u64 },
}

/// A fact of one of the smallest kernels, each of which reports one fact before it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MinimalFact {
    /// The timer ticked.
    ///
    /// - `times`: Number of ticks.
    Ticked { times: u32 },
    /// A device's first message arrived.
    ///
    /// - `vector`: The message's vector.
    Received { vector: u32 },
    /// A device's two vectors were moved between two CPUs while the device sent messages.
    ///
    /// - `taken`: Number of interrupts of each vector on each CPU.
    Moved { taken: [[u32; 2]; 2] },
}

/// A fact of KVM's judge, in addition to the outcomes of its checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JudgeFact {
    /// A row of the state that KVM saved.
    Snapshot { row: Text },
    /// A piece of a snapshot that was saved by a procedure, in the form that `doorbell snapshot`
    /// reads.
    ///
    /// - `procedure`: The procedure's name.
    /// - `json`: The piece.
    Json { procedure: Text, json: Text },
}

/// A fact of the guest whose device accesses memory outside the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrayDmaFact {
    /// The device wrote to the guest's memory.
    ///
    /// - `vendor`: The vendor ID that the device wrote.
    Inside { vendor: u16 },
    /// The outcome of a device command that followed accesses to memory outside the guest.
    ///
    /// - `completes`: Set if the device completed the command.
    AfterOutside { completes: bool },
}

/// A fact of a guest whose instructions are logged while it takes interrupts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchedFact {
    /// The guest waits for a line of input. After reading that line, the guest takes the
    /// interrupts.
    ///
    /// - `handler`: Address of the interrupt handler, in hexadecimal digits.
    Ready { handler: Text },
    /// The guest has taken the interrupts.
    Done,
}
