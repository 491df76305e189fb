//! The image's location in memory.

use core::ops::Range;

unsafe extern "C" {
    static image_begin: u8;
    static image_end: u8;
}

/// Returns the memory that the image occupies, including its stacks.
pub fn image() -> Range<usize> {
    (&raw const image_begin).addr()..(&raw const image_end).addr()
}
