//! An out-of-memory error, vectors, boxes, and page tables that allocate their pages on first use.

use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;

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

/// A place for a boxed value that is set at most once. Reading it needs one atomic load and no
/// lock.
#[derive(Debug)]
pub struct OnceBox<T>(once_cell::race::OnceBox<T>);

impl<T> Default for OnceBox<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> OnceBox<T> {
    /// Creates an empty place. Does not allocate.
    pub const fn new() -> Self {
        Self(once_cell::race::OnceBox::new())
    }

    /// Returns the value, or `None` if it has not been set.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        self.0.get()
    }

    /// Returns the value; if it has not been set, sets it to the result of `make`. If several
    /// threads do so concurrently, the first result is kept and the others are dropped.
    ///
    /// # Errors
    /// Returns the error of `make`, which sets nothing.
    pub fn get_or_try_init<E>(&self, make: impl FnOnce() -> Result<Box<T>, E>) -> Result<&T, E> {
        self.0.get_or_try_init(make)
    }
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
