//! Checks the codecs of table entries with every pair of bits.

/// A field of a 64-bit entry.
#[derive(Debug)]
pub struct EntryField<T> {
    /// Highest bit.
    pub high: u32,
    /// Lowest bit.
    pub low: u32,
    /// Reads the field.
    pub read: fn(T) -> u64,
    /// Replaces the field.
    pub write: fn(T, u64) -> T,
}

/// Checks that each bit is read by its own field only, and that writing a field changes that
/// field's bits only.
///
/// # Panics
/// Panics if a field reads or writes bits outside its range.
pub fn check_entry<T: Copy>(from: fn(u64) -> T, into: fn(T) -> u64, fields: &[EntryField<T>]) {
    for bit in 0..64 {
        for other in 0..64 {
            let raw = 1 << bit | 1 << other;
            for field in fields {
                let width = field.high - field.low + 1;
                let mask = u64::MAX >> (64 - width);
                let value = raw >> field.low & mask;
                assert_eq!((field.read)(from(raw)), value, "bits {bit} and {other}");
                let rewritten = into((field.write)(from(raw), !value & mask));
                assert_eq!(rewritten, raw ^ mask << field.low, "{}:{}", field.high, field.low);
            }
        }
    }
}
