//! What no implementation can be faster than.

use super::{Probe, Reference, each};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const OPERATIONS: u32 = 10_000;
/// The name of the eventfd's case.
pub(super) const EVENTFD: &str = "floor-eventfd-write";

/// An atomic read-modify-write that nobody else is interested in.
pub(super) fn fetch_or() -> f64 {
    let word = AtomicU64::new(0);
    let start = Instant::now();
    for bit in 0..OPERATIONS {
        std::hint::black_box(&word).fetch_or(1 << (bit % 64), Ordering::SeqCst);
    }
    each(start.elapsed(), OPERATIONS)
}

/// A file by which a thread is woken, if nobody reads it.
#[cfg(target_os = "linux")]
pub(super) struct EventFd(rustix::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl EventFd {
    pub(super) fn new() -> Result<Self, String> {
        let flags = rustix::event::EventfdFlags::NONBLOCK;
        rustix::event::eventfd(0, flags).map(Self).map_err(|error| error.to_string())
    }

    pub(super) fn signal(&self) {
        // It fails at 2^64 unread signals.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) struct EventFd;

#[cfg(not(target_os = "linux"))]
impl EventFd {
    pub(super) fn new() -> Result<Self, String> {
        Err("eventfds are Linux's".to_owned())
    }

    pub(super) fn signal(&self) {}
}

/// Writing to an eventfd.
pub(super) fn eventfd() -> Result<Probe, (&'static str, String)> {
    let file = EventFd::new().map_err(|reason| (EVENTFD, reason))?;
    Ok(Probe::new(EVENTFD, Reference::FetchOr, move || {
        let repeats = 256;
        let start = Instant::now();
        (0..repeats).for_each(|_| file.signal());
        Ok(each(start.elapsed(), repeats))
    }))
}
