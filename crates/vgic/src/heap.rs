//! The heap, which may have no memory left: tables whose pages come with use, and what is said
//! then.

use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::{try_arc, try_box_array, try_collect, try_push};
use once_cell::race::OnceBox;

/// The heap has no memory left for this.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("the heap has no memory left")]
pub struct OutOfMemory;

impl From<TryReserveError> for OutOfMemory {
    fn from(_: TryReserveError) -> Self {
        Self
    }
}

/// Collects the items of an iterator that knows how many there are.
pub(crate) fn boxed<T>(items: impl ExactSizeIterator<Item = T>) -> Result<Box<[T]>, OutOfMemory> {
    Ok(try_collect(items)?.into_boxed_slice())
}

/// Collects the items of an iterator into a vector without room to spare.
pub(crate) fn collected<T>(items: impl Iterator<Item = T> + Clone) -> Result<Vec<T>, OutOfMemory> {
    let mut all = Vec::new();
    all.try_reserve_exact(items.clone().count())?;
    all.extend(items);
    Ok(all)
}

/// Collects the items of an iterator.
pub(crate) fn gathered<T>(items: impl Iterator<Item = T>) -> Result<Vec<T>, OutOfMemory> {
    Ok(try_collect(items)?)
}

/// Collects the items of an iterator of which each may fail.
pub(crate) fn checked<T, E: From<OutOfMemory>>(
    items: impl Iterator<Item = Result<T, E>>,
) -> Result<Vec<T>, E> {
    let mut all = Vec::new();
    for item in items {
        push(&mut all, item?)?;
    }
    Ok(all)
}

/// Appends an item.
pub(crate) fn push<T>(all: &mut Vec<T>, item: T) -> Result<(), OutOfMemory> {
    Ok(try_push(all, item)?)
}

/// Counts references to a value.
pub(crate) fn shared<T>(value: T) -> Result<Arc<T>, OutOfMemory> {
    Ok(try_arc(value)?)
}

/// This many pages, none of which is there.
pub(crate) fn no_pages<T>(pages: u32) -> Result<Box<[OnceBox<T>]>, OutOfMemory> {
    Ok(try_collect((0..pages).map(|_| OnceBox::new()))?.into_boxed_slice())
}

/// Makes sure that a page is there.
pub(crate) fn provide<T, const N: usize>(
    page: &OnceBox<[T; N]>,
    make: impl FnMut() -> T,
) -> Result<(), OutOfMemory> {
    page.get_or_try_init(|| Ok::<_, OutOfMemory>(try_box_array(make)?))?;
    Ok(())
}
