//! Node status, according to firmware.

use core::fmt;

/// Permission for an operating system to use a node. A disabled ancestor also disables the node;
/// the ancestor is then the origin of the node's status.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// Usable.
    Enabled,
    /// The node exists, but operating systems must not use it.
    Disabled,
}

impl Status {
    /// Returns `true` if an operating system may use the node.
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
