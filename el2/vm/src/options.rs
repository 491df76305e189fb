//! Options for a run.

/// Options of a run: the records that it makes, and when it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Milliseconds between two moves of the guests. By default, guests are not moved.
    pub moves: Option<u64>,
    /// Count exits by reason, and print the counts at the end.
    pub stats: bool,
    /// Print each exit when it happens.
    pub exits: bool,
    /// Seconds after which the machine ends, with its reports. By default, it ends with its guests.
    pub limit: Option<u64>,
    /// Inject devices' messages directly (GICv4), if the machine and the guests allow it.
    pub direct: bool,
}
