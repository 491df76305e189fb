//! An out-of-memory error, exact slices, and page tables that allocate their pages on first use.

use crate::{try_box_array, try_collect, try_push};
use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;
use once_cell::race::OnceBox;

/// The heap is exhausted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the heap has no memory left")
    }
}

impl Error for OutOfMemory {}

impl From<TryReserveError> for OutOfMemory {
    fn from(_: TryReserveError) -> Self {
        Self
    }
}

/// Collects an iterator of known length into a boxed slice.
///
/// # Errors
/// Fails if the allocator has no memory for the items.
pub fn try_boxed_slice<T>(
    items: impl ExactSizeIterator<Item = T>,
) -> Result<Box<[T]>, TryReserveError> {
    Ok(try_collect(items)?.into_boxed_slice())
}

/// Collects an iterator into a vector without spare capacity. Iterates twice: once to count the
/// items, then to collect them.
///
/// # Errors
/// Fails if the allocator has no memory for the items.
pub fn try_collect_exact<T>(
    items: impl Iterator<Item = T> + Clone,
) -> Result<Vec<T>, TryReserveError> {
    let mut all = Vec::new();
    all.try_reserve_exact(items.clone().count())?;
    all.extend(items);
    Ok(all)
}

/// Collects the values from an iterator of results, stopping at the first error.
///
/// # Errors
/// Returns the iterator's first error, or [`OutOfMemory`].
pub fn try_collect_results<T, E: From<OutOfMemory>>(
    items: impl Iterator<Item = Result<T, E>>,
) -> Result<Vec<T>, E> {
    let mut all = Vec::new();
    for item in items {
        try_push(&mut all, item?).map_err(OutOfMemory::from)?;
    }
    Ok(all)
}

/// Creates a table with room for `pages` pages. No page is allocated yet.
///
/// # Errors
/// Fails if the allocator has no memory for the table.
pub fn try_page_table<T>(pages: u32) -> Result<Box<[OnceBox<T>]>, TryReserveError> {
    Ok(try_collect((0..pages).map(|_| OnceBox::new()))?.into_boxed_slice())
}

/// Allocates a page and fills it with `make`, unless it is already present. Concurrent callers all
/// receive the same page.
///
/// # Errors
/// Fails if the allocator has no memory for the page.
pub fn try_page<T, const N: usize>(
    page: &OnceBox<[T; N]>,
    make: impl FnMut() -> T,
) -> Result<(), TryReserveError> {
    page.get_or_try_init(|| try_box_array(make))?;
    Ok(())
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use doorbell_test_support::with_allocations;

    #[test]
    fn exhausted_memory_is_an_error() {
        with_allocations(0, || {
            assert!(try_boxed_slice([1].into_iter()).is_err());
            assert!(try_collect_exact([1].into_iter()).is_err());
            let ones = [Ok::<_, OutOfMemory>(1)];
            assert_eq!(try_collect_results(ones.into_iter()), Err(OutOfMemory));
            assert!(try_page_table::<[u8; 2]>(1).is_err());
            assert!(try_page::<u8, 2>(&OnceBox::new(), || 7).is_err());
        });
    }

    #[test]
    fn an_exact_vector_has_no_spare_capacity() {
        let odd = (0..10).filter(|number| number % 2 == 1);
        let odd = with_allocations(1, || try_collect_exact(odd)).unwrap();
        assert_eq!((&*odd, odd.capacity()), (&[1, 3, 5, 7, 9][..], 5));
    }

    #[test]
    fn a_page_is_made_once() {
        let table = try_page_table::<[u8; 2]>(1).unwrap();
        try_page(&table[0], || 7).unwrap();
        with_allocations(0, || try_page(&table[0], || 8)).unwrap();
        assert_eq!(table[0].get(), Some(&[7, 7]));
    }
}
