//! A measured case, with its reference and its samples.

use crate::measurements::FETCH_OR;
use std::thread;
use std::time::Duration;

/// The reference that a case's time is compared with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reference {
    /// An uncontended `fetch_or` in the L1 cache.
    FetchOr,
    /// Another case, or `fetch_or` if that case isn't measured.
    Case(&'static str),
}

impl Reference {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::FetchOr => FETCH_OR,
            Self::Case(name) => name,
        }
    }
}

/// The reason why the measurement failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// A case failed while being measured.
    #[error("{0} cannot be measured: {1}")]
    Case(String, String),
}

/// A case that is being measured.
pub(crate) struct Probe {
    pub(crate) name: String,
    pub(crate) of: Reference,
    pub(crate) sample: Box<dyn FnMut() -> Result<f64, String>>,
    samples: Vec<f64>,
}

impl Probe {
    /// Creates a case. `sample` must return the nanoseconds per operation.
    pub(crate) fn new(
        name: impl Into<String>,
        of: Reference,
        sample: impl FnMut() -> Result<f64, String> + 'static,
    ) -> Self {
        Self { name: name.into(), of, sample: Box::new(sample), samples: Vec::new() }
    }

    pub(crate) fn take(&mut self) -> Result<(), MeasureError> {
        // A new time slice makes it less likely that another process interrupts the sample, which
        // would make the sample worthless.
        thread::yield_now();
        let time = (self.sample)();
        self.samples.push(time.map_err(|reason| MeasureError::Case(self.name.clone(), reason))?);
        Ok(())
    }

    pub(crate) fn median(mut self) -> f64 {
        self.samples.sort_unstable_by(f64::total_cmp);
        self.samples.get(self.samples.len() / 2).copied().unwrap_or(0.0)
    }
}

/// Creates a case that is compared only with `fetch_or`.
pub(crate) fn floor(name: &str, sample: impl FnMut() -> Result<f64, String> + 'static) -> Probe {
    Probe::new(name, Reference::FetchOr, sample)
}

/// Returns the nanoseconds per operation.
pub(crate) fn each(time: Duration, operations: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(operations.max(1))
}
