//! A set of vectors.

use crate::apic::ApicVector;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Bitmap([u64; 4]);

impl Bitmap {
    pub(super) fn insert(&mut self, vector: ApicVector) {
        let (word, bit) = split(vector);
        self.0[word] |= bit;
    }

    /// Removes a vector. Returns `true` if the set contained the vector.
    pub(super) fn remove(&mut self, vector: ApicVector) -> bool {
        let (word, bit) = split(vector);
        let was = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        was
    }

    pub(super) fn contains(&self, vector: ApicVector) -> bool {
        let (word, bit) = split(vector);
        self.0[word] & bit != 0
    }
}

impl FromIterator<ApicVector> for Bitmap {
    fn from_iter<I: IntoIterator<Item = ApicVector>>(vectors: I) -> Self {
        let mut map = Self::default();
        vectors.into_iter().for_each(|vector| map.insert(vector));
        map
    }
}

/// Returns the index of the word, which is below 4, and the bit in it.
fn split(vector: ApicVector) -> (usize, u64) {
    (vector.index() / 64, 1 << (vector.get() % 64))
}
