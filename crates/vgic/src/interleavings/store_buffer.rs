//! A model of store buffers. A sender's writes before its message don't become visible to other
//! threads until the sender does a read-modify-write, or the buffer is drained.

extern crate std;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::cell::RefCell;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use shuttle::thread::{self, ThreadId};

struct Store {
    by: ThreadId,
    cell: Arc<AtomicU64>,
    value: u64,
}

std::thread_local! {
    static BUFFER: RefCell<VecDeque<Store>> = const { RefCell::new(VecDeque::new()) };
}

/// Stores a value through the buffer.
pub(crate) fn store(cell: &Arc<AtomicU64>, value: u64) {
    let store = Store { by: thread::current().id(), cell: cell.clone(), value };
    BUFFER.with_borrow_mut(|buffer| buffer.push_back(store));
}

/// Makes this thread's stores visible.
pub(crate) fn drain() {
    BUFFER.with_borrow_mut(|buffer| {
        if !buffer.is_empty() {
            let by = thread::current().id();
            buffer.iter().filter(|store| store.by == by).for_each(Store::commit);
            buffer.retain(|store| store.by != by);
        }
    });
}

/// Makes all threads' stores visible.
pub(crate) fn drain_all() {
    BUFFER.with_borrow_mut(|buffer| buffer.drain(..).for_each(|store| store.commit()));
}

impl Store {
    fn commit(&self) {
        self.cell.store(self.value, SeqCst);
    }
}
