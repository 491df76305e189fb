//! Interrupt groups.

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
