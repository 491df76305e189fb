//! Shared ownership under a model checker, with a mutant for each step that it must catch.

use super::{Owners, Shared};
use crate::descriptor::Handler;
use crate::irq::IrqContext;
use doorbell_test_support::with_allocations;
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use shuttle::thread;
use std::panic::catch_unwind;
use std::vec::Vec;

/// The count under the checker.
struct Sound(AtomicUsize);

impl Owners for Sound {
    fn one() -> Self {
        Self(AtomicUsize::new(1))
    }

    fn add(&self) {
        self.0.fetch_add(1, SeqCst);
    }

    fn remove(&self) -> bool {
        self.0.fetch_sub(1, SeqCst) == 1
    }
}

/// Takes one off in two steps.
struct TornRemove(Sound);

impl Owners for TornRemove {
    fn one() -> Self {
        Self(Sound::one())
    }

    fn add(&self) {
        self.0.add();
    }

    fn remove(&self) -> bool {
        let before = self.0.0.load(SeqCst);
        self.0.0.store(before - 1, SeqCst);
        before == 1
    }
}

/// Adds one in two steps.
struct TornAdd(Sound);

impl Owners for TornAdd {
    fn one() -> Self {
        Self(Sound::one())
    }

    fn add(&self) {
        let before = self.0.0.load(SeqCst);
        self.0.0.store(before + 1, SeqCst);
    }

    fn remove(&self) -> bool {
        self.0.remove()
    }
}

/// Reads the count after it took one off: the last two owners may both see zero.
struct LateLook(Sound);

impl Owners for LateLook {
    fn one() -> Self {
        Self(Sound::one())
    }

    fn add(&self) {
        self.0.add();
    }

    fn remove(&self) -> bool {
        self.0.0.fetch_sub(1, SeqCst);
        self.0.0.load(SeqCst) == 0
    }
}

/// A block without memory: what a mutant breaks is told, and not done.
struct Value<O> {
    owners: O,
    freed: AtomicBool,
}

impl<O: Owners> Value<O> {
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

/// Two owners use the value, pass it on and leave; the one that it was passed to uses it and
/// leaves.
fn owners_come_and_go<O: Owners + 'static>() {
    let value = Arc::new(Value { owners: O::one(), freed: AtomicBool::new(false) });
    value.owners.add();
    let owner = |value: Arc<Value<O>>| {
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

/// Tells when it is dropped.
struct Told(Arc<AtomicUsize>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// The same with memory.
fn a_shared_value_is_dropped_by_its_last_owner() {
    let drops = Arc::new(AtomicUsize::new(0));
    let first = Shared::<Told, Sound>::try_new(Told(drops.clone())).unwrap();
    let second = first.clone();
    let owner = |shared: Shared<Told, Sound>| {
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

const SCHEDULES: usize = 10_000;

fn is_caught(scenario: fn()) -> bool {
    catch_unwind(move || shuttle::check_random(scenario, 20 * SCHEDULES)).is_err()
}

#[test]
fn the_last_owner_frees_once() {
    shuttle::check_random(owners_come_and_go::<Sound>, SCHEDULES);
    shuttle::check_random(a_shared_value_is_dropped_by_its_last_owner, SCHEDULES);
}

#[test]
fn a_count_that_changes_in_two_steps_is_caught() {
    assert!(is_caught(owners_come_and_go::<TornRemove>));
    assert!(is_caught(owners_come_and_go::<TornAdd>));
    assert!(is_caught(owners_come_and_go::<LateLook>));
}

type Drops = Arc<std::sync::atomic::AtomicUsize>;

/// Counts its drops outside of the checker.
struct Counted(Drops);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
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
    let handler = Handler::try_handler(move |_: &IrqContext<'_>| drop(counted.0.clone())).unwrap();
    drop(handler.clone());
    assert_eq!(drops.load(SeqCst), 0);
    drop(handler);
    assert_eq!(drops.load(SeqCst), 1);
}
