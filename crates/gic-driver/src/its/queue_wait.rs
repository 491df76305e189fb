//! Bounded waits for the command queue: a task waits while the ITS makes progress, other contexts
//! for one bound in all.

use crate::platform::{GicPlatform, Wait};

/// The context of a caller that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Context {
    /// In a task: as long as the ITS makes progress, because another caller's long batch is no
    /// fault. If there is none for the platform's bound, the ITS is unresponsive.
    Task,
    /// In any context, a handler too: for the platform's bound in all. That may be too short for
    /// what is queued, so that nothing follows for others.
    Any,
}

/// One caller's wait, over all chunks of its commands.
#[derive(Debug)]
pub(crate) struct QueueWait {
    context: Context,
    turn: u32,
    /// Commands consumed at the last poll.
    last_read: Option<u64>,
    wait: Wait,
}

impl QueueWait {
    pub(crate) fn new(context: Context) -> Self {
        Self { context, turn: 0, last_read: None, wait: Wait::Again }
    }

    /// Decides after a poll at which the caller's commands were not done. `read` is the number of
    /// commands consumed. `unresponsive_at` is the ring's: the value of `read` at which a task
    /// timed out.
    pub(crate) fn judge(&mut self, read: u64, unresponsive_at: &mut Option<u64>) -> Wait {
        if *unresponsive_at == Some(read) {
            return Wait::GiveUp;
        }
        if self.context == Context::Task && self.last_read.replace(read) != Some(read) {
            (self.turn, self.wait) = (0, Wait::Again);
        }
        if self.wait == Wait::Again {
            return Wait::Again;
        }
        if self.context == Context::Task {
            *unresponsive_at = Some(read);
        }
        Wait::GiveUp
    }

    pub(crate) fn pause<P: GicPlatform>(&mut self, platform: &P) {
        self.wait = platform.wait(self.turn);
        self.turn = self.turn.saturating_add(1);
    }
}
