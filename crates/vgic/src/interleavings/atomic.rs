//! The scheduler's atomics. As on any hardware, a read-modify-write drains the thread's store
//! buffer.

use super::store_buffer;
pub(crate) use shuttle::sync::atomic::Ordering;

/// Defines an atomic with these operations in addition to the usual ones.
macro_rules! atomic {
    ($(#[$attribute:meta])* $name:ident of $value:ty: $($operation:ident),*) => {
        #[derive(Debug)]
        pub(crate) struct $name(shuttle::sync::atomic::$name);

        $(#[$attribute])*
        impl $name {
            pub(crate) const fn new(value: $value) -> Self {
                Self(shuttle::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                check(order);
                self.0.load(Ordering::SeqCst)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                check(order);
                self.0.store(value, Ordering::SeqCst);
            }

            pub(crate) fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                order: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                check(order);
                check(failure);
                store_buffer::drain();
                self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
            }

            /// The scheduler's exchange never fails spuriously.
            pub(crate) fn compare_exchange_weak(
                &self,
                old: $value,
                new: $value,
                order: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(old, new, order, failure)
            }

            $(pub(crate) fn $operation(&self, value: $value, order: Ordering) -> $value {
                check(order);
                store_buffer::drain();
                self.0.$operation(value, Ordering::SeqCst)
            })*
        }
    };
}

atomic!(#[expect(dead_code, reason = "not every operation is used")] AtomicBool of bool: swap);
atomic!(#[expect(dead_code, reason = "not every operation is used")] AtomicU16 of u16:);
atomic!(#[expect(dead_code, reason = "not every operation is used")] AtomicU32 of u32: swap);
atomic!(AtomicU64 of u64: fetch_add, fetch_and, fetch_max, fetch_or, fetch_sub, swap);

impl AtomicU32 {
    pub(crate) fn fetch_update(
        &self,
        order: Ordering,
        failure: Ordering,
        change: impl FnMut(u32) -> Option<u32>,
    ) -> Result<u32, u32> {
        check(order);
        check(failure);
        store_buffer::drain();
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change)
    }

    pub(crate) fn get_mut(&mut self) -> &mut u32 {
        self.0.get_mut()
    }
}

impl Default for AtomicU32 {
    fn default() -> Self {
        Self::new(0)
    }
}

/// Refuses weaker orderings, because the scheduler doesn't model their effects.
fn check(order: Ordering) {
    assert_eq!(order, Ordering::SeqCst, "only SeqCst accesses are explored");
}
