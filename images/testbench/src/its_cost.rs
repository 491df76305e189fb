//! Counts the drivers' ITS register accesses and the commands that they post.

use core::ops::Sub;
use core::sync::atomic::{AtomicU64, Ordering};
use gic_arch::gits;
use gic_driver::{Mmio, RawMmio};
use spin::Once;

static CWRITER_WRITES: AtomicU64 = AtomicU64::new(0);
static CREADR_READS: AtomicU64 = AtomicU64::new(0);
static ACCESSES: AtomicU64 = AtomicU64::new(0);
static COMMANDS: AtomicU64 = AtomicU64::new(0);
static LAST_SLOT: AtomicU64 = AtomicU64::new(0);
static ITS: Once<(u64, u64)> = Once::new();

/// Starts counting at the ITS with its control frame at `base` and `slots` slots in its queue.
pub(crate) fn watch(base: u64, slots: u64) {
    ITS.call_once(|| (base, slots));
}

/// Values of the counters, or differences of two values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ItsCost {
    pub(crate) commands: u64,
    /// Number of writes to CWRITER.
    pub(crate) writes: u64,
    /// Number of reads of CREADR.
    pub(crate) reads: u64,
    /// Number of accesses to all registers of the control frame, including CWRITER and CREADR.
    pub(crate) accesses: u64,
}

impl ItsCost {
    /// Returns the current values.
    pub(crate) fn now() -> Self {
        Self {
            commands: COMMANDS.load(Ordering::Relaxed),
            writes: CWRITER_WRITES.load(Ordering::Relaxed),
            reads: CREADR_READS.load(Ordering::Relaxed),
            accesses: ACCESSES.load(Ordering::Relaxed),
        }
    }
}

impl Sub for ItsCost {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            commands: self.commands - before.commands,
            writes: self.writes - before.writes,
            reads: self.reads - before.reads,
            accesses: self.accesses - before.accesses,
        }
    }
}

impl core::fmt::Display for ItsCost {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { commands, writes, reads, accesses } = self;
        write!(
            f,
            "{commands} commands, {writes} CWRITER writes, {reads} CREADR reads, {accesses} \
             accesses"
        )
    }
}

/// A mapped frame that counts accesses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    raw: RawMmio,
    base: u64,
}

impl Counted {
    pub(crate) fn new(raw: RawMmio, base: u64) -> Self {
        Self { raw, base }
    }

    fn note_read(&self, offset: u32) {
        if self.slots().is_none() {
            return;
        }
        ACCESSES.fetch_add(1, Ordering::Relaxed);
        if offset == gits::CREADR.offset() {
            CREADR_READS.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn note_write(&self, offset: u32, value: u64) {
        let Some(slots) = self.slots() else { return };
        ACCESSES.fetch_add(1, Ordering::Relaxed);
        if offset == gits::CWRITER.offset() {
            CWRITER_WRITES.fetch_add(1, Ordering::Relaxed);
            let slot = value >> 5;
            let last = LAST_SLOT.swap(slot, Ordering::Relaxed);
            COMMANDS.fetch_add((slot + slots - last) % slots, Ordering::Relaxed);
        }
    }

    /// Returns the number of slots of the command queue, if this is the frame of the counted ITS.
    fn slots(&self) -> Option<u64> {
        ITS.get().filter(|(base, _)| *base == self.base).map(|(_, slots)| *slots)
    }
}

impl Mmio for Counted {
    fn read32(&self, offset: u32) -> u32 {
        self.note_read(offset);
        self.raw.read32(offset)
    }

    fn write32(&self, offset: u32, value: u32) {
        self.note_write(offset, value.into());
        self.raw.write32(offset, value);
    }

    fn read64(&self, offset: u32) -> u64 {
        self.note_read(offset);
        self.raw.read64(offset)
    }

    fn write64(&self, offset: u32, value: u64) {
        self.note_write(offset, value);
        self.raw.write64(offset, value);
    }

    fn write8(&self, offset: u32, value: u8) {
        self.raw.write8(offset, value);
    }
}
