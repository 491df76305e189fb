//! Access to the halves of 64-bit registers.

/// Returns the low half of a value.
pub(crate) const fn low_word(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Returns the half at `offset` of a 64-bit register that starts at `register`.
pub(crate) const fn half(value: u64, register: u32, offset: u32) -> u32 {
    if offset == register { low_word(value) } else { low_word(value >> 32) }
}

/// Returns the register's value with the half at `offset` replaced.
pub(crate) const fn with_half(value: u64, register: u32, offset: u32, word: u32) -> u64 {
    if offset == register {
        value & !0xffff_ffff | word as u64
    } else {
        value & 0xffff_ffff | (word as u64) << 32
    }
}
