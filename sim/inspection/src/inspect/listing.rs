//! Limits the rows that an output lists, so that its length is bounded for any input.

use crate::work;
use serde::Serialize;

/// Maximum number of rows in a list. No real machine is known to have more.
pub(crate) const MAX_ROWS: usize = 4096;
/// Maximum number of bytes of names in a list's rows.
const MAX_BYTES: usize = 4 << 20;

/// The number of further rows and bytes that a list has room for, and the number of omitted rows.
#[derive(Debug)]
pub(crate) struct Listing {
    rows: usize,
    bytes: usize,
    omitted: usize,
}

impl Listing {
    /// Creates an empty list.
    pub(crate) const fn new() -> Self {
        Self { rows: MAX_ROWS, bytes: MAX_BYTES, omitted: 0 }
    }

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

    pub(crate) const fn omitted(&self) -> usize {
        self.omitted
    }
}

/// Numbers of rows that lists omit: 0, except for an input with thousands of rows.
#[derive(Debug, Default, Serialize)]
pub struct Omitted {
    /// CPUs.
    pub cpus: usize,
    /// Redistributor regions.
    pub redistributors: usize,
    /// Secondary GICs.
    pub secondary_gics: usize,
    /// MSI controllers.
    pub controllers: usize,
    /// Doorbells.
    pub doorbells: usize,
    /// Ranges of interrupts.
    pub ranges: usize,
    /// Requesters.
    pub devices: usize,
    /// Routes.
    pub routes: usize,
    /// Ranges of StreamIDs.
    pub streams: usize,
}

impl Omitted {
    /// Returns a sentence for each list that is incomplete.
    pub fn sentences(&self) -> Vec<String> {
        let lists = [
            (self.cpus, "CPU", "CPUs"),
            (self.redistributors, "redistributor region", "redistributor regions"),
            (self.secondary_gics, "secondary GIC", "secondary GICs"),
            (self.controllers, "MSI controller", "MSI controllers"),
            (self.doorbells, "doorbell", "doorbells"),
            (self.ranges, "range of interrupts", "ranges of interrupts"),
            (self.devices, "device", "devices"),
            (self.routes, "route", "routes"),
            (self.streams, "range of StreamIDs", "ranges of StreamIDs"),
        ];
        let sentence = |(omitted, one, several): (usize, &str, &str)| match omitted {
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
        let mut listing = Listing::new();
        assert_eq!(listing.first(0..MAX_ROWS + 3).len(), MAX_ROWS);
        assert_eq!((listing.is_full(), listing.omitted()), (true, 3));
    }

    #[test]
    fn long_names_exhaust_the_byte_limit_of_a_list() {
        let mut listing = Listing::new();
        assert!(listing.admits(MAX_BYTES) && !listing.admits(1) && !listing.admits(0));
        assert_eq!(listing.omitted(), 2);
    }
}
