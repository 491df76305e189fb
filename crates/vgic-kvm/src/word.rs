//! Halves of 64-bit registers.

/// The low half of a value.
pub(crate) const fn low_word(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The half of a 64-bit register that lies at `offset`, where the register begins at `register`.
pub(crate) const fn half(value: u64, register: u32, offset: u32) -> u32 {
    if offset == register { low_word(value) } else { low_word(value >> 32) }
}

/// The register with that half replaced.
pub(crate) const fn with_half(value: u64, register: u32, offset: u32, word: u32) -> u64 {
    if offset == register {
        value & !0xffff_ffff | word as u64
    } else {
        value & 0xffff_ffff | (word as u64) << 32
    }
}
