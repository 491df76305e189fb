//! A heap that counts allocations, and makes allocations fail on request. This heap is the
//! allocator of every test program that uses this crate. Code that can't handle a failed allocation
//! then aborts the program. As with other heaps, the block that was freed last can always be
//! allocated again.
//!
//! `unsafe` is needed to implement [`GlobalAlloc`]: the allocator passes each call to the system's
//! allocator with the same arguments, or returns null, which the trait permits.
#![expect(unsafe_code, reason = "an allocator that fails on demand must implement GlobalAlloc")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;
use std::thread::LocalKey;

struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

thread_local! {
    /// Number of this thread's allocations that will still succeed.
    static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    /// Layout of the block that this thread freed last while its allocations were limited.
    static FREED: Cell<Option<Layout>> = const { Cell::new(None) };
    /// Number of bytes that this thread has allocated.
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
    /// Number of bytes that this thread has freed.
    static RELEASED: Cell<usize> = const { Cell::new(0) };
    /// Number of [`Outside`] values that this thread holds.
    static OUTSIDE: Cell<u32> = const { Cell::new(0) };
}

fn is_exhausted(layout: Layout) -> bool {
    let outside = OUTSIDE.try_with(Cell::get).unwrap_or(1);
    match LEFT.try_with(Cell::get) {
        Ok(Some(_)) if outside == 0 && FREED.get() == Some(layout) => {
            FREED.set(None);
            false
        }
        Ok(Some(0)) => outside == 0,
        Ok(Some(more)) if outside == 0 => {
            LEFT.set(Some(more - 1));
            false
        }
        _ => false,
    }
}

fn note_freed(layout: Layout) {
    if let (Ok(Some(_)), Ok(0)) = (LEFT.try_with(Cell::get), OUTSIDE.try_with(Cell::get)) {
        FREED.set(Some(layout));
    }
}

fn add(bytes: &'static LocalKey<Cell<usize>>, layout: Layout) {
    // A thread that is ending may free and allocate memory after its counters have been destroyed.
    let _ = bytes.try_with(|bytes| bytes.set(bytes.get().wrapping_add(layout.size())));
}

// SAFETY: every call is passed to `System`, or returns null, which the trait permits.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_exhausted(layout) {
            return null_mut();
        }
        add(&ALLOCATED, layout);
        // SAFETY: the caller has the same obligations.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note_freed(layout);
        add(&RELEASED, layout);
        // SAFETY: the caller has the same obligations, and `System` allocated the block.
        unsafe { System.dealloc(memory, layout) };
    }
}

/// Runs `f` and makes this thread's first `allocations` allocations succeed, and all later ones
/// fail.
pub fn with_allocations<R>(allocations: u32, f: impl FnOnce() -> R) -> R {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            LEFT.set(None);
            FREED.set(None);
        }
    }
    let _restore = Restore;
    LEFT.set(Some(allocations));
    f()
}

/// Calls `attempt` with the number of allocations to [allow](with_allocations), starting with zero
/// and increasing by one, until `attempt` returns `true`. Returns the number of failed attempts.
///
/// # Panics
/// Panics if 100,000 allocations are not enough.
pub fn failures_until(mut attempt: impl FnMut(u32) -> bool) -> u32 {
    (0..100_000).find(|allocations| attempt(*allocations)).expect("enough allocations")
}

/// Runs `operation` with zero successful allocations, then with one, and so on, until the operation
/// succeeds. Passes each error of the operation to `check`. Returns the operation's result and the
/// number of failures.
///
/// # Panics
/// Panics if 100,000 allocations are not enough.
pub fn until_it_succeeds<T, E>(
    mut operation: impl FnMut() -> Result<T, E>,
    mut check: impl FnMut(E),
) -> (T, u32) {
    let mut done = None;
    let failures = failures_until(|allocations| {
        let result = with_allocations(allocations, &mut operation);
        done = result.map_err(&mut check).ok();
        done.is_some()
    });
    (done.expect("the last attempt succeeded"), failures)
}

/// Like [`until_it_succeeds`], but returns only the result.
///
/// # Panics
/// Panics if fewer than `least` attempts failed.
pub fn after_failures<T, E>(
    least: u32,
    operation: impl FnMut() -> Result<T, E>,
    check: impl FnMut(E),
) -> T {
    let (done, failures) = until_it_succeeds(operation, check);
    assert!(failures >= least, "{failures} allocations failed");
    done
}

/// The heap use of a piece of code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeapUse {
    /// Total size of all allocations in bytes.
    pub allocated: usize,
    /// Number of bytes that were allocated and not freed; 0 if more bytes were freed than
    /// allocated.
    pub kept: usize,
}

/// Returns the number of bytes that this thread has allocated and not freed.
pub fn heap_in_use() -> usize {
    ALLOCATED.get().wrapping_sub(RELEASED.get())
}

/// Runs `f`, counting the bytes that this thread allocates and frees. Allocations by other threads
/// are not counted.
pub fn heap_use<R>(f: impl FnOnce() -> R) -> (R, HeapUse) {
    let (allocated, released) = (ALLOCATED.get(), RELEASED.get());
    let result = f();
    let allocated = ALLOCATED.get().wrapping_sub(allocated);
    let released = RELEASED.get().wrapping_sub(released);
    (result, HeapUse { allocated, kept: allocated.saturating_sub(released) })
}

/// Runs `f` with allocations that always succeed and don't count against the limit.
pub fn outside<R>(f: impl FnOnce() -> R) -> R {
    let _outside = Outside::new();
    f()
}

/// A guard: while it exists, this thread's allocations always succeed and don't count against the
/// limit. Fakes use this guard for their own allocations, for example.
#[derive(Debug)]
pub struct Outside(());

impl Default for Outside {
    fn default() -> Self {
        Self::new()
    }
}

impl Outside {
    /// Exempts this thread's allocations from the limit until the value is dropped.
    pub fn new() -> Self {
        OUTSIDE.set(OUTSIDE.get() + 1);
        Self(())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        OUTSIDE.set(OUTSIDE.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    #[test]
    fn every_allocation_of_the_thread_is_counted() {
        let (kept, used) = heap_use(|| {
            drop(black_box(Vec::<u8>::with_capacity(100)));
            black_box(Vec::<u8>::with_capacity(20))
        });
        assert_eq!(used, HeapUse { allocated: 120, kept: 20 });
        assert_eq!(heap_use(|| drop(kept)).1, HeapUse { allocated: 0, kept: 0 });
    }
}
