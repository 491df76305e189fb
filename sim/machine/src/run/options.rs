//! Run options and progress.

use crate::disturbance::Disturbance;

/// The options of a run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Number of messages per vector.
    pub messages: u32,
    /// Seed of all random choices.
    pub seed: u64,
    /// Disturbances of the machine while devices send messages.
    pub disturbances: Vec<Disturbance>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { messages: 1000, seed: 1, disturbances: vec![Disturbance::Moves] }
    }
}

/// Progress of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Number of messages sent so far.
    pub sent: u64,
    /// Number of messages to be sent.
    pub total: u64,
}
