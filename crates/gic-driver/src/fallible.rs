//! Allocation that can fail: a kernel without memory gets an error, not an abort.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

/// Collects what an iterator yields.
pub(crate) fn try_collect<T>(items: impl Iterator<Item = T>) -> Result<Vec<T>, TryReserveError> {
    let mut collected = Vec::new();
    collected.try_reserve_exact(items.size_hint().0)?;
    for item in items {
        collected.try_reserve(1)?;
        collected.push(item);
    }
    Ok(collected)
}

/// A map in a sorted vector. Insertion moves what lies behind: for keys that come and go seldom.
#[derive(Debug)]
pub(crate) struct SortedMap<K, V>(Vec<(K, V)>);

impl<K: Ord + Copy, V> SortedMap<K, V> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Makes room for one more entry, so that the next [`insert`](Self::insert) does not allocate.
    pub(crate) fn reserve(&mut self) -> Result<(), TryReserveError> {
        self.0.try_reserve(1)
    }

    /// Inserts an entry or replaces one. Room was reserved.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        match self.find(key) {
            Ok(index) => self.0[index].1 = value,
            Err(index) => self.0.insert(index, (key, value)),
        }
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let index = self.find(key).ok()?;
        Some(self.0.remove(index).1)
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let index = self.find(key).ok()?;
        self.0.get_mut(index).map(|(_, value)| value)
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        self.0.get(self.find(key).ok()?).map(|(_, value)| value)
    }

    pub(crate) fn contains(&self, key: K) -> bool {
        self.find(key).is_ok()
    }

    pub(crate) fn into_values(self) -> impl Iterator<Item = V> {
        self.0.into_iter().map(|(_, value)| value)
    }

    fn find(&self, key: K) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(key, _)| *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sorted_map_agrees_with_a_tree(steps in prop::collection::vec((0..8_u32, any::<bool>()), 0..50)) {
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
                }
            }
            prop_assert!(map.into_values().eq(tree.into_values()));
        }
    }
}
