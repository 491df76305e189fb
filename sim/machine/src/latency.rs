//! Latency measurement, from a device's write to the start of its handler.

use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::ledger::MessageTimes;

/// log2 of the number of bins per power of two. With 16 bins, a percentile is at most 1/16 too
/// high.
const STEPS_LOG2: u32 = 4;
/// Number of bins that cover all 64-bit numbers.
const BINS: usize = (64 - STEPS_LOG2 as usize + 1) << STEPS_LOG2;

/// Distribution of latencies. The latency of a message is the time from the device's write to the
/// start of the handler run that found the message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// Number of messages that handlers found.
    pub messages: u64,
    /// The median, in nanoseconds.
    pub p50: u64,
    /// The 99th percentile, in nanoseconds.
    pub p99: u64,
    /// Upper limit (in nanoseconds) and message count of each bin, in ascending order. Empty bins
    /// are omitted.
    #[serde(skip)]
    pub bins: Vec<(u64, u64)>,
}

impl Latency {
    /// Combines the latencies of several devices. Returns `None` if there are no messages.
    pub fn of_all<'a>(all: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut bins = std::collections::BTreeMap::<u64, u64>::new();
        for (limit, count) in all.into_iter().flat_map(|one| &one.bins) {
            *bins.entry(*limit).or_default() += count;
        }
        Self::of(bins.into_iter().collect())
    }

    fn of(bins: Vec<(u64, u64)>) -> Option<Self> {
        let messages = bins.iter().map(|(_, count)| count).sum();
        let percentile = |percent: u64| {
            let mut below = 0;
            let bin = bins.iter().find(|(_, count)| {
                below += count;
                u128::from(below) * 100 >= u128::from(messages) * u128::from(percent)
            });
            bin.map(|(limit, _)| *limit)
        };
        Some(Self { messages, p50: percentile(50)?, p99: percentile(99)?, bins })
    }
}

/// Number of messages in each bin.
#[derive(Debug)]
pub(crate) struct LatencyCounts(Box<[AtomicU64]>);

impl LatencyCounts {
    pub(crate) fn new() -> Self {
        Self((0..BINS).map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn add(&self, nanoseconds: u64) {
        if let Some(count) = self.0.get(bin(nanoseconds)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the latencies; `None` if no handler found a message.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed)).enumerate();
        Latency::of(counts.filter(|(_, count)| *count > 0).map(|(i, n)| (limit(i), n)).collect())
    }
}

/// Returns the index of a number's bin. Each of the first bins contains a single number.
fn bin(number: u64) -> usize {
    let octave = number.checked_ilog2().unwrap_or(0).saturating_sub(STEPS_LOG2);
    ((octave as usize) << STEPS_LOG2) + usize::try_from(number >> octave).unwrap_or(usize::MAX)
}

/// Returns the greatest number in a bin.
fn limit(bin: usize) -> u64 {
    let steps = 1_usize << STEPS_LOG2;
    let octave = (bin / steps).saturating_sub(1);
    let step = u64::try_from(bin - octave * steps).unwrap_or(0);
    ((u128::from(step + 1) << octave) - 1).try_into().unwrap_or(u64::MAX)
}

/// Stopwatch for the messages of one vector.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    start: Instant,
    sent_at: MessageTimes,
}

impl Stopwatch {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), sent_at: MessageTimes::new() }
    }

    /// Records that the device is about to write `message`.
    pub(crate) fn sending(&self, message: u64) {
        self.sent_at.set(message, self.now());
    }

    /// Counts the latencies of the messages that a handler has found.
    pub(crate) fn handling(&self, messages: std::ops::Range<u64>, counts: &LatencyCounts) {
        let now = self.now();
        for message in messages {
            counts.add(now.saturating_sub(self.sent_at.get(message)));
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_limit_of_a_bin_exceeds_a_number_by_at_most_a_sixteenth(number: u64) {
            let limit = limit(bin(number));
            prop_assert!(limit >= number && limit - number <= number / 16, "{number} {limit}");
            prop_assert_eq!(bin(limit), bin(number));
            prop_assert!(limit == u64::MAX || bin(limit + 1) == bin(limit) + 1);
            prop_assert!(bin(number) < BINS);
        }
    }

    #[test]
    fn small_latencies_have_exact_bins() {
        for number in 0..32 {
            assert_eq!(limit(bin(number)), number);
        }
        assert_eq!((bin(u64::MAX), limit(BINS - 1)), (BINS - 1, u64::MAX));
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let counts = LatencyCounts::new();
        assert_eq!(counts.latency(), None);
        (1..=10).for_each(|number| counts.add(number));
        let latency = counts.latency().expect("ten messages");
        assert_eq!((latency.messages, latency.p50, latency.p99), (10, 5, 10));
        let both = Latency::of_all([&latency, &latency]).expect("twenty messages");
        assert_eq!((both.messages, both.p50, both.p99), (20, 5, 10));
        assert_eq!(both.bins.len(), 10);
    }
}
