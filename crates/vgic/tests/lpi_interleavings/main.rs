//! The lock-free part of LPI delivery under a scheduler that chooses interleavings: senders, commands and vCPUs, with
//! every safeguard of the algorithm in place, and then with each one left out, which must be found.
//!
//! The sources are compiled here against the scheduler's atomics. Its executions are sequentially consistent, and so is
//! every access (others are refused here), so that what is explored is what can happen on hardware. What a sender wrote
//! to plain memory before its message is not: that store buffer is modelled beside it (`store_buffer`).

#![expect(dead_code, reason = "only a part of the sources is driven here")]
#![expect(unreachable_pub, reason = "the sources are a library's")]
#![expect(clippy::unwrap_used, reason = "a scenario that cannot be set up has failed")]
#![expect(clippy::large_enum_variant, reason = "the scheduler's atomics are larger than real ones")]

extern crate alloc;

mod store_buffer;

/// The scheduler's atomics. A read-modify-write empties its thread's store buffer, as on every machine.
mod atomic {
    use super::lpi::Safeguard;
    use super::store_buffer;
    use core::cell::Cell;
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    pub(crate) struct AtomicU64(shuttle::sync::atomic::AtomicU64);

    impl AtomicU64 {
        pub(crate) const fn new(value: u64) -> Self {
            Self(shuttle::sync::atomic::AtomicU64::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            check(order);
            self.0.load(Ordering::SeqCst)
        }

        pub(crate) fn store(&self, value: u64, order: Ordering) {
            check(order);
            self.0.store(value, Ordering::SeqCst);
        }

        pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
            check(order);
            store_buffer::drain();
            self.0.swap(value, Ordering::SeqCst)
        }

        pub(crate) fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
            check(order);
            store_buffer::drain();
            self.0.fetch_or(value, Ordering::SeqCst)
        }

        pub(crate) fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
            check(order);
            store_buffer::drain();
            self.0.fetch_and(value, Ordering::SeqCst)
        }

        pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            check(order);
            store_buffer::drain();
            self.0.fetch_add(value, Ordering::SeqCst)
        }

        pub(crate) fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
            check(order);
            store_buffer::drain();
            self.0.fetch_sub(value, Ordering::SeqCst)
        }

        pub(crate) fn compare_exchange(
            &self,
            old: u64,
            new: u64,
            order: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            check(order);
            check(failure);
            store_buffer::drain();
            self.0.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
        }
    }

    /// The scheduler would not show what a weaker order allows.
    fn check(order: Ordering) {
        assert_eq!(order, Ordering::SeqCst, "an access that is weaker than what is explored");
    }

    thread_local! {
        static LEFT_OUT: Cell<Option<Safeguard>> = const { Cell::new(None) };
    }

    pub(crate) fn leave_out(safeguard: Option<Safeguard>) {
        LEFT_OUT.set(safeguard);
    }

    pub(crate) fn is_left_out(safeguard: Safeguard) -> bool {
        LEFT_OUT.get() == Some(safeguard)
    }
}

#[path = "../../src/attention.rs"]
mod attention;
#[path = "../../src/events.rs"]
mod events;
#[path = "../../src/memory.rs"]
mod memory;

/// The core, with the scenarios inside so that they see what the core shows nobody else.
#[path = ""]
mod lpi {
    use super::atomic;

    #[path = "../../src/lpi/config.rs"]
    mod config;
    #[path = "../../src/lpi/consumer.rs"]
    mod consumer;
    #[path = "../../src/lpi/control.rs"]
    mod control;
    #[path = "../../src/lpi/directory.rs"]
    mod directory;
    #[path = "../../src/lpi/hints.rs"]
    mod hints;
    #[path = "../../src/lpi/mappings.rs"]
    mod mappings;
    #[path = "../../src/lpi/placement.rs"]
    mod placement;
    #[path = "../../src/lpi/pool.rs"]
    mod pool;
    #[path = "../../src/lpi/redistributor.rs"]
    mod redistributor;
    #[path = "../../src/lpi/safeguard.rs"]
    mod safeguard;
    #[path = "../../src/lpi/senders.rs"]
    mod senders;
    #[path = "../../src/lpi/shared.rs"]
    mod shared;
    #[path = "../../src/lpi/slots.rs"]
    mod slots;
    #[path = "../../src/lpi/sweeps.rs"]
    mod sweeps;
    #[path = "../../src/lpi/tables.rs"]
    mod tables;
    #[path = "../../src/lpi/word.rs"]
    mod word;

    #[path = "lists.rs"]
    mod lists;
    #[path = "machine.rs"]
    mod machine;
    #[path = "scenarios.rs"]
    mod scenarios;

    pub(crate) use safeguard::Safeguard;
}
