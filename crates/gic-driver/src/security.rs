//! Interrupt groups (IHI 0069 §4.6), and the security states that decide who sees which.

/// The group that an interrupt belongs to (IHI 0069 §4.6): which CPU interface registers see it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Group {
    /// Group 0.
    Zero,
    /// Group 1; with two security states: Non-secure Group 1.
    One,
    /// Secure Group 1, where there are two security states.
    SecureOne,
}

/// The security states of the system, and which of them this software is in. It decides the layout
/// of `GICD_CTLR`, what priorities mean, and whether groups can be configured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SecurityView {
    /// One security state (`GICD_CTLR.DS` = 1).
    Single,
    /// Two security states, seen by Secure software.
    Secure,
    /// Two security states, seen by Non-secure software: a kernel over EL3 firmware.
    NonSecure,
}

impl SecurityView {
    /// The group whose interrupts software with this view gets as IRQs.
    pub const fn own_group(self) -> Group {
        match self {
            Self::Single | Self::NonSecure => Group::One,
            Self::Secure => Group::SecureOne,
        }
    }
}
