//! Interrupt groups (IHI 0069 §4.6), and the security views that decide which groups software can
//! access.

/// The group that an interrupt belongs to (IHI 0069 §4.6). The group decides which CPU interface
/// registers acknowledge and end the interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Group {
    /// Group 0.
    Zero,
    /// Group 1, or Non-secure Group 1 if two security states exist.
    One,
    /// Secure Group 1, which only exists with two security states.
    SecureOne,
}

/// Number of security states of the system, and the state in which this software runs. The view
/// decides the layout of `GICD_CTLR`, the meaning of priorities, and whether groups can be
/// configured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SecurityView {
    /// One security state (`GICD_CTLR.DS` = 1).
    Single,
    /// Two security states; this software is Secure.
    Secure,
    /// Two security states; this software is Non-secure, e.g. a kernel on top of EL3 firmware.
    NonSecure,
}

impl SecurityView {
    /// Returns the group whose interrupts software with this view receives as IRQs.
    pub const fn own_group(self) -> Group {
        match self {
            Self::Single | Self::NonSecure => Group::One,
            Self::Secure => Group::SecureOne,
        }
    }
}
