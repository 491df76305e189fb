//! Floors: the minimum work that any implementation has to do.

mod dispatch;
mod entry;
mod translation;

pub(crate) use dispatch::DISPATCH;
pub(crate) use entry::{ENTER, VCPUS};
pub(crate) use translation::{
    SEND_TAKE, SEND_TAKE_ACROSS, TRANSLATE, TRANSLATE_FRESH, TRANSLATE_MANY, TRANSLATE_MANY_FRESH,
    random_order,
};

use crate::probe::{Probe, Reference, each, floor};
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Instant;

const OPERATIONS: u32 = 10_000;
/// Name of the eventfd case.
pub(crate) const EVENTFD: &str = "floor-eventfd-write";

/// Measures an uncontended atomic read-modify-write.
pub(crate) fn fetch_or() -> f64 {
    let word = AtomicU64::new(0);
    timed(&|bit| _ = black_box(&word).fetch_or(1 << (bit % 64), Ordering::SeqCst))
}

/// Returns the floors for Doorbell's own operations, and the costs of locks and maps.
pub(crate) fn probes() -> Vec<Probe> {
    let mut probes = translation::probes();
    probes.extend([dispatch::probe(), entry::probe()]);
    probes.extend(locks_and_maps());
    probes
}

fn locks_and_maps() -> Vec<Probe> {
    let (mutex, lock) = (Mutex::new(0u64), RwLock::new(0u64));
    let (shared_word, shared_mutex, shared_lock) =
        (AtomicU64::new(0), Mutex::new(0u64), RwLock::new(0u64));
    let hashed: HashMap<u32, u32> = (0..MAPPED).map(|key| (key, key)).collect();
    let ordered: BTreeMap<u32, u32> = (0..MAPPED).map(|key| (key, key)).collect();
    let set = |word: &AtomicU64, bit: u32| {
        _ = black_box(word).fetch_or(1 << (bit % 64), Ordering::SeqCst);
    };
    let count = |mutex: &Mutex<u64>| *mutex.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    let read =
        |lock: &RwLock<u64>| _ = black_box(*lock.read().unwrap_or_else(PoisonError::into_inner));
    vec![
        floor("floor-fetch-or-2-threads", move || by_two(&|bit| set(&shared_word, bit))),
        floor("floor-mutex", move || Ok(timed(&|_| count(&mutex)))),
        floor("floor-mutex-2-threads", move || by_two(&|_| count(&shared_mutex))),
        floor("floor-rwlock-read", move || Ok(timed(&|_| read(&lock)))),
        floor("floor-rwlock-read-2-threads", move || by_two(&|_| read(&shared_lock))),
        floor("floor-hashmap-10k", move || Ok(timed(&|at| _ = black_box(hashed.get(&key(at)))))),
        floor("floor-btreemap-10k", move || Ok(timed(&|at| _ = black_box(ordered.get(&key(at)))))),
    ]
}

/// Number of entries in the maps.
const MAPPED: u32 = 10_000;

/// Returns the key that operation number `at` looks up. Successive operations use scattered keys.
fn key(at: u32) -> u32 {
    at.wrapping_mul(2_654_435_761) % MAPPED
}

fn timed(operation: &impl Fn(u32)) -> f64 {
    let start = Instant::now();
    (0..OPERATIONS).for_each(operation);
    each(start.elapsed(), OPERATIONS)
}

/// Measures the operation on two threads concurrently, and returns the mean cost per thread.
fn by_two(operation: &(impl Fn(u32) + Sync)) -> Result<f64, String> {
    let gate = AtomicU32::new(0);
    let run = || {
        gate.fetch_add(1, Ordering::SeqCst);
        while gate.load(Ordering::SeqCst) < 2 {
            std::hint::spin_loop();
        }
        timed(operation)
    };
    thread::scope(|scope| {
        let other = scope.spawn(run);
        let one = run();
        let other = other.join().map_err(|_| "the other thread panicked".to_owned())?;
        Ok(f64::midpoint(one, other))
    })
}

/// An eventfd without a reader, so that writing to it wakes no thread.
#[cfg(target_os = "linux")]
pub(crate) struct EventFd(rustix::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl EventFd {
    pub(crate) fn new() -> Result<Self, String> {
        let flags = rustix::event::EventfdFlags::NONBLOCK;
        rustix::event::eventfd(0, flags).map(Self).map_err(|error| error.to_string())
    }

    pub(crate) fn signal(&self) {
        // A write can only fail after 2^64 unread signals.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) struct EventFd;

#[cfg(not(target_os = "linux"))]
impl EventFd {
    pub(crate) fn new() -> Result<Self, String> {
        Err("eventfds are specific to Linux".to_owned())
    }

    pub(crate) fn signal(&self) {}
}

/// Returns the probe for an eventfd write.
pub(crate) fn eventfd() -> Result<Probe, (&'static str, String)> {
    let file = EventFd::new().map_err(|reason| (EVENTFD, reason))?;
    Ok(Probe::new(EVENTFD, Reference::FetchOr, move || {
        let repeats = 256;
        let start = Instant::now();
        (0..repeats).for_each(|_| file.signal());
        Ok(each(start.elapsed(), repeats))
    }))
}
