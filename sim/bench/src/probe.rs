//! A measured case, with its reference and its samples.

use crate::measurements::FETCH_OR;
use crate::neighbor::Neighbor;
use doorbell_machine::RunError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

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
    /// A driver failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// An embedded machine is unusable, which is a defect in this crate.
    #[error("the embedded machine {0} cannot be measured: {1}")]
    Machine(&'static str, String),
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

    pub(crate) fn take(&mut self, neighbor: &mut Neighbor) -> Result<(), MeasureError> {
        // A new time slice makes it less likely that another process interrupts the sample, which
        // would make the sample worthless.
        thread::yield_now();
        let time = neighbor
            .without(&mut self.sample)
            .map_err(|reason| MeasureError::Case(self.name.clone(), reason))?;
        self.samples.push(time);
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

/// A flag on its own cache line.
#[repr(align(128))]
struct Flag(AtomicU32);

/// Measures messages that another thread takes. Each message is sent once that thread has answered
/// the previous one by a flag.
pub(crate) fn across(
    send: impl Fn(),
    mut take: impl FnMut() -> bool + Send,
) -> Result<f64, String> {
    let (rounds, answered) = (256, Flag(AtomicU32::new(0)));
    thread::scope(|scope| {
        let taker = scope.spawn(|| {
            for round in 0..=rounds {
                wait_until(&mut take);
                answered.0.store(round + 1, Ordering::SeqCst);
            }
        });
        let send_to = |round| {
            send();
            wait_until(|| answered.0.load(Ordering::SeqCst) > round);
        };
        // The first round waits for the thread to start.
        send_to(0);
        let start = Instant::now();
        (1..=rounds).for_each(send_to);
        let time = each(start.elapsed(), rounds);
        taker.join().map(|()| time).map_err(|_| "the other thread panicked".to_owned())
    })
}

/// Spins, and yields at times, because both threads may share a CPU.
fn wait_until(mut done: impl FnMut() -> bool) {
    while !(0..4096).any(|_| done()) {
        thread::yield_now();
    }
}
