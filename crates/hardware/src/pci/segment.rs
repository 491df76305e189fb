//! One bus: who is on it.

use crate::pci::{Bridge, Function};
use msi_types::RequesterId;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Device and function number on a bus: device in bits 7:3, function in bits 2:0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DevFn(pub u8);

impl DevFn {
    /// From device (0–31) and function (0–7); higher bits are dropped.
    pub const fn new(device: u8, function: u8) -> Self {
        Self((device & 0x1f) << 3 | function & 7)
    }

    /// The device number.
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }

    /// The function number.
    pub const fn function(self) -> u8 {
        self.0 & 7
    }
}

/// The number of a bus, as the bridge above it was last told. Functions on the bus capture theirs
/// from it.
#[derive(Debug, Default)]
pub(super) struct BusNumber(AtomicU8);

impl BusNumber {
    pub(super) fn new(number: u8) -> Self {
        Self(AtomicU8::new(number))
    }

    pub(super) fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, number: u8) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// The requester ID of a function on this bus.
    pub(super) fn requester(&self, at: DevFn) -> RequesterId {
        RequesterId::pci(self.get(), at.device(), at.function())
    }
}

/// A bus and what is on it.
#[derive(Default)]
pub struct Segment {
    pub(super) number: Arc<BusNumber>,
    pub(super) nodes: BTreeMap<DevFn, Node>,
}

pub(super) enum Node {
    Function(Arc<Function>),
    Bridge(Arc<Bridge>),
}

impl Segment {
    /// An empty bus with the number that firmware left it.
    pub fn new(number: u8) -> Self {
        Self { number: Arc::new(BusNumber::new(number)), nodes: BTreeMap::new() }
    }

    /// Puts a function on the bus, in place of an earlier one.
    pub fn plug(&mut self, at: DevFn, function: Arc<Function>) {
        self.nodes.insert(at, Node::Function(function));
    }

    /// Puts a bridge to another bus on the bus, in place of an earlier one.
    pub fn plug_bridge(&mut self, at: DevFn, bridge: Arc<Bridge>) {
        self.nodes.insert(at, Node::Bridge(bridge));
    }

    /// Returns true if a function or bridge is there.
    pub fn is_taken(&self, at: DevFn) -> bool {
        self.nodes.contains_key(&at)
    }

    /// All functions on this bus and on those below.
    pub fn functions(&self) -> Vec<Arc<Function>> {
        let below = |node: &Node| match node {
            Node::Function(function) => vec![Arc::clone(function)],
            Node::Bridge(bridge) => bridge.segment().functions(),
        };
        self.nodes.values().flat_map(below).collect()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<_> = self.nodes.keys().collect();
        f.debug_struct("Segment")
            .field("number", &self.number.get())
            .field("places", &places)
            .finish()
    }
}
