//! Progress of work that is done in pieces.

/// Progress of the work that the guest asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "what is unfinished goes on when the caller comes again"]
pub enum Progress {
    /// Nothing is left to do.
    Done,
    /// More is to do than one access may take.
    Unfinished,
}

impl Progress {
    pub(crate) const fn done(is_done: bool) -> Self {
        if is_done { Self::Done } else { Self::Unfinished }
    }
}
