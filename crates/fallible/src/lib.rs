//! Fallible allocation: running out of memory is an error that the caller handles, not an abort.
//!
//! On stable Rust, containers can only allocate fallibly through `try_reserve`. Based on
//! `Vec::try_reserve`, the crate provides collected vectors, boxes, shared ownership, page tables,
//! and a map whose insertions use memory reserved in advance. For an [`Arc`], the best we can do is
//! check in advance that the heap has enough memory. The crate can be removed once `Arc::try_new`
//! and similar functions (the feature `allocator_api`) are stable.
//!
//! # Example
//!
//! ```
//! use doorbell_fallible::{SortedMap, try_collect};
//!
//! let squares = try_collect((1..=3).map(|number| number * number))?;
//! assert_eq!(squares, [1, 4, 9]);
//!
//! let mut names = SortedMap::new();
//! names.reserve()?;
//! names.insert(33, "uart");
//! assert_eq!(names.get(33), Some(&"uart"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]

extern crate alloc;
#[cfg(all(test, shuttle))]
extern crate std;

mod heap;
#[cfg(all(test, shuttle))]
mod interleavings;
mod shared;
mod sync;

pub use heap::{
    OnceBox, OutOfMemory, try_boxed_slice, try_collect_exact, try_collect_results, try_page,
    try_page_table,
};
pub use shared::{Block, Shared};

use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Collects an iterator into a vector.
///
/// # Errors
/// Fails if the allocator has no memory for the items. Items that were already taken from the
/// iterator are dropped.
pub fn try_collect<T>(items: impl Iterator<Item = T>) -> Result<Vec<T>, TryReserveError> {
    let mut collected = Vec::new();
    collected.try_reserve_exact(items.size_hint().0)?;
    for item in items {
        collected.try_reserve(1)?;
        collected.push(item);
    }
    Ok(collected)
}

/// Appends an item to a vector.
///
/// # Errors
/// Fails if the allocator has no memory for the item, which is dropped. The vector is unchanged.
pub fn try_push<T>(items: &mut Vec<T>, item: T) -> Result<(), TryReserveError> {
    items.try_reserve(1)?;
    items.push(item);
    Ok(())
}

/// Boxes a value.
///
/// The value is boxed as a one-element array, because a vector can't be converted into a plain
/// `Box<T>`.
///
/// # Errors
/// Fails if the allocator has no memory for the value, which is dropped.
pub fn try_box<T>(value: T) -> Result<Box<[T; 1]>, TryReserveError> {
    let mut only = Vec::new();
    only.try_reserve_exact(1)?;
    only.push(value);
    let Ok(boxed) = only.into_boxed_slice().try_into() else {
        unreachable!("one value was pushed")
    };
    Ok(boxed)
}

/// Boxes an array whose items are created in order by `make`. The array is never placed on the
/// stack.
///
/// # Errors
/// Fails without calling `make` if the allocator has no memory for the array.
pub fn try_box_array<T, const N: usize>(
    make: impl FnMut() -> T,
) -> Result<Box<[T; N]>, TryReserveError> {
    let mut items = Vec::new();
    items.try_reserve_exact(N)?;
    items.resize_with(N, make);
    let Ok(boxed) = items.into_boxed_slice().try_into() else { unreachable!("N items were made") };
    Ok(boxed)
}

/// Moves a value into an [`Arc`].
///
/// Stable Rust has no fallible `Arc` constructor. Therefore, this function first allocates and
/// frees the same amount of memory, and then calls `Arc::new`. If another thread allocates that
/// memory in between, the program still aborts, as it would with `Arc::new` alone.
///
/// # Errors
/// Fails if the allocator has no memory for the value, which is dropped.
pub fn try_arc<T>(value: T) -> Result<Arc<T>, TryReserveError> {
    /// A type with the same size and alignment as an `Arc` allocation.
    #[repr(C)]
    struct Counted<T>([usize; 2], T);

    Vec::<Counted<T>>::new().try_reserve_exact(1)?;
    Ok(Arc::new(value))
}

/// A map backed by a sorted vector. Insertion and removal move all entries with greater keys, so it
/// works best when keys rarely change.
#[derive(Debug)]
pub struct SortedMap<K, V>(Vec<(K, V)>);

impl<K: Ord + Copy, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Copy, V> SortedMap<K, V> {
    /// Creates an empty map. Does not allocate.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Reserves memory for one more entry, so that the next [`insert`](Self::insert) does not
    /// allocate.
    ///
    /// # Errors
    /// Fails if the allocator has no memory for the entry. The map is unchanged.
    pub fn reserve(&mut self) -> Result<(), TryReserveError> {
        self.0.try_reserve(1)
    }

