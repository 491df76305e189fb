//! Facts from the hostile guest, and from the guests that measure it.

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
        /// Number of turns that the first vCPU made.
        turns: u64,
        /// Number of exceptions injected by the hypervisor in response.
        exceptions: u64,
    },
    /// The guest has taken all its timer ticks.
    Ticked {
        /// Number of ticks.
        ticks: u64,
        /// Nanoseconds from the deadline to the handler, for the latest tick.
        latest: u64,
        /// The same, as a mean over all ticks.
        mean: u64,
    },
    /// The number of system registers that the guest can read.
    Readable {
        /// The number.
        registers: usize,
    },
    /// A system register has changed between two readings.
    Changed {
        /// The register, as `S<op0>_<op1>_C<n>_C<m>_<op2>`.
        register: Text,
        /// The first value.
        first: u64,
        /// The current value; `None` if reading it now traps.
        now: Option<u64>,
    },
    /// The number of system registers that never changed. Reported at the end.
    Unchanged {
        /// The number.
        registers: usize,
    },
    /// A delay has ended.
    Delayed {
        /// Requested time in nanoseconds.
        requested: u64,
        /// Actual time in nanoseconds.
        took: u64,
        /// How the guest delayed.
        by: Means,
    },
}

/// How a guest delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// `WFIT`.
    Wfit,
    /// Reading the counter.
    Counter,
}
