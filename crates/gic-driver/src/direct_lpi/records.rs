//! What is remembered of each LPI that is handed out: where its message goes, and where it may be pending.

use super::ResendReason;
use super::holders::Holders;
use crate::{IrqLock, Platform};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use gic_arch::Lpi;
use msi_types::{Cpu, Fit};
use spin::Once;

/// LPIs per chunk of memory.
const CHUNK: usize = 256;

/// An LPI that is handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Record {
    /// Where its message goes.
    pub(super) target: Cpu,
    /// Where it will go, between `begin_move` and `end_move`.
    pub(super) moving: Option<Cpu>,
    /// Where it may be pending: both of these among them.
    pub(super) holders: Holders,
    /// The first of those that move together with it.
    pub(super) first: Lpi,
    /// How many they are.
    pub(super) count: NonZeroU16,
    /// What the endpoint can hold, and how it is rewritten.
    pub(super) fit: Fit,
    /// Set pending by software while its target was off.
    pub(super) owed: Owed,
    /// Part of a drain that is under way, see [`DirectLpi::drain`](super::DirectLpi::drain).
    pub(super) drain: Drain,
    /// Redistributors that slept when it was handed out, at which the last owner's device may have made it pending.
    pub(super) stale: Holders,
}

/// What has to be done once a redistributor that sleeps is awake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owed {
    Nothing,
    /// The target has to be told that it is pending, for this reason.
    SetPending(ResendReason),
    /// It was taken back, but may be pending at a holder that sleeps: nobody gets it before that is cleared.
    Retirement,
}

/// Is the LPI watched by a drain?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Drain {
    No,
    /// It was enabled and undisturbed since the drain at this CPU began.
    Watched(Cpu),
}

#[derive(Default)]
struct Entry {
    record: Option<Record>,
    /// Where the messages of the last owner's device went.
    last: Holders,
}

type Slot = IrqLock<Entry>;

/// Records by LPI. The memory is provided in chunks, when LPIs are first handed out.
pub(super) struct Records {
    chunks: Box<[Once<Box<[Slot]>>]>,
}

impl Records {
    /// For the `count` lowest LPIs.
    pub(super) fn new(count: u32) -> Self {
        let mut chunks = Vec::new();
        chunks.resize_with((count as usize).div_ceil(CHUNK), Once::new);
        Self { chunks: chunks.into_boxed_slice() }
    }

    /// Remembers an LPI. Answers where the messages of its last owner's device went. Task.
    pub(super) fn insert<P: Platform>(&self, platform: &P, lpi: Lpi, record: Record) -> Holders {
        let (chunk, index) = place(lpi);
        let chunk = self.chunks.get(chunk);
        let slots = chunk.map(|chunk| chunk.call_once(|| (0..CHUNK).map(|_| Slot::default()).collect()));
        let Some(slot) = slots.and_then(|slots| slots.get(index)) else { return Holders::NONE };
        slot.with(platform, |entry| {
            entry.record = Some(record);
            entry.last
        })
    }

    /// Forgets it, and answers it. Any.
    pub(super) fn remove<P: Platform>(&self, platform: &P, lpi: Lpi) -> Option<Record> {
        self.slot(lpi)?.with(platform, |entry| {
            let record = entry.record.take()?;
            let target = Holders::only(record.target);
            entry.last = record.moving.map_or(target, |to| target.with(to));
            Some(record)
        })
    }

    /// A copy of the record; `None` if the LPI is not handed out here. Any.
    pub(super) fn get<P: Platform>(&self, platform: &P, lpi: Lpi) -> Option<Record> {
        self.update(platform, lpi, |record| *record)
    }

    /// Changes the record. Any.
    pub(super) fn update<P: Platform, R>(
        &self,
        platform: &P,
        lpi: Lpi,
        change: impl FnOnce(&mut Record) -> R,
    ) -> Option<R> {
        self.slot(lpi)?.with(platform, |entry| entry.record.as_mut().map(change))
    }

    /// Looks at each record once; those that come and go meanwhile may be missed. Task.
    pub(super) fn for_each<P: Platform>(&self, platform: &P, mut look: impl FnMut(Lpi, &mut Record)) {
        for (number, chunk) in self.chunks.iter().enumerate() {
            for (index, slot) in chunk.get().into_iter().flatten().enumerate() {
                let Some(lpi) = lpi_at(number, index) else { continue };
                slot.with(platform, |entry| entry.record.as_mut().map(|record| look(lpi, record)));
            }
        }
    }

    fn slot(&self, lpi: Lpi) -> Option<&Slot> {
        let (chunk, index) = place(lpi);
        self.chunks.get(chunk)?.get()?.get(index)
    }
}

fn place(lpi: Lpi) -> (usize, usize) {
    let index = lpi.index() as usize;
    (index / CHUNK, index % CHUNK)
}

fn lpi_at(chunk: usize, index: usize) -> Option<Lpi> {
    Lpi::from_index(u32::try_from(chunk * CHUNK + index).ok()?)
}
