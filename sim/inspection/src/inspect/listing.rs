//! Limits the rows that an output lists, so that its length is bounded for any input.

use crate::work;
use serde::{Serialize, Serializer};

/// Maximum number of rows in a list. No real machine is known to have more.
pub(crate) const MAX_ROWS: usize = 4096;
/// Maximum number of bytes of names in a list's rows.
const MAX_BYTES: usize = 4 << 20;

/// The number of further rows and bytes that a list has room for, and the number of omitted rows.
#[derive(Debug)]
pub struct Listing {
    rows: usize,
    bytes: usize,
    omitted: usize,
}

impl Default for Listing {
    fn default() -> Self {
        Self { rows: MAX_ROWS, bytes: MAX_BYTES, omitted: 0 }
    }
}

/// Writes the number of omitted rows.
impl Serialize for Listing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.omitted.serialize(serializer)
    }
}

impl Listing {
    /// Reserves room for a row whose names have `bytes` bytes. If there is no room, counts the row
    /// as omitted and returns `false`.
    pub(crate) fn admits(&mut self, bytes: usize) -> bool {
        work::step();
        let left = self.rows.checked_sub(1).zip(self.bytes.checked_sub(bytes));
        match left {
            Some((rows, bytes)) => (self.rows, self.bytes) = (rows, bytes),
            None => self.omit(1),
        }
        left.is_some()
    }

    /// Returns `true` if no further row fits.
    pub(crate) const fn is_full(&self) -> bool {
        self.rows == 0
    }

    /// Counts rows as omitted. A list that omits rows is full.
    pub(crate) const fn omit(&mut self, rows: usize) {
        self.rows = 0;
        self.omitted = self.omitted.saturating_add(rows);
    }

    /// Returns the first rows, as many as the list has room for.
    pub(crate) fn first<T>(&mut self, all: impl Iterator<Item = T>) -> Vec<T> {
        all.filter(|_| self.admits(0)).collect()
    }

    /// Returns the number of omitted rows.
    pub const fn omitted(&self) -> usize {
        self.omitted
    }
}

/// The lists of an inspection. None omits a row, except for an input with thousands of rows.
#[derive(Debug, Default, Serialize)]
pub struct Listings {
    /// CPUs.
    pub cpus: Listing,
    /// Redistributor regions.
    pub redistributors: Listing,
    /// Secondary GICs.
    pub secondary_gics: Listing,
    /// MSI controllers.
    pub controllers: Listing,
    /// Doorbells.
    pub doorbells: Listing,
    /// Ranges of interrupts.
    pub ranges: Listing,
    /// Requesters.
    pub devices: Listing,
    /// Routes.
    pub routes: Listing,
    /// Ranges of StreamIDs.
    pub streams: Listing,
}

impl Listings {
    /// Returns a sentence for each list that is incomplete.
    pub fn sentences(&self) -> Vec<String> {
        let lists = [
            (&self.cpus, "CPU", "CPUs"),
            (&self.redistributors, "redistributor region", "redistributor regions"),
            (&self.secondary_gics, "secondary GIC", "secondary GICs"),
            (&self.controllers, "MSI controller", "MSI controllers"),
            (&self.doorbells, "doorbell", "doorbells"),
            (&self.ranges, "range of interrupts", "ranges of interrupts"),
            (&self.devices, "device", "devices"),
            (&self.routes, "route", "routes"),
            (&self.streams, "range of StreamIDs", "ranges of StreamIDs"),
        ];
        let sentence = |(list, one, several): (&Listing, &str, &str)| match list.omitted {
            0 => None,
            1 => Some(format!("1 more {one} is not listed")),
            more => Some(format!("{more} more {several} are not listed")),
        };
        lists.into_iter().filter_map(sentence).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_list_counts_the_rows_beyond_its_limit() {
        let mut listing = Listing::default();
        assert_eq!(listing.first(0..MAX_ROWS + 3).len(), MAX_ROWS);
        assert_eq!((listing.is_full(), listing.omitted()), (true, 3));
    }

    #[test]
    fn long_names_exhaust_the_byte_limit_of_a_list() {
        let mut listing = Listing::default();
        assert!(listing.admits(MAX_BYTES) && !listing.admits(1) && !listing.admits(0));
        assert_eq!(listing.omitted(), 2);
    }
}
