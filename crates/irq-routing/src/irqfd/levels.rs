//! Pins asserted by eventfds. Each pin is driven under its own lock, so its level always reflects
//! the latest assertion or release.

use crate::sync::{Mutex, MutexGuard};
use crate::{MessageSink, Pin, Route, Router};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use msi_types::{Gsi, Level, Line};
use rustix::fd::AsFd;
use std::collections::HashMap;
use std::sync::PoisonError;

/// Pins and the sources that assert them.
#[derive(Default)]
pub(crate) struct Levels {
    /// A pin's entry is never removed.
    pins: Mutex<HashMap<Pin, Arc<Mutex<Assertions>>>>,
    /// All sources, whether or not they assert a pin.
    sources: Mutex<Vec<Weak<LevelSource>>>,
}

/// Sources that assert a pin.
type Assertions = Vec<Arc<LevelSource>>;

/// An eventfd that asserts a GSI's pin.
pub(crate) struct LevelSource {
    gsi: Gsi,
    resample: Box<dyn AsFd + Send + Sync>,
    /// The pin that the source last raised. The pin may have been lowered since then.
    raised: Mutex<Option<Pin>>,
}

impl LevelSource {
    pub(crate) fn new(gsi: Gsi, resample: impl AsFd + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { gsi, resample: Box::new(resample), raised: Mutex::default() })
    }

    /// Asks the device to signal again.
    fn resample(&self) {
        // This only fails if the counter is full, in which case the device has a signal to read
        // anyway.
        let _ = rustix::io::write(self.resample.as_fd(), &1u64.to_ne_bytes());
    }
}

impl Levels {
    /// Adds a source, so that [`resample_all`](Self::resample_all) includes it.
    pub(crate) fn add(&self, source: &Arc<LevelSource>) {
        let mut sources = lock(&self.sources);
        sources.retain(|source| source.strong_count() > 0);
        sources.push(Arc::downgrade(source));
    }

    /// Lowers the pins of all sources and signals all resample eventfds.
    pub(crate) fn resample_all(&self, router: &Router) {
        let sources: Vec<_> = lock(&self.sources).iter().filter_map(Weak::upgrade).collect();
        for source in &sources {
            let now = match router.route(source.gsi) {
                Some(Route::Pin(pin)) => Some(pin),
                Some(Route::Message(_)) | None => None,
            };
            // The GSI may have been rerouted since the source raised its pin.
            let raised = lock(&source.raised).take().filter(|raised| Some(*raised) != now);
            for pin in now.into_iter().chain(raised) {
                let assertions = self.ensure(pin);
                let mut assertions = lock(&assertions);
                assertions.clear();
                router.drive(pin, Level::Low);
            }
        }
        for source in &sources {
            source.resample();
        }
    }

    /// Serves a source's signal: raises its GSI's pin or sends the GSI's message. If the GSI has
    /// been rerouted since the last signal, the source releases its former pin.
    pub(crate) fn signal(&self, router: &Router, source: &Arc<LevelSource>) {
        let pin = match router.route(source.gsi) {
            Some(Route::Pin(pin)) => Some(pin),
            Some(Route::Message(message)) => {
                let _ = router.signal_msi(message);
                None
            }
            None => None,
        };
        let before = core::mem::replace(&mut *lock(&source.raised), pin);
        if let Some(before) = before.filter(|_| before != pin) {
            self.release(router, before, source);
        }
        if let Some(pin) = pin {
            self.raise(router, pin, source);
        }
    }

    /// Releases the pin that a source asserts.
    pub(crate) fn end(&self, router: &Router, source: &Arc<LevelSource>) {
        let raised = lock(&source.raised).take();
        if let Some(pin) = raised {
            self.release(router, pin, source);
        }
    }

    fn raise(&self, router: &Router, pin: Pin, source: &Arc<LevelSource>) {
        let assertions = self.ensure(pin);
        let mut assertions = lock(&assertions);
        if assertions.iter().all(|assertion| !Arc::ptr_eq(assertion, source)) {
            assertions.push(source.clone());
        }
        router.drive(pin, Level::High);
    }

    /// Removes a source from a pin's assertions, and lowers the pin if no other source asserts it.
    fn release(&self, router: &Router, pin: Pin, source: &Arc<LevelSource>) {
        let Some(assertions) = self.of(pin) else { return };
        let mut assertions = lock(&assertions);
        let before = assertions.len();
        assertions.retain(|assertion| !Arc::ptr_eq(assertion, source));
        if before > 0 && assertions.is_empty() {
            router.drive(pin, Level::Low);
        }
    }

    /// Lowers an ended interrupt's line and signals its sources' resample eventfds.
    pub(crate) fn resample(&self, router: &Router, line: Line) {
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
        for source in &asked {
            source.resample();
        }
    }

    fn of(&self, pin: Pin) -> Option<Arc<Mutex<Assertions>>> {
        lock(&self.pins).get(&pin).cloned()
    }

    fn ensure(&self, pin: Pin) -> Arc<Mutex<Assertions>> {
        lock(&self.pins).entry(pin).or_default().clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
