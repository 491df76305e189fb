//! Guest accesses to the table and the pending bits. Valid accesses are aligned and have 4 or 8
//! bytes; invalid reads return all ones.

use core::ops::Range;
use msi_types::pci::MSIX_MAX_VECTORS;
use msi_types::pci::msix::ENTRY_SIZE;

/// Returns the words that an access covers. Returns `None` unless the access is aligned, has 4 or 8
/// bytes, and starts below the end of the largest table.
pub(super) fn words_at(offset: u64, len: usize) -> Option<Range<usize>> {
    let aligned = matches!(len, 4 | 8) && offset.is_multiple_of(len as u64);
    let end = u64::from(MSIX_MAX_VECTORS) * ENTRY_SIZE;
    let start = usize::try_from(offset / 4).ok().filter(|_| aligned && offset < end)?;
    Some(start..start + len / 4)
}

/// Fills `bytes` with the words at `offset`; words that do not exist read as all ones.
pub(super) fn read_words(offset: u64, bytes: &mut [u8], word: impl Fn(usize) -> Option<u32>) {
    bytes.fill(0xff);
    let words = words_at(offset, bytes.len()).into_iter().flatten();
    for (target, word) in bytes.chunks_exact_mut(4).zip(words.map(word)) {
        target.copy_from_slice(&word.unwrap_or(u32::MAX).to_le_bytes());
    }
}
