//! Interleaving checks that add and remove owners of a shared value concurrently.

use super::explore;
use crate::shared::{Owners, Shared};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use shuttle::thread;
use std::vec::Vec;

/// A stand-in for a heap block that detects double frees.
struct Value {
    owners: Owners,
    freed: AtomicBool,
}

impl Value {
    fn read(&self) {
        assert!(!self.freed.load(SeqCst), "used after it was freed");
    }

    fn leave(&self) {
        self.read();
        if self.owners.remove() {
            assert!(!self.freed.swap(true, SeqCst), "freed twice");
        }
    }
}

/// Two owners use the value; each adds another owner and is then removed. Each added owner uses the
/// value and is removed, too.
fn owners_come_and_go() {
    let value = Arc::new(Value { owners: Owners::one(), freed: AtomicBool::new(false) });
    value.owners.add();
    let owner = |value: Arc<Value>| {
        move || {
            value.read();
            value.owners.add();
            value.leave();
            value.read();
            value.leave();
        }
    };
    let threads: Vec<_> = (0..2).map(|_| thread::spawn(owner(value.clone()))).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(value.freed.load(SeqCst), "never freed");
}

/// A value that counts its drops.
struct Told(Arc<AtomicUsize>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Two owners clone and drop a heap-allocated shared value.
fn a_shared_value_is_dropped_by_its_last_owner() {
    let drops = Arc::new(AtomicUsize::new(0));
    let first = Shared::try_new(Told(drops.clone())).unwrap();
    let second = first.clone();
    let owner = |shared: Shared<Told>| {
        move || {
            let passed_on = shared.clone();
            drop(shared);
            assert_eq!(passed_on.0.load(SeqCst), 0, "dropped while it is owned");
        }
    };
    let threads = [thread::spawn(owner(first)), thread::spawn(owner(second))];
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn the_last_owner_frees_the_value_exactly_once() {
    explore(owners_come_and_go);
}

#[test]
fn a_shared_value_is_dropped_once() {
    explore(a_shared_value_is_dropped_by_its_last_owner);
}
