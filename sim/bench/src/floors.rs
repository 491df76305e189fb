//! Floors: the minimum work that any implementation has to do.

mod dispatch;
mod entry;
mod translation;
mod words;

pub(crate) use dispatch::DISPATCH;
pub(crate) use entry::{ENTER, VCPUS};
pub(crate) use translation::{
    SEND_TAKE, TRANSLATE, TRANSLATE_FRESH, TRANSLATE_MANY_FRESH, random_order,
};

use crate::probe::{Probe, Reference, each};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const OPERATIONS: u32 = 10_000;
/// Name of the eventfd case.
pub(crate) const EVENTFD: &str = "floor-eventfd-write";

/// Measures an uncontended atomic read-modify-write.
pub(crate) fn fetch_or() -> f64 {
    let word = AtomicU64::new(0);
    let start = Instant::now();
    for bit in 0..OPERATIONS {
        black_box(&word).fetch_or(1 << (bit % 64), Ordering::SeqCst);
    }
    each(start.elapsed(), OPERATIONS)
}

/// Returns the floors for Doorbell's own operations.
pub(crate) fn probes() -> Vec<Probe> {
    let mut probes = translation::probes();
    probes.extend([dispatch::probe(), entry::probe()]);
    probes
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
