//! Pins that eventfds hold high. A pin is driven under its own lock, so that its level is what the
//! last change of its holders says.

use crate::{Pin, Router};
use alloc::sync::Arc;
use alloc::vec::Vec;
use msi_types::{Level, Line};
use rustix::fd::OwnedFd;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Pins and the sources that hold them high. Pins that were ever held keep their entry.
#[derive(Default)]
pub(super) struct Levels(Mutex<HashMap<Pin, Arc<Mutex<Holders>>>>);

type Holders = Vec<Holder>;

struct Holder {
    token: u64,
    resample: Arc<OwnedFd>,
}

impl Levels {
    /// A source holds the pin high.
    pub(super) fn raise(&self, router: &Router, pin: Pin, token: u64, resample: &Arc<OwnedFd>) {
        let holders = lock(&self.0).entry(pin).or_default().clone();
        let mut holders = lock(&holders);
        if holders.iter().all(|holder| holder.token != token) {
            holders.push(Holder { token, resample: resample.clone() });
        }
        router.drive(pin, Level::High);
    }

    /// A source that may hold the pin high does so no more.
    pub(super) fn release(&self, router: &Router, pin: Pin, token: u64) {
        let Some(holders) = self.of(pin) else { return };
        let mut holders = lock(&holders);
        let before = holders.len();
        holders.retain(|holder| holder.token != token);
        if before > 0 && holders.is_empty() {
            router.drive(pin, Level::Low);
        }
    }

    /// The guest is done with a line: it is lowered, and its holders are asked to signal again.
    pub(super) fn resample(&self, router: &Router, line: Line) {
        let pin = match line {
            Line::Spi(intid) => Pin::of_spi(intid).ok(),
            Line::Ppi { .. } => None,
        };
        let Some((pin, holders)) = pin.and_then(|pin| Some((pin, self.of(pin)?))) else { return };
        let asked = {
            let mut holders = lock(&holders);
            if !holders.is_empty() {
                router.drive(pin, Level::Low);
            }
            core::mem::take(&mut *holders)
        };
        for holder in asked {
            // It fails only if 2^64 signals were not read, which wakes the device as well.
            let _ = rustix::io::write(&holder.resample, &1u64.to_ne_bytes());
        }
    }

    fn of(&self, pin: Pin) -> Option<Arc<Mutex<Holders>>> {
        lock(&self.0).get(&pin).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
