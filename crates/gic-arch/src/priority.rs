//! Interrupt priorities (IHI 0069 §4.8).

/// A priority: 0 is the highest, 255 the lowest. Implementations support the upper 4 to 8 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Priority(u8);

impl Priority {
    /// The highest priority.
    pub const HIGHEST: Self = Self(0);
    /// Running priority of an idle PE. If this value is used as a mask, no interrupt is masked
    /// except interrupts with priority 255.
    pub const IDLE: Self = Self(0xff);

    /// Creates the priority with this value.
    pub const fn new(value: u8) -> Self {
        Self(value)
    }

    /// Returns the hardware's priority for a value written through the Non-secure view.
    pub const fn from_non_secure_view(view: u8) -> Self {
        Self((view >> 1) | 0x80)
    }

    /// Returns the value.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Returns `true` if this priority is higher than `other`, so that its interrupt is handled
    /// first.
    pub const fn is_more_urgent_than(self, other: Self) -> bool {
        self.0 < other.0
    }

    /// Returns the value with only the upper `bits` bits, as an implementation stores it.
    pub const fn truncated(self, bits: u32) -> Self {
        if bits >= 8 { self } else { Self(self.0 & !(0xff >> bits)) }
    }

    /// Returns the Non-secure view of a priority in systems with two security states: Non-secure
    /// priorities (0x80–0xff) are shifted left by one bit. Secure priorities read as 0 (IHI 0069
    /// §4.8.1).
    pub const fn non_secure_view(self) -> Self {
        if self.0 < 0x80 { Self(0) } else { Self(self.0 << 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_secure_writes_read_back_without_bit_0() {
        for view in 0..=u8::MAX {
            assert_eq!(Priority::from_non_secure_view(view).non_secure_view().get(), view & 0xfe);
        }
    }

    #[test]
    fn secure_priorities_read_as_zero_to_non_secure() {
        for hardware in 0..0x80 {
            assert_eq!(Priority::new(hardware).non_secure_view().get(), 0);
        }
    }

    #[test]
    fn truncation_keeps_the_upper_bits() {
        assert_eq!(Priority::new(0xff).truncated(5).get(), 0xf8);
        assert_eq!(Priority::new(0xff).truncated(8).get(), 0xff);
        assert_eq!(Priority::new(0xff).truncated(4).get(), 0xf0);
    }
}
