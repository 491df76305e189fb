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

use crate::probe::{Fallible, Probe, each, floor};
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
pub(crate) struct EventFd(#[cfg(target_os = "linux")] rustix::fd::OwnedFd);

impl EventFd {
    #[cfg(target_os = "linux")]
    pub(crate) fn new() -> Fallible<Self> {
        Ok(Self(rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)?))
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn new() -> Fallible<Self> {
        Err("eventfds are specific to Linux".into())
    }

    pub(crate) fn signal(&self) {
        // A write can only fail after 2^64 unread signals.
        #[cfg(target_os = "linux")]
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// Returns the probe for an eventfd write.
pub(crate) fn eventfd() -> Fallible<Probe> {
    let file = EventFd::new()?;
    Ok(floor(EVENTFD, move || {
        let repeats = 256;
        let start = Instant::now();
        (0..repeats).for_each(|_| file.signal());
        Ok(each(start.elapsed(), repeats))
    }))
}
