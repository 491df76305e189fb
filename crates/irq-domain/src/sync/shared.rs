//! Shared ownership whose making can fail: an `Arc` without weak references, for which stable Rust
//! has no constructor that reports a lack of memory.
//!
//! The protocol, on one counter that begins at one:
//! 1. a clone adds one while its original lives, so that the count is not zero;
//! 2. a drop subtracts one; the drop that takes the last one frees the value, alone with it.
//!
//! The count cannot overflow: each owner is a value of at least a pointer's size, and this crate
//! forgets none.
// UNSAFETY: the value is freed by the last of its owners, which the compiler cannot know. `Arc`
// would abort where the kernel's heap is exhausted.
#![expect(
    unsafe_code,
    reason = "the count, not a scope, says how long the value lives; each use says why"
)]

use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use doorbell_fallible::try_box;

#[cfg(test)]
mod model;

/// The owners of a value, as a trait so that a model checker and its mutants can stand in.
pub(crate) trait Owners: Send + Sync {
    /// One owner.
    fn one() -> Self;
    /// One more.
    fn add(&self);
    /// One less. True if it was the last.
    fn remove(&self) -> bool;
}

impl Owners for AtomicUsize {
    fn one() -> Self {
        Self::new(1)
    }

    fn add(&self) {
        self.fetch_add(1, SeqCst);
    }

    fn remove(&self) -> bool {
        self.fetch_sub(1, SeqCst) == 1
    }
}

/// A value and the count of its owners.
pub(crate) struct Block<O, T: ?Sized> {
    owners: O,
    value: T,
}

/// A value with several owners. The last of them frees it.
pub(crate) struct Shared<T: ?Sized, O: Owners = AtomicUsize> {
    block: NonNull<Block<O, T>>,
    _owns: PhantomData<Block<O, T>>,
}

// SAFETY: owners on several threads have shared references to the value at once, hence `Sync`; the
// last of them frees it, wherever it was made, hence `Send`. The count is atomic.
unsafe impl<T: ?Sized + Send + Sync, O: Owners> Send for Shared<T, O> {}
// SAFETY: as above; a shared reference to an owner makes another owner.
unsafe impl<T: ?Sized + Send + Sync, O: Owners> Sync for Shared<T, O> {}

impl<T, O: Owners> Shared<T, O> {
    /// Moves a value to the heap. Task.
    ///
    /// # Errors
    /// The allocator has no memory for it. The value is dropped.
    pub(crate) fn try_new(value: T) -> Result<Self, TryReserveError> {
        let block = Box::leak(try_box(Block { owners: O::one(), value })?);
        Ok(Self { block: NonNull::from(block).cast(), _owns: PhantomData })
    }
}

impl<T: ?Sized, O: Owners> Shared<T, O> {
    /// Moves a value to the heap and shares it as a trait object: `unsize` returns its argument.
    /// Task.
    ///
    /// # Errors
    /// The allocator has no memory for it. The value is dropped.
    pub(crate) fn try_unsized<V>(
        value: V,
        unsize: impl FnOnce(Box<Block<O, V>>) -> Box<Block<O, T>>,
    ) -> Result<Self, TryReserveError> {
        let made: NonNull<Block<O, V>> =
            NonNull::from(Box::leak(try_box(Block { owners: O::one(), value })?)).cast();
        // SAFETY: the block was leaked just now, from a box of an array of one block, which has the
        // layout of the block.
        let block = unsize(unsafe { Box::from_raw(made.as_ptr()) });
        Ok(Self { block: NonNull::from(Box::leak(block)), _owns: PhantomData })
    }
}

impl<T: ?Sized, O: Owners> Shared<T, O> {
    fn block(&self) -> &Block<O, T> {
        // SAFETY: the block was leaked by `try_new`, and is freed by the last owner alone: this one
        // still counts. Nobody has an exclusive reference before.
        unsafe { self.block.as_ref() }
    }
}

impl<T: ?Sized, O: Owners> Clone for Shared<T, O> {
    fn clone(&self) -> Self {
        self.block().owners.add();
        Self { block: self.block, _owns: PhantomData }
    }
}

impl<T: ?Sized, O: Owners> Drop for Shared<T, O> {
    fn drop(&mut self) {
        if self.block().owners.remove() {
            // SAFETY: this was the last owner, so nobody has a reference. The block came from a box
            // of an array of one block, which has the layout of the block.
            drop(unsafe { Box::from_raw(self.block.as_ptr()) });
        }
    }
}

impl<T: ?Sized, O: Owners> Deref for Shared<T, O> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.block().value
    }
}

impl<T: ?Sized + fmt::Debug, O: Owners> fmt::Debug for Shared<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
