//! The `status` of a node, as firmware states it.

use core::fmt;

/// Permission for an operating system to use a node. A disabled ancestor disables the node; the
/// fact's origin is the ancestor then.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// Usable.
    Enabled,
    /// There, but not to be used.
    Disabled,
}

impl Status {
    /// Is it usable?
    pub const fn is_enabled(self) -> bool {
        matches!(self, Self::Enabled)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        })
    }
}
