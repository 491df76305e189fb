//! The lock-free part of LPI delivery under a scheduler that chooses interleavings: senders,
//! commands and vCPUs, with every safeguard of the algorithm in place, and then with each one left
//! out, which must be found.
//!
//! The sources are compiled here against the scheduler's atomics. Its executions are sequentially
//! consistent, and so is every access (others are refused here), so that what is explored is what
//! can happen on hardware. What a sender wrote to plain memory before its message is not: that
//! store buffer is modelled beside it (`store_buffer`).

#![expect(dead_code, reason = "only a part of the sources is driven here")]
#![expect(unreachable_pub, reason = "the sources are a library's")]
#![expect(clippy::unwrap_used, reason = "a scenario that cannot be set up has failed")]

extern crate alloc;

mod atomic;
mod store_buffer;

#[path = "../../src/events.rs"]
mod events;
#[path = "../../src/heap.rs"]
mod heap;
#[path = "../../src/memory.rs"]
mod memory;
#[path = "../../src/progress.rs"]
mod progress;
#[path = "../../src/safeguard.rs"]
mod safeguard;
#[path = "../../src/wakeup.rs"]
mod wakeup;

/// The core, with the scenarios inside so that they see what the core shows nobody else.
#[path = ""]
mod lpi {
    #[path = "../../src/lpi/allocation.rs"]
    mod allocation;
    #[path = "../../src/lpi/config.rs"]
    mod config;
    #[path = "../../src/lpi/consumer.rs"]
    mod consumer;
    #[path = "../../src/lpi/control.rs"]
    mod control;
    #[path = "../../src/lpi/device_table.rs"]
    mod device_table;
    #[path = "../../src/lpi/entries.rs"]
    mod entries;
    #[path = "../../src/lpi/entries_by_lpi.rs"]
    mod entries_by_lpi;
    #[path = "../../src/lpi/entry.rs"]
    mod entry;
    #[path = "../../src/lpi/entry_allocator.rs"]
    mod entry_allocator;
    #[path = "../../src/lpi/injection.rs"]
    mod injection;
    #[path = "../../src/lpi/itt.rs"]
    mod itt;
    #[path = "../../src/lpi/itt_teardown.rs"]
    mod itt_teardown;
    #[path = "../../src/lpi/mapping.rs"]
    mod mapping;
    #[path = "../../src/lpi/mappings.rs"]
    mod mappings;
    #[path = "../../src/lpi/ready_bitmap.rs"]
    mod ready_bitmap;
    #[path = "../../src/lpi/redistributor.rs"]
    mod redistributor;
    #[path = "../../src/lpi/redistributor_lpis.rs"]
    mod redistributor_lpis;
    #[path = "../../src/lpi/shared.rs"]
    mod shared;
    #[path = "../../src/lpi/sweep.rs"]
    mod sweep;
    #[path = "../../src/lpi/sweeps.rs"]
    mod sweeps;
    #[path = "../../src/lpi/tables.rs"]
    mod tables;

    #[path = "direct.rs"]
    mod direct;
    #[path = "lists.rs"]
    mod lists;
    #[path = "machine.rs"]
    mod machine;
    #[path = "reports.rs"]
    mod reports;
    #[path = "scenarios.rs"]
    mod scenarios;
    #[path = "work.rs"]
    mod work;
}
