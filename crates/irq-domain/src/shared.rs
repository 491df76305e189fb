//! Shared ownership whose making can fail: an `Arc` without weak references, for which stable Rust
//! has no constructor that reports a lack of memory.
//!
//! The protocol, on one counter that begins at one:
//! 1. A clone adds one while its original lives, so that the count is not zero.
//! 2. A drop subtracts one. The drop that takes the last one frees the value, alone with it.
//!
//! The count cannot overflow: each owner is a value of at least a pointer's size, and this crate
//! forgets none.
// UNSAFETY: the value is freed by the last of its owners, which the compiler cannot know. `Arc`
// would abort where the kernel's heap is exhausted.
#![expect(
    unsafe_code,
    reason = "the count, not a scope, says how long the value lives; each use says why"
)]

use crate::sync::{AtomicUsize, SeqCst};
use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;
use doorbell_fallible::try_box;

/// The number of a value's owners.
pub(crate) struct Owners(AtomicUsize);

impl Owners {
    /// One owner.
    pub(crate) fn one() -> Self {
        Self(AtomicUsize::new(1))
    }

    /// One more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, SeqCst);
    }

    /// One less. Returns true if it was the last.
    pub(crate) fn remove(&self) -> bool {
        self.0.fetch_sub(1, SeqCst) == 1
    }
}

/// A value and the count of its owners.
pub(crate) struct Block<T: ?Sized> {
    owners: Owners,
    value: T,
}

/// A value with several owners. The last of them frees it.
pub(crate) struct Shared<T: ?Sized> {
    block: NonNull<Block<T>>,
    _owns: PhantomData<Block<T>>,
}

// SAFETY: owners on several threads have shared references to the value at once, hence `Sync`. The
// last of them frees it, wherever it was made, hence `Send`. The count is atomic.
unsafe impl<T: ?Sized + Send + Sync> Send for Shared<T> {}
// SAFETY: as above; a shared reference to an owner makes another owner.
unsafe impl<T: ?Sized + Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Moves a value to the heap.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The allocator has no memory for it. The value is dropped.
    pub(crate) fn try_new(value: T) -> Result<Self, TryReserveError> {
        let block = Box::leak(try_box(Block { owners: Owners::one(), value })?);
        Ok(Self { block: NonNull::from(block).cast(), _owns: PhantomData })
    }
}

impl<T: ?Sized> Shared<T> {
    /// Moves a value to the heap and shares it as a trait object: `unsize` returns its argument.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The allocator has no memory for it. The value is dropped.
    pub(crate) fn try_unsized<V>(
        value: V,
        unsize: impl FnOnce(Box<Block<V>>) -> Box<Block<T>>,
    ) -> Result<Self, TryReserveError> {
        let made: NonNull<Block<V>> =
            NonNull::from(Box::leak(try_box(Block { owners: Owners::one(), value })?)).cast();
        // SAFETY: the block was leaked just now, from a box of an array of one block, which has the
        // layout of the block.
        let block = unsize(unsafe { Box::from_raw(made.as_ptr()) });
        Ok(Self { block: NonNull::from(Box::leak(block)), _owns: PhantomData })
    }

    #[inline]
    fn block(&self) -> &Block<T> {
        // SAFETY: the block was leaked by `try_new`, and is freed by the last owner alone: this one
        // still counts. Nobody has an exclusive reference before.
        unsafe { self.block.as_ref() }
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        self.block().owners.add();
        Self { block: self.block, _owns: PhantomData }
    }
}

impl<T: ?Sized> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.block().owners.remove() {
            // SAFETY: this was the last owner, so nobody has a reference. The block came from a box
            // of an array of one block, which has the layout of the block.
            drop(unsafe { Box::from_raw(self.block.as_ptr()) });
        }
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.block().value
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::irq::handler::Handler;
    use crate::irq::handler::IrqContext;
    use alloc::sync::Arc;
    use doorbell_test_support::with_allocations;

    type Drops = Arc<AtomicUsize>;

    /// Counts its drops.
    struct Counted(Drops);

    impl Drop for Counted {
        fn drop(&mut self) {
            let Self(drops) = self;
            drops.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn a_refused_value_is_dropped() {
        let drops = Drops::default();
        let refused = with_allocations(0, || Shared::<_>::try_new(Counted(drops.clone())).is_err());
        assert!(refused);
        assert_eq!(drops.load(SeqCst), 1);
    }

    #[test]
    fn a_handler_is_dropped_with_its_last_owner() {
        let drops = Drops::default();
        let counted = Counted(drops.clone());
        let handler =
            Handler::try_handler(move |_: &IrqContext<'_>| drop(counted.0.clone())).unwrap();
        drop(handler.clone());
        assert_eq!(drops.load(SeqCst), 0);
        drop(handler);
        assert_eq!(drops.load(SeqCst), 1);
    }
}
