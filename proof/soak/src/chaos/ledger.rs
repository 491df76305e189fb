//! The record of signals and handlings.

use crate::guest::Guest;
use gic_arch::IntId;
use msi_types::{Cpu, Line};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

/// How a source signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    /// An edge on a line.
    Pulse(Line),
    /// A level, which the handler lowers.
    Level(Line),
    /// The level of a physical input that is linked to the line. The handler lowers the input.
    Linked(Line),
    /// A write to `GICD_SETSPI_NSR`.
    Spi,
    /// A message to an ITS.
    Event { its: usize, device: u32, event: u32 },
    /// A write to `GICR_SETLPIR`.
    Lpi,
    /// A write to `ICC_SGI1R_EL1`, by the vCPUs.
    Sgi,
}

/// A source of an interrupt.
pub(crate) struct Source {
    pub(crate) signal: Signal,
    pub(crate) intid: u32,
    /// The CPU of a private interrupt or of a direct LPI.
    pub(crate) cpu: Option<usize>,
    /// Number of the last signal. The handler reads it without ordering, because the interrupt
    /// itself must order the accesses.
    number: AtomicU64,
    /// The highest number that a handler has read.
    seen: AtomicU64,
    handled: AtomicU64,
    /// Makes the number and the level of a line change together.
    level: Mutex<()>,
}

impl Source {
    pub(crate) fn new(signal: Signal, intid: u32, cpu: Option<usize>) -> Self {
        let zero = || AtomicU64::new(0);
        let (number, seen, handled) = (zero(), zero(), zero());
        Self { signal, intid, cpu, number, seen, handled, level: Mutex::new(()) }
    }

    /// Numbers the next signal. `raise` makes it.
    pub(crate) fn raise<T>(&self, raise: impl FnOnce() -> T) -> T {
        let _level = self.has_level().then(|| self.level.lock().unwrap());
        self.number.fetch_add(1, Relaxed);
        raise()
    }

    fn has_level(&self) -> bool {
        matches!(self.signal, Signal::Level(_) | Signal::Linked(_))
    }

    /// Handles an acknowledged interrupt. `lower` removes the cause of a level.
    fn handle(&self, lower: impl FnOnce()) {
        self.handled.fetch_add(1, SeqCst);
        if self.has_level() {
            let _level = self.level.lock().unwrap();
            lower();
            self.seen.fetch_max(self.number.load(Relaxed), SeqCst);
        } else {
            self.seen.fetch_max(self.number.load(Relaxed), SeqCst);
        }
    }

    fn is_unseen(&self) -> bool {
        self.seen.load(SeqCst) < self.number.load(SeqCst)
    }
}

/// All sources.
pub(crate) struct Ledger {
    pub(crate) sources: Vec<Source>,
    /// Sources that vCPUs signal.
    pub(crate) sgis: Vec<Source>,
}

impl Ledger {
    fn all(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().chain(&self.sgis)
    }

    /// Handles the interrupt that a CPU has acknowledged. `lower` removes the cause of a level.
    pub(crate) fn handle(&self, cpu: usize, intid: u32, lower: impl FnOnce(&Source)) {
        let is_here = |source: &&Source| {
            source.intid == intid && source.cpu.is_none_or(|target| target == cpu)
        };
        match self.all().find(is_here) {
            Some(source) => source.handle(|| lower(source)),
            None => panic!("CPU {cpu} acknowledged {intid}, which no source signals there"),
        }
    }

    /// Returns the number of signals.
    pub(crate) fn sent(&self) -> u64 {
        self.all().map(|source| source.number.load(SeqCst)).sum()
    }

    /// Returns the number of handlings.
    pub(crate) fn handled(&self) -> u64 {
        self.all().map(|source| source.handled.load(SeqCst)).sum()
    }

    /// Checks that no source has more handlings than signals.
    pub(crate) fn judge(&self) {
        for source in self.all() {
            let (handled, sent) = (source.handled.load(SeqCst), source.number.load(SeqCst));
            let Source { signal, intid, cpu, .. } = source;
            assert!(
                handled <= sent,
                "{signal:?}, INTID {intid}, CPU {cpu:?}: {handled} handlings of {sent} signals"
            );
        }
    }

    /// Returns a function that describes signals without a handling, if any.
    pub(crate) fn unseen<'a>(&'a self, guest: &'a Guest) -> Option<impl Fn() -> String + 'a> {
        self.all().any(Source::is_unseen).then_some(move || {
            let mut text = String::new();
            for source in self.all().filter(|source| source.is_unseen()) {
                let Source { signal, intid, cpu, number, seen, handled, .. } = source;
                let _ = writeln!(
                    text,
                    "{signal:?}, INTID {intid}, CPU {cpu:?}: sent {number:?}, seen {seen:?}, \
                     {handled:?} handlings"
                );
                for cpu in 0..guest.cpus() {
                    let cpu = Cpu::new(u32::try_from(cpu).unwrap_or(0));
                    let why = guest.gic.explain_interrupt(cpu, IntId::new(*intid));
                    let _ = writeln!(text, "CPU {cpu}: {why}");
                }
            }
            let _ = writeln!(text, "{:#?}", guest.gic);
            text
        })
    }
}
