//! Progress of work that is done in bounded pieces.

/// Progress of work that the guest requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "unfinished work continues only when the caller calls again"]
pub enum Progress {
    /// The work is complete.
    Done,
    /// Work remains, because it exceeds the budget of one access.
    Unfinished,
}

impl Progress {
    pub(crate) const fn done(is_done: bool) -> Self {
        if is_done { Self::Done } else { Self::Unfinished }
    }
}
