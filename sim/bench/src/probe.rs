//! A measured case, with its reference and its samples.

use crate::measurements::FETCH_OR;
use std::error::Error;
use std::thread;
use std::time::Duration;

/// The outcome of an operation that can fail in any of the measured crates.
pub(crate) type Fallible<T> = Result<T, Box<dyn Error>>;

/// The reason why the measurement failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// A case failed while being measured.
    #[error("{0} cannot be measured: {1}")]
    Case(String, String),
}

/// Adds the case's name to its error.
pub(crate) fn named<T>(name: &str, outcome: Fallible<T>) -> Result<T, MeasureError> {
    outcome.map_err(|error| MeasureError::Case(name.to_owned(), error.to_string()))
}

/// A case that is being measured.
pub(crate) struct Probe {
    pub(crate) name: String,
    /// Name of the case that this one is compared with. If that case isn't measured, this one is
    /// compared with an uncontended `fetch_or` in the L1 cache.
    pub(crate) of: &'static str,
    pub(crate) sample: Box<dyn FnMut() -> Fallible<f64>>,
    samples: Vec<f64>,
}

impl Probe {
    /// Creates a case. `sample` must return the nanoseconds per operation.
    pub(crate) fn new(
        name: impl Into<String>,
        of: &'static str,
        sample: impl FnMut() -> Fallible<f64> + 'static,
    ) -> Self {
        Self { name: name.into(), of, sample: Box::new(sample), samples: Vec::new() }
    }

    pub(crate) fn take(&mut self) -> Result<(), MeasureError> {
        // A new time slice makes it less likely that another process interrupts the sample, which
        // would make the sample worthless.
        thread::yield_now();
        self.samples.push(named(&self.name, (self.sample)())?);
        Ok(())
    }

    pub(crate) fn median(mut self) -> f64 {
        self.samples.sort_unstable_by(f64::total_cmp);
        self.samples.get(self.samples.len() / 2).copied().unwrap_or(0.0)
    }
}

/// Creates a case that is compared only with `fetch_or`.
pub(crate) fn floor(name: &str, sample: impl FnMut() -> Fallible<f64> + 'static) -> Probe {
    Probe::new(name, FETCH_OR, sample)
}

/// Returns the nanoseconds per operation.
pub(crate) fn each(time: Duration, operations: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(operations.max(1))
}
