//! A map whose insertions use memory that was reserved in advance.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

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
        fn a_sorted_map_behaves_like_a_btree_map(
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
