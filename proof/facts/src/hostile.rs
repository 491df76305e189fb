//! Facts from the hostile guest, and from guests that measure the hypervisor under attack.

use crate::Text;
use serde::{Deserialize, Serialize};

/// A fact reported by a guest of the hostile image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostileFact {
    /// The attack has ended.
    Attacked {
        /// Name of the attack.
        attack: Text,
        /// Number of iterations that the first vCPU completed.
        turns: u64,
        /// Number of exceptions that the hypervisor injected in response.
        exceptions: u64,
    },
    /// The guest has taken all its timer ticks.
    Ticked {
        /// Number of ticks.
        ticks: u64,
        /// Maximum time in nanoseconds from a tick's deadline to its handler.
        latest: u64,
        /// Mean time in nanoseconds from a tick's deadline to its handler.
        mean: u64,
    },
    /// The number of system registers that the guest can read.
    Readable {
        /// The number.
        registers: usize,
    },
    /// The value of a system register has changed between two reads.
    Changed {
        /// The register, as `S<op0>_<op1>_C<n>_C<m>_<op2>`.
        register: Text,
        /// The first value.
        first: u64,
        /// The register's current value, or `None` if reading the register now traps.
        now: Option<u64>,
    },
    /// The number of system registers that never changed. The guest reports this fact at its end.
    Unchanged {
        /// The number.
        registers: usize,
    },
    /// The guest has used its device.
    Used {
        /// Number of times that it moved the device's memory and used the device.
        turns: u64,
        /// Number of times that the device did not answer as expected.
        wrong: u64,
        /// Number of exceptions that the hypervisor injected.
        exceptions: u64,
    },
    /// The guest has checked that the machine does what it says.
    Checked {
        /// Number of rounds.
        rounds: u64,
        /// Names of the checks that failed in a round, or nothing.
        failed: Text,
    },
    /// A delay has ended.
    Delayed {
        /// Requested time in nanoseconds.
        requested: u64,
        /// Actual time in nanoseconds.
        took: u64,
        /// The method by which the guest delayed.
        by: Means,
    },
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
