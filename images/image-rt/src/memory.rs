//! The image's addresses in memory.

use core::ops::Range;

unsafe extern "C" {
    static image_begin: u8;
    static image_end: u8;
}

/// All that the image occupies, its stacks included.
pub fn image() -> Range<usize> {
    (&raw const image_begin).addr()..(&raw const image_end).addr()
}
