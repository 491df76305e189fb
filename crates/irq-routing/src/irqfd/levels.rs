//! Pins that eventfds assert. A pin is driven under its own lock, so that its level follows the
//! last change of its assertions.

use crate::{Pin, Router};
use alloc::sync::Arc;
use alloc::vec::Vec;
use msi_types::{Level, Line};
use rustix::fd::OwnedFd;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Pins and the sources that assert them. A pin that was ever asserted keeps its entry.
#[derive(Default)]
pub(super) struct Levels(Mutex<HashMap<Pin, Arc<Mutex<Assertions>>>>);

type Assertions = Vec<Assertion>;

/// A source that asserts a pin.
struct Assertion {
    token: u64,
    resample: Arc<OwnedFd>,
}

impl Levels {
    /// Raises a pin for a source.
    pub(super) fn raise(&self, router: &Router, pin: Pin, token: u64, resample: &Arc<OwnedFd>) {
        let assertions = lock(&self.0).entry(pin).or_default().clone();
        let mut assertions = lock(&assertions);
        if assertions.iter().all(|assertion| assertion.token != token) {
            assertions.push(Assertion { token, resample: resample.clone() });
        }
        router.drive(pin, Level::High);
    }

    /// Ends a source's assertion of a pin, if there is one. The last one lowers the pin.
    pub(super) fn release(&self, router: &Router, pin: Pin, token: u64) {
        let Some(assertions) = self.of(pin) else { return };
        let mut assertions = lock(&assertions);
        let before = assertions.len();
        assertions.retain(|assertion| assertion.token != token);
        if before > 0 && assertions.is_empty() {
            router.drive(pin, Level::Low);
        }
    }

    /// Lowers the line of an ended interrupt, and signals the resample eventfds of its sources.
    pub(super) fn resample(&self, router: &Router, line: Line) {
        let pin = match line {
            Line::Spi(intid) => Pin::of_spi(intid).ok(),
            Line::Ppi { .. } => None,
        };
        let Some((pin, assertions)) = pin.and_then(|pin| Some((pin, self.of(pin)?))) else {
            return;
        };
        let asked = {
            let mut assertions = lock(&assertions);
            if !assertions.is_empty() {
                router.drive(pin, Level::Low);
            }
            core::mem::take(&mut *assertions)
        };
        for assertion in asked {
            // The write fails only at 2^64 unread signals, which wake the device as well.
            let _ = rustix::io::write(&assertion.resample, &1u64.to_ne_bytes());
        }
    }

    fn of(&self, pin: Pin) -> Option<Arc<Mutex<Assertions>>> {
        lock(&self.0).get(&pin).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
