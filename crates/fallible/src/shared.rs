//! Fallible shared ownership: an `Arc` without weak references that reports exhausted memory.
//!
//! Stable Rust has no fallible `Arc` constructor. This file can be removed once `Arc::try_new` is
//! stable.
//!
//! The protocol needs a single counter, which starts at one:
//! 1. A clone adds one. The value being cloned is itself an owner, so the count can't be zero.
//! 2. A drop subtracts one. The drop that brings it to zero has exclusive access and frees the
//!    value.
//!
//! `interleavings/shared.rs` explores both steps.
// UNSAFETY: the last owner frees the value, and the compiler cannot tell which owner is the last.
// We can't use `Arc` here: it aborts when the heap is exhausted.
#![expect(
    unsafe_code,
    reason = "a count, not a scope, determines the value's lifetime; each use has a safety comment"
)]

use crate::sync::{AtomicUsize, SeqCst};
use crate::try_box;
use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

/// Maximum number of owners per value. The limit is far below overflow, because other threads may
/// still add owners before a failed check panics. Only a program that leaks owners can reach the
/// limit.
const MOST_OWNERS: usize = usize::MAX / 2;

/// Number of owners of a value.
pub(crate) struct Owners(AtomicUsize);

impl Owners {
    /// Creates the count for a value with a single owner.
    pub(crate) fn one() -> Self {
        Self(AtomicUsize::new(1))
    }

    /// Adds an owner. Panics and leaks the value if it has more than [`MOST_OWNERS`] owners.
    // Keep this out of line: one copy serves all types.
    #[inline(never)]
    pub(crate) fn add(&self) {
        let before = self.0.fetch_add(1, SeqCst);
        assert!(before <= MOST_OWNERS, "a value has too many owners to count");
    }

    /// Removes an owner. Returns `true` if that owner was the last one.
    #[inline]
    pub(crate) fn remove(&self) -> bool {
        self.0.fetch_sub(1, SeqCst) == 1
    }
}

/// Heap block behind a [`Shared`]: the value and its owner count.
// The order of the fields is fixed, because a block is found by the address of its value.
#[repr(C)]
pub struct Block<T: ?Sized> {
    owners: Owners,
    value: T,
}

/// A value with several owners. Cloning adds an owner, and the last one frees the value.
///
/// ```
/// use core::fmt::Display;
/// use doorbell_fallible::Shared;
///
/// let number = Shared::<u32>::try_new(7)?;
/// let same = number.clone();
/// drop(number);
/// assert_eq!(*same, 7);
///
/// let displayed = Shared::<dyn Display>::try_unsized(7, |block| block)?;
/// assert_eq!(displayed.to_string(), "7");
/// # Ok::<(), std::collections::TryReserveError>(())
/// ```
pub struct Shared<T: ?Sized> {
    /// The value in its block. Each dispatch of an interrupt dereferences it, and finding it by the
    /// block's address would depend on the alignment in the value's vtable.
    value: NonNull<T>,
    _owns: PhantomData<Block<T>>,
}

// SAFETY: owners on several threads have shared references to the value concurrently, which
// requires `Sync`. The last owner may free it on any thread, which requires `Send`. The count is
// atomic.
unsafe impl<T: ?Sized + Send + Sync> Send for Shared<T> {}
// SAFETY: as above, because a shared reference to an owner can be cloned into another owner.
unsafe impl<T: ?Sized + Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Moves a value to the heap.
    ///
    /// # Errors
    /// Fails if the allocator has no memory for the value, which is dropped.
    pub fn try_new(value: T) -> Result<Self, TryReserveError> {
        let block = Box::leak(try_box(Block { owners: Owners::one(), value })?);
        Ok(Self::of(NonNull::from(block).cast()))
    }
}

impl<T: ?Sized> Shared<T> {
    /// Moves a value to the heap and shares it as a trait object. `unsize` must return its
    /// argument; the closure is needed because stable Rust can coerce only where both types are
    /// known.
    ///
    /// # Errors
    /// Fails if the allocator has no memory for the value, which is dropped.
    pub fn try_unsized<V>(
        value: V,
        unsize: impl FnOnce(Box<Block<V>>) -> Box<Block<T>>,
    ) -> Result<Self, TryReserveError> {
        let made: NonNull<Block<V>> =
            NonNull::from(Box::leak(try_box(Block { owners: Owners::one(), value })?)).cast();
        // SAFETY: we just leaked the block from a box of a one-element array, which has the same
        // layout as the block.
        let block = unsize(unsafe { Box::from_raw(made.as_ptr()) });
        Ok(Self::of(NonNull::from(Box::leak(block))))
    }

    /// Creates the first owner of a leaked block.
    fn of(block: NonNull<Block<T>>) -> Self {
        // SAFETY: the block is alive, so the place of its value is inside an allocation, and no
        // reference is created.
        let value = unsafe { NonNull::new_unchecked(&raw mut (*block.as_ptr()).value) };
        Self { value, _owns: PhantomData }
    }

    fn block(&self) -> *mut Block<T> {
        let offset = size_of::<Owners>().next_multiple_of(align_of_val(&**self));
        // SAFETY: the count comes first, and the value at the next multiple of its alignment
        // (`repr(C)`), so the result is the start of the block, from whose pointer `of` derived
        // that of the value.
        unsafe { self.value.as_ptr().byte_sub(offset) as *mut Block<T> }
    }

    fn owners(&self) -> &Owners {
        // SAFETY: a constructor leaked the block, and only the last owner frees it. This owner is
        // still counted, so the block is alive and no exclusive reference exists.
        unsafe { &(*self.block()).owners }
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    #[inline]
    fn clone(&self) -> Self {
        self.owners().add();
        Self { value: self.value, _owns: PhantomData }
    }
}

impl<T: ?Sized> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.owners().remove() {
            // SAFETY: this was the last owner, so no references exist. The block came from a box of
            // a one-element array, which has the same layout.
            drop(unsafe { Box::from_raw(self.block()) });
        }
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: as in `owners`, the block is alive, and no exclusive reference exists.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized> fmt::Debug for Block<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Block(..)")
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic = "a value has too many owners to count"]
    fn exceeding_the_owner_count_panics() {
        Owners(AtomicUsize::new(MOST_OWNERS + 1)).add();
    }

    #[test]
    fn an_overaligned_value_is_dereferenced_and_freed() {
        #[repr(align(64))]
        struct Aligned<'a>(&'a AtomicUsize);
        impl Drop for Aligned<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        trait Count {
            fn count(&self) -> usize;
        }
        impl Count for Aligned<'_> {
            fn count(&self) -> usize {
                self.0.load(SeqCst)
            }
        }
        let freed = AtomicUsize::new(0);
        let sized = Shared::try_new(Aligned(&freed)).unwrap();
        let object = Shared::<dyn Count + '_>::try_unsized(Aligned(&freed), |block| block).unwrap();
        let clones = (sized.clone(), object.clone());
        assert!(core::ptr::from_ref(&*sized).is_aligned());
        assert!(core::ptr::from_ref(&*object).addr().is_multiple_of(64));
        drop((sized, object));
        assert_eq!(clones.1.count(), 0);
        drop(clones.0);
        assert_eq!(clones.1.count(), 1);
        drop(clones.1);
        assert_eq!(freed.load(SeqCst), 2);
    }
}
