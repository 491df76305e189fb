//! Floors for injection and acknowledgment, on arrays with the model's sizes and strides. The
//! floors perform only the loads and read-modify-writes that no GIC model can omit.
//!
//! | floor | loads | read-modify-writes |
//! |---|---|---|
//! | a message to a pending event | the device's word, the event's word | the event's word |
//! | a message to an event that is not | the same | the event's word, its ready bit |
//! | that, and its acknowledgment | the same, the ready bits, the event's word | the event's word, its ready bit; the ready bit, the event's word |
//!
//! The event's word is exchanged even if the event is already pending, because without that
//! exchange, the sender's earlier writes would not be ordered before the handler that must see
//! them. The floors do not support levels, groups, targets, unmapping or notification.

use super::words::{clear, exchange, load, zeros};
use crate::probe::{Fallible, Probe, each, floor};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A message to one event that is already pending.
pub(crate) const TRANSLATE: &str = "floor-translate-1";
/// Messages to 64 events, none of them pending.
pub(crate) const TRANSLATE_FRESH: &str = "floor-translate-64-fresh";
/// Messages to 65,536 events in random order, none of them pending.
pub(crate) const TRANSLATE_MANY_FRESH: &str = "floor-translate-64k-fresh";
/// A message to an event that isn't pending, and its acknowledgment.
pub(crate) const SEND_TAKE: &str = "floor-send-take";

const OPERATIONS: u32 = 8192;
const DEVICES: u32 = 2048;
const EVENTS: u32 = 32;
/// Number of words for DeviceIDs.
const DEVICE_IDS: u32 = 1 << 16;
/// Number of words for events, which equals the model's default budget of mapped events.
const EVENT_WORDS: u32 = 1 << 17;
/// Number of words in a page. The words of one device's events are [`STRIDE`] words apart in the
/// page.
const PAGE: u32 = 512;
const STRIDE: u32 = 16;

const VALID: u64 = 1 << 63;
const PENDING: u64 = 1 << 63;

/// Number of words that hold the ready bits of a device's 64 events.
const FEW_READY_WORDS: usize = (64 * STRIDE / 64) as usize;

/// Bit position of the number of events in a device's word. The bits below hold the index of the
/// device's first event.
const EVENTS_SHIFT: u32 = 32;

/// The mapped events.
struct Translation {
    devices: Box<[AtomicU64]>,
    events: Box<[AtomicU64]>,
    ready: Box<[AtomicU64]>,
}

impl Translation {
    /// Creates `devices` devices with `events` events each; at most 65,536 events in total.
    fn new(devices: u32, events: u32) -> Self {
        let device_word = |device| {
            // The words between two events of one device belong to other devices in the page.
            let first = device / STRIDE * PAGE + device % STRIDE;
            VALID | u64::from(events) << EVENTS_SHIFT | u64::from(first)
        };
        let device_words = (0..DEVICE_IDS)
            .map(|device| AtomicU64::new(if device < devices { device_word(device) } else { 0 }));
        Self {
            devices: device_words.collect(),
            events: zeros(EVENT_WORDS),
            ready: zeros(EVENT_WORDS / 64),
        }
    }

    /// Sends a message. Returns `true` if the message made the event pending, `false` if the event
    /// already was.
    #[inline]
    fn send(&self, device: u32, event: u32) -> bool {
        self.try_send(device, event).unwrap_or(false)
    }

    #[inline]
    fn try_send(&self, device: u32, event: u32) -> Option<bool> {
        let found = load(self.devices.get(device as usize)?);
        if found & VALID == 0 || u64::from(event) >= found >> EVENTS_SHIFT & 0xffff {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the position is the low half")]
        let at = (found as u32).wrapping_add(event * STRIDE) as usize;
        let word = self.events.get(at)?;
        let seen = load(word);
        let fresh = exchange(word, seen, seen | PENDING) && seen & PENDING == 0;
        if fresh {
            self.ready.get(at / 64)?.fetch_or(1 << (at % 64), Ordering::SeqCst);
        }
        Some(fresh)
    }

    /// Acknowledges the first event whose ready bit is set in this word.
    #[inline]
    fn take(&self, word: usize) -> Option<usize> {
        let ready = self.ready.get(word)?;
        let bits = load(ready);
        let bit = bits & bits.wrapping_neg();
        if bit == 0 {
            return None;
        }
        clear(ready, bit);
        let at = word * 64 + bit.trailing_zeros() as usize;
        let event = self.events.get(at)?;
        let seen = load(event);
        (exchange(event, seen, seen & !PENDING) && seen & PENDING != 0).then_some(at)
    }

    /// Clears all pending events.
    fn clear(&self) {
        self.events.iter().for_each(|word| clear(word, PENDING));
        self.ready.iter().for_each(|word| clear(word, u64::MAX));
    }

    /// Sends a message to each of these events, and returns how many were not yet pending.
    fn send_all(&self, order: &[(u32, u32)]) -> u32 {
        order.iter().map(|(device, event)| u32::from(self.send(*device, *event))).sum()
    }
}

/// Returns the events used by the model's cases, in the same order.
pub(crate) fn random_order(devices: u32, events: u32) -> Vec<(u32, u32)> {
    let mut order: Vec<_> =
        (0..devices).flat_map(|device| (0..events).map(move |event| (device, event))).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);
    order
}

/// Returns the floors.
pub(super) fn probes() -> Vec<Probe> {
    vec![one(), few_fresh(), many_fresh(), send_take()]
}

fn counted(time: f64, found: u32, expected: u32) -> Fallible<f64> {
    if found == expected {
        Ok(time)
    } else {
        Err(format!("{found} of {expected} messages had the expected effect").into())
    }
}

fn one() -> Probe {
    let translation = Translation::new(1, 2);
    floor(TRANSLATE, move || {
        let to = black_box(&translation);
        let _ = to.send(0, 0);
        let start = Instant::now();
        let fresh: u32 = (0..OPERATIONS).map(|_| u32::from(to.send(0, 0))).sum();
        counted(each(start.elapsed(), OPERATIONS), fresh, 0)
    })
}

fn few_fresh() -> Probe {
    let translation = Translation::new(1, 64);
    floor(TRANSLATE_FRESH, move || {
        let to = black_box(&translation);
        let (mut spent, mut fresh) = (Duration::ZERO, 0);
        for _ in 0..OPERATIONS / 64 {
            (0..FEW_READY_WORDS).for_each(|word| while to.take(word).is_some() {});
            let start = Instant::now();
            fresh += (0..64).map(|event| u32::from(to.send(0, event))).sum::<u32>();
            spent += start.elapsed();
        }
        counted(each(spent, OPERATIONS), fresh, OPERATIONS)
    })
}

fn many_fresh() -> Probe {
    let translation = Translation::new(DEVICES, EVENTS);
    let order = random_order(DEVICES, EVENTS);
    floor(TRANSLATE_MANY_FRESH, move || {
        let to = black_box(&translation);
        to.clear();
        let start = Instant::now();
        let fresh = to.send_all(&order);
        counted(each(start.elapsed(), DEVICES * EVENTS), fresh, DEVICES * EVENTS)
    })
}

fn send_take() -> Probe {
    let translation = Translation::new(1, 2);
    floor(SEND_TAKE, move || {
        let to = black_box(&translation);
        let start = Instant::now();
        let both = |_| u32::from(to.send(0, 0)) & u32::from(to.take(0) == Some(0));
        let taken: u32 = (0..OPERATIONS).map(both).sum();
        counted(each(start.elapsed(), OPERATIONS), taken, OPERATIONS)
    })
}
