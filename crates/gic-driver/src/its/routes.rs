//! From an LPI back to its event: what `mask` in a hard-IRQ handler needs.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use doorbell_fallible::try_collect;
use gic_arch::its::CollectionId;
use gic_arch::{IntId, Lpi};
use msi_types::{DeviceId, EventId};
use spin::Once;

/// LPIs per chunk.
const CHUNK: usize = 1024;
/// No event. Not a route, because collection 0xffff is never used.
const NONE: u64 = u64::MAX;

/// The event and the collection that an LPI is mapped from and to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EventRoute {
    pub(crate) device: DeviceId,
    pub(crate) event: u16,
    pub(crate) collection: CollectionId,
}

impl EventRoute {
    /// EventIDs have at most 16 bits here ([`super::device::MAX_EVENT_BITS`]).
    pub(crate) fn new(device: DeviceId, event: u16, collection: CollectionId) -> Self {
        Self { device, event, collection }
    }

    pub(crate) fn event_id(self) -> EventId {
        EventId::new(self.event.into())
    }

    fn pack(self) -> u64 {
        u64::from(self.device.get()) << 32
            | u64::from(self.event) << 16
            | u64::from(self.collection.get())
    }

    fn unpack(word: u64) -> Option<Self> {
        let [c0, c1, e0, e1, d0, d1, d2, d3] = word.to_le_bytes();
        (word != NONE).then(|| Self {
            device: DeviceId::new(u32::from_le_bytes([d0, d1, d2, d3])),
            event: u16::from_le_bytes([e0, e1]),
            collection: CollectionId::new(u16::from_le_bytes([c0, c1])),
        })
    }
}

/// Routes by LPI. One atomic word each, so that reading takes no lock; the memory is provided in
/// chunks, when LPIs are first mapped.
#[derive(Debug)]
pub(crate) struct EventRoutes {
    chunks: Vec<Once<Vec<AtomicU64>>>,
}

impl EventRoutes {
    /// For the LPIs of `id_bits` bits.
    pub(crate) fn new(id_bits: u8) -> Result<Self, TryReserveError> {
        let lpis = (1_usize << id_bits.min(31)).saturating_sub(Lpi::FIRST.intid().hwirq().index());
        let chunks = try_collect(core::iter::repeat_with(Once::new).take(lpis.div_ceil(CHUNK)))?;
        Ok(Self { chunks })
    }

    /// Allocates the memory for `count` LPIs from `first` on.
    ///
    /// Context: task; may sleep.
    pub(crate) fn reserve(&self, first: Lpi, count: u16) -> Result<(), TryReserveError> {
        let (first, _) = locate(first);
        let wanted = usize::from(count).div_ceil(CHUNK) + 1;
        for chunk in self.chunks.iter().skip(first).take(wanted) {
            chunk.try_call_once(|| try_collect((0..CHUNK).map(|_| AtomicU64::new(NONE))))?;
        }
        Ok(())
    }

    /// Returns the event of this LPI; `None` if it is not mapped at this ITS.
    ///
    /// Context: any.
    pub(crate) fn of(&self, lpi: Lpi) -> Option<EventRoute> {
        EventRoute::unpack(self.word(lpi)?.load(Ordering::Acquire))
    }

    /// Changes a route whose memory was provided. Under the command queue's lock.
    pub(crate) fn set(&self, lpi: Lpi, route: Option<EventRoute>) {
        if let Some(word) = self.word(lpi) {
            word.store(route.map_or(NONE, EventRoute::pack), Ordering::Release);
        }
    }

    /// Returns the LPIs that are mapped to a collection.
    ///
    /// Context: task; may sleep.
    pub(crate) fn mapped_to(&self, collection: CollectionId) -> Result<Vec<Lpi>, TryReserveError> {
        let chunks = self.chunks.iter().enumerate();
        let words = chunks.filter_map(|(number, chunk)| Some((number, chunk.get()?)));
        let routes = words.flat_map(|(number, words)| {
            words.iter().enumerate().map(move |(index, word)| (number * CHUNK + index, word))
        });
        let here = routes.filter(|(_, word)| {
            EventRoute::unpack(word.load(Ordering::Acquire))
                .is_some_and(|route| route.collection == collection)
        });
        try_collect(here.filter_map(|(index, _)| Lpi::from_index(u32::try_from(index).ok()?)))
    }

    /// Returns the ranges of LPI indices whose memory was allocated. No other LPI is mapped.
    ///
    /// Context: any.
    pub(crate) fn provided(&self) -> impl Iterator<Item = Range<u32>> {
        let provided = self.chunks.iter().enumerate().filter(|(_, chunk)| chunk.get().is_some());
        provided.filter_map(|(number, _)| {
            let first = u32::try_from(number * CHUNK).ok()?;
            Some(first..u32::try_from((number + 1) * CHUNK).ok()?)
        })
    }

    fn word(&self, lpi: Lpi) -> Option<&AtomicU64> {
        let (chunk, index) = locate(lpi);
        self.chunks.get(chunk)?.get()?.get(index)
    }
}

fn locate(lpi: Lpi) -> (usize, usize) {
    let index = IntId::hwirq(lpi.intid()).index() - Lpi::FIRST.intid().hwirq().index();
    (index / CHUNK, index % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_loses_nothing(device: u32, event: u16, collection in 0..u16::MAX) {
            let route =
                EventRoute::new(DeviceId::new(device), event, CollectionId::new(collection));
            prop_assert_eq!(EventRoute::unpack(route.pack()), Some(route));
        }

        #[test]
        fn a_route_is_found_at_its_own_lpi_alone(index in 0..57_344_u32, other in 0..57_344_u32) {
            prop_assume!(index != other);
            let routes = EventRoutes::new(16).unwrap();
            let (lpi, other) = (Lpi::from_index(index).unwrap(), Lpi::from_index(other).unwrap());
            routes.reserve(lpi, 1).unwrap();
            routes.reserve(other, 1).unwrap();
            let route = EventRoute::new(DeviceId::new(1), 2, CollectionId::new(3));
            routes.set(lpi, Some(route));
            prop_assert_eq!((routes.of(lpi), routes.of(other)), (Some(route), None));
        }
    }

    #[test]
    fn reserve_covers_blocks_across_chunks() {
        let routes = EventRoutes::new(16).unwrap();
        let first = Lpi::from_index(1000).unwrap();
        routes.reserve(first, 2048).unwrap();
        let last = Lpi::from_index(1000 + 2047).unwrap();
        let route = EventRoute::new(DeviceId::new(1), 2, CollectionId::new(3));
        routes.set(last, Some(route));
        assert_eq!(routes.of(last), Some(route));
    }

    #[test]
    fn an_lpi_beyond_the_tables_has_no_route() {
        let routes = EventRoutes::new(14).unwrap();
        let beyond = Lpi::from_index(57_000).unwrap();
        routes.reserve(beyond, 1).unwrap();
        assert_eq!(routes.of(beyond), None);
    }
}
