//! Runs independent pieces of work in parallel, one per CPU.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::{iter, thread};

/// Returns the number of workers of [`on_each_cpu`].
pub fn workers() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Returns the results of `work` in the order of `items`. `work` receives the index of its worker
/// (less than [`workers`]). Each worker processes one item at a time.
///
/// # Panics
/// `work` panicked.
pub fn on_each_cpu<I: Sync, O: Send>(items: &[I], work: impl Fn(usize, &I) -> O + Sync) -> Vec<O> {
    let queue = Mutex::new(items.iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work_off = |worker| {
        let done = iter::from_fn(next).map(|(index, item)| (index, work(worker, item)));
        done.collect::<Vec<_>>()
    };
    let mut outcomes = thread::scope(|scope| {
        let work_off = &work_off;
        let workers: Vec<_> =
            (0..workers()).map(|worker| scope.spawn(move || work_off(worker))).collect();
        let results =
            workers.into_iter().map(|worker| worker.join().expect("the worker did not panic"));
        results.flatten().collect::<Vec<_>>()
    });
    outcomes.sort_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}
