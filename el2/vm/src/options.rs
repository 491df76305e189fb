//! Options for a run.

/// Options of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Milliseconds between two moves of the guests. By default, guests are not moved.
    pub moves: Option<u64>,
    /// Count exits by reason, and print the counts at the end.
    pub stats: bool,
    /// Inject devices' messages directly (GICv4), if the machine and the guests allow it.
    pub direct: bool,
}
