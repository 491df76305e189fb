//! Facts from the hostile guest, and from guests that measure the hypervisor under attack.
#![expect(missing_docs, reason = "a fact's documentation lists its fields")]

use crate::Text;
use serde::{Deserialize, Serialize};

/// A fact reported by a guest of the hostile image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostileFact {
    /// The attack has ended.
    ///
    /// - `attack`: Name of the attack.
    /// - `turns`: Number of iterations that the first vCPU completed.
    /// - `exceptions`: Number of exceptions that the hypervisor injected in response.
    Attacked { attack: Text, turns: u64, exceptions: u64 },
    /// The guest has taken all its timer ticks.
    ///
    /// - `ticks`: Number of ticks.
    /// - `latest`: Maximum time in nanoseconds from a tick's deadline to its handler.
    /// - `mean`: Mean time in nanoseconds from a tick's deadline to its handler.
    Ticked { ticks: u64, latest: u64, mean: u64 },
    /// The number of system registers that the guest can read.
    Readable { registers: usize },
    /// The value of a system register has changed between two reads.
    ///
    /// - `register`: The register, as `S<op0>_<op1>_C<n>_C<m>_<op2>`.
    /// - `first`: The first value.
    /// - `now`: The register's current value, or `None` if reading the register now traps.
    Changed { register: Text, first: u64, now: Option<u64> },
    /// The number of system registers that never changed. The guest reports this fact at its end.
    Unchanged { registers: usize },
    /// The guest has used its device.
    ///
    /// - `turns`: Number of times that it moved the device's memory and used the device.
    /// - `wrong`: Number of times that the device did not answer as expected.
    /// - `exceptions`: Number of exceptions that the hypervisor injected.
    Used { turns: u64, wrong: u64, exceptions: u64 },
    /// The guest has checked that the machine does what it says.
    ///
    /// - `rounds`: Number of rounds.
    /// - `failed`: Names of the checks that failed in a round, or nothing.
    Checked { rounds: u64, failed: Text },
    /// A delay has ended.
    ///
    /// - `requested`: Requested time in nanoseconds.
    /// - `took`: Actual time in nanoseconds.
    /// - `by`: The method by which the guest delayed.
    Delayed { requested: u64, took: u64, by: Means },
}

/// The method by which a guest delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// `WFIT`.
    Wfit,
    /// Reading the counter.
    Counter,
}
