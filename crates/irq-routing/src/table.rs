//! Every GSI's route, in memory in proportion to the GSIs that were ever routed.

use crate::route::{Pin, Route};
use crate::route_latch::RouteLatch;
use crate::sync::{AtomicBool, SeqCst};
use alloc::boxed::Box;
use alloc::vec::Vec;
use msi_types::Gsi;
use once_cell::race::OnceBox;

/// Number of latches that are allocated together.
const CHUNK: usize = 64;

type Chunk = [RouteLatch; CHUNK];

/// The routes of all GSIs. A latch is never moved or freed while the table exists, so that readers
/// need nothing but its index.
#[derive(Debug)]
pub(crate) struct Table {
    chunks: Box<[OnceBox<Chunk>]>,
    gsis: u32,
    /// Number of pins that GSIs are mapped to before the first table.
    pins: u32,
    /// No table was set yet: each GSI is the pin of its number.
    identity: AtomicBool,
}

impl Table {
    /// Creates a table for the GSIs below `gsis`. Those below `pins` are mapped to the pins of
    /// their numbers.
    pub(crate) fn new(gsis: u32, pins: u32) -> Self {
        let chunks: Vec<_> = (0..(gsis as usize).div_ceil(CHUNK)).map(|_| OnceBox::new()).collect();
        Self { chunks: chunks.into(), gsis, pins: pins.min(gsis), identity: AtomicBool::new(true) }
    }

    /// Sets routes as [`set`](Self::set) does, then ends the identity mapping. The routes come
    /// first: a reader that misses the identity mapping reads the route again.
    pub(crate) fn set_table(
        &self,
        routes: impl Iterator<Item = (Gsi, Option<Route>)>,
    ) -> ChangeCount {
        let changes = self.set(routes);
        if self.identity.load(SeqCst) {
            self.identity.store(false, SeqCst);
        }
        changes
    }

    /// Sets routes, each by itself. Redundant routes, and GSIs that the table does not have, are
    /// skipped. Callers must allow one writer at a time.
    pub(crate) fn set(&self, routes: impl Iterator<Item = (Gsi, Option<Route>)>) -> ChangeCount {
        let mut changes = ChangeCount::default();
        for (gsi, route) in routes {
            if self.look(gsi) == route {
                changes.redundant += 1;
            } else {
                self.make(gsi, route);
                changes.made += 1;
            }
        }
        changes
    }

    fn make(&self, gsi: Gsi, route: Option<Route>) {
        let Some(chunk) = self.chunks.get(gsi.index() / CHUNK) else { return };
        let chunk = chunk.get_or_init(|| Box::new(core::array::from_fn(|_| RouteLatch::new())));
        if let Some(latch) = chunk.get(gsi.index() % CHUNK) {
            latch.store(route);
        }
    }

    /// Returns the number of GSIs.
    pub(crate) fn gsis(&self) -> u32 {
        self.gsis
    }

    /// Returns the route of a GSI. Acquires no lock and does not allocate.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn route(&self, gsi: Gsi) -> Option<Route> {
        self.look(gsi).or_else(|| self.unrouted(gsi))
    }

    fn unrouted(&self, gsi: Gsi) -> Option<Route> {
        if self.identity.load(SeqCst) {
            return Pin::new(gsi.get()).ok().filter(|_| gsi.get() < self.pins).map(Route::Pin);
        }
        // The identity mapping may have ended after the first look: the new routes are set then.
        self.look(gsi)
    }

    /// Returns the route that a table has set for a GSI.
    #[inline]
    pub(crate) fn look(&self, gsi: Gsi) -> Option<Route> {
        self.chunks.get(gsi.index() / CHUNK)?.get()?.get(gsi.index() % CHUNK)?.load()
    }

    /// Returns the GSIs that have a route by a table.
    pub(crate) fn routed(&self) -> impl Iterator<Item = (Gsi, Route)> + '_ {
        let chunks =
            self.chunks.iter().enumerate().filter_map(|(at, chunk)| Some((at, chunk.get()?)));
        let latches = chunks.flat_map(|(at, chunk)| (at * CHUNK..).zip(chunk));
        latches.filter_map(|(index, latch)| {
            Some((Gsi::new(u32::try_from(index).ok()?), latch.load()?))
        })
    }
}

/// Numbers of routes that a commit changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChangeCount {
    /// Number of routes that changed.
    pub made: u32,
    /// Number of redundant changes, which cost nothing more.
    pub redundant: u32,
}
