//! Progress of work that is done in bounded pieces.

/// Progress of work that the guest requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "unfinished work continues only when the caller calls again"]
pub enum Progress {
    /// There is nothing left to do.
    Done,
    /// There is more work left than one access may do.
    Unfinished,
}

impl Progress {
    pub(crate) const fn done(is_done: bool) -> Self {
        if is_done { Self::Done } else { Self::Unfinished }
    }
}
