//! Sorting in few instructions.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;

/// Sorts a vector in ascending order, without allocation.
///
/// A heap sort takes a few hundred bytes of a kernel. `core`'s sorts take 8 KB, and pay off only
/// for vectors that are much longer than ours.
pub(crate) fn sorted<T: Ord>(items: Vec<T>) -> Vec<T> {
    BinaryHeap::from(items).into_sorted_vec()
}
