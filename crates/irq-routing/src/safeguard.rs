//! The steps of the algorithm that look removable and are not. Each is asked for by name where it stands, so that the
//! model check can leave it out and must then find what goes wrong.

/// A step that the proof needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Safeguard {
    /// A reader looks at the version again after it has read a copy.
    CompareVersion,
    /// A change goes to the copy that no new reader looks at.
    WriteAside,
    /// Versions count on: what changed twice is not what it was.
    Sequence,
    /// The routes of the first table are there before the identity mapping ends.
    RoutesFirst,
    /// A reader that found neither a route nor the identity mapping reads the route again.
    LookAgain,
    /// A message that finds its vector closed becomes pending only if it still is.
    HoldByExchange,
    /// A closer waits for the senders that are inside.
    AwaitSenders,
    /// The last sender of a vector that is being closed wakes the thread that closes it.
    WakeCloser,
}

impl Safeguard {
    /// Is the step in place? Always, outside the model check.
    #[inline]
    pub(crate) fn stands(self) -> bool {
        !crate::atomic::is_left_out(self)
    }
}
