//! Commands that an ITS refused.

use super::error::QueueError;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::Range;
use gic_arch::its::{Command, RawCommand};

/// Number of refused commands that are kept until their callers ask.
const REMEMBERED_FAULTS: usize = 16;

/// Commands that the ITS refused, kept until their callers ask.
#[derive(Debug)]
pub(crate) struct Faults {
    known: Vec<(u64, RawCommand)>,
    /// Covers commands that found no room: a caller that waits for one of these numbers gets an
    /// unspecific failure.
    forgotten: Range<u64>,
}

impl Faults {
    pub(crate) fn new() -> Result<Self, TryReserveError> {
        let mut known = Vec::new();
        known.try_reserve_exact(REMEMBERED_FAULTS)?;
        Ok(Self { known, forgotten: 0..0 })
    }

    pub(crate) fn push(&mut self, sequence: u64, raw: RawCommand) {
        // Sequence numbers only grow, so the first is the oldest.
        if self.known.len() == REMEMBERED_FAULTS {
            let (oldest, _) = self.known.remove(0);
            if self.forgotten.is_empty() {
                self.forgotten.start = oldest;
            }
            self.forgotten.end = oldest + 1;
        }
        self.known.push((sequence, raw));
    }

    /// Reports the first fault in `span`, and removes all of them.
    pub(crate) fn take(&mut self, span: &Range<u64>) -> Result<(), QueueError> {
        let overlaps = self.forgotten.start < span.end && span.start < self.forgotten.end;
        let first =
            self.known.iter().find(|(sequence, _)| span.contains(sequence)).map(|(_, raw)| *raw);
        self.known.retain(|(sequence, _)| !span.contains(sequence));
        match first {
            Some(raw) => Err(QueueError::Stalled(Command::decode(raw).ok())),
            None if overlaps => Err(QueueError::Stalled(None)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: RawCommand = [0x05, 0, 0, 0];

    #[test]
    fn fault_is_reported_once_to_its_span() {
        let mut faults = Faults::new().unwrap();
        faults.push(7, RAW);
        assert_eq!(faults.take(&(0..7)), Ok(()));
        assert_eq!(faults.take(&(8..9)), Ok(()));
        assert_eq!(faults.take(&(5..9)), Err(QueueError::Stalled(Command::decode(RAW).ok())));
        assert_eq!(faults.take(&(5..9)), Ok(()));
    }

    #[test]
    fn dropped_fault_is_still_reported() {
        let mut faults = Faults::new().unwrap();
        for sequence in 0..100 {
            faults.push(sequence, RAW);
        }
        assert_eq!(faults.take(&(3..4)), Err(QueueError::Stalled(None)));
        assert_eq!(faults.take(&(99..100)), Err(QueueError::Stalled(Command::decode(RAW).ok())));
        assert_eq!(faults.take(&(100..200)), Ok(()));
    }
}