    /// Reserves memory for `more` entries, so that this many insertions do not allocate.
    ///
    /// # Errors
    /// Fails if the allocator has no memory for the entries. The map is unchanged.
    pub fn reserve_many(&mut self, more: usize) -> Result<(), TryReserveError> {
        self.0.try_reserve(more)
    }

    /// Inserts or replaces an entry. Memory for a new entry should have been
    /// [reserved](Self::reserve); otherwise this allocates, and aborts if the heap is exhausted.
    pub fn insert(&mut self, key: K, value: V) {
        match self.find(key) {
            Ok(index) => self.0[index].1 = value,
            Err(index) => self.0.insert(index, (key, value)),
        }
    }

    /// Removes an entry, and returns its value.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let index = self.find(key).ok()?;
        Some(self.0.remove(index).1)
    }

    /// Removes all entries for which `keep` returns `false`.
    pub fn retain(&mut self, mut keep: impl FnMut(K, &V) -> bool) {
        self.0.retain(|(key, value)| keep(*key, value));
    }

    /// Returns a mutable reference to the value of a key.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let index = self.find(key).ok()?;
        self.0.get_mut(index).map(|(_, value)| value)
    }

    /// Iterates over the entries with keys at or above `key`, in ascending key order.
    pub fn iter_mut_from(&mut self, key: K) -> impl Iterator<Item = (K, &mut V)> {
        let first = self.0.partition_point(|(other, _)| *other < key);
        self.0.iter_mut().skip(first).map(|(key, value)| (*key, value))
    }

    /// Returns the value of a key.
    pub fn get(&self, key: K) -> Option<&V> {
        self.0.get(self.find(key).ok()?).map(|(_, value)| value)
    }

    /// Returns `true` if the map contains this key.
    pub fn contains(&self, key: K) -> bool {
        self.find(key).is_ok()
    }

    /// Returns the number of entries.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns `true` if the map has no entries.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the entries in ascending key order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (K, &V)> + Clone {
        self.0.iter().map(|(key, value)| (*key, value))
    }

    /// Returns the entry with the greatest key that is at most `key`.
    pub fn last_up_to(&self, key: K) -> Option<(K, &V)> {
        let end = self.0.partition_point(|(other, _)| *other <= key);
        self.0.get(end.checked_sub(1)?).map(|(key, value)| (*key, value))
    }

    /// Iterates over the values in ascending key order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> + Clone {
        self.0.iter().map(|(_, value)| value)
    }

    /// Consumes the map and returns its values in ascending key order.
    pub fn into_values(self) -> impl Iterator<Item = V> {
        self.0.into_iter().map(|(_, value)| value)
    }

    fn find(&self, key: K) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(key, _)| *key)
    }
}

impl<K, V> IntoIterator for SortedMap<K, V> {
    type Item = (K, V);
    type IntoIter = alloc::vec::IntoIter<(K, V)>;

    /// Consumes the map and returns its entries in ascending key order.
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sorted_map_agrees_with_a_tree(
            steps in prop::collection::vec((0..8_u32, any::<bool>()), 0..50),
        ) {
            let (mut map, mut tree) = (SortedMap::new(), BTreeMap::new());
            for (value, (key, insert)) in steps.into_iter().enumerate() {
                if insert {
                    map.reserve().unwrap();
                    map.insert(key, value);
                    tree.insert(key, value);
                } else {
                    prop_assert_eq!(map.remove(key), tree.remove(&key));
                }
                for key in 0..8 {
                    prop_assert_eq!(map.get(key), tree.get(&key));
                    prop_assert_eq!(map.contains(key), tree.contains_key(&key));
                    let last = tree.range(..=key).next_back().map(|(key, value)| (*key, value));
                    prop_assert_eq!(map.last_up_to(key), last);
                    let from = map.iter_mut_from(key).map(|(key, value)| (key, *value));
                    prop_assert!(from.eq(tree.range(key..).map(|(key, value)| (*key, *value))));
                }
                prop_assert_eq!((map.len(), map.is_empty()), (tree.len(), tree.is_empty()));
                prop_assert!(map.iter().eq(tree.iter().map(|(key, value)| (*key, value))));
            }
            prop_assert!(map.into_values().eq(tree.into_values()));
        }
    }
}
