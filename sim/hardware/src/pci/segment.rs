//! A single bus with its functions, and the buses behind its bridges.

use crate::pci::bridge::{Bridge, BridgeKind};
use crate::pci::bus_number::{BusNumber, DevFn};
use crate::pci::function::{Function, FunctionConfig};
use msi_types::{RequesterId, SignalMsi};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A bus, with its functions and bridges.
pub struct Segment {
    number: Arc<BusNumber>,
    nodes: BTreeMap<DevFn, Node>,
}

pub(super) enum Node {
    Function(Arc<Function>),
    /// A bridge, and the bus below it.
    Bridge(Box<Bridge>, Segment),
}

impl Segment {
    /// Creates an empty bus with the bus number that firmware has set.
    pub fn new(number: u8) -> Self {
        Self { number: Arc::new(BusNumber::new(number)), nodes: BTreeMap::new() }
    }

    /// Puts a function on the bus, replacing the function that was at the same location before. The
    /// function sends its messages to `upstream`.
    pub fn plug(&mut self, config: FunctionConfig, upstream: Arc<dyn SignalMsi<RequesterId>>) {
        let function = Function::new(config, Arc::clone(&self.number), upstream);
        self.nodes.insert(config.at, Node::Function(Arc::new(function)));
    }

    /// Puts a bridge on the bus, replacing any bridge that was at the same location before. The
    /// bridge has the bus numbers that firmware has set.
    pub fn plug_bridge(&mut self, at: DevFn, kind: BridgeKind, secondary: Self) {
        let bridge = Bridge::new(kind, self.number.get(), Arc::clone(&secondary.number));
        self.nodes.insert(at, Node::Bridge(Box::new(bridge), secondary));
    }

    /// Returns the path through which functions on this bus send messages upstream if the bus is
    /// behind a bridge of this kind.
    pub fn upstream(
        &self,
        kind: BridgeKind,
        next: Arc<dyn SignalMsi<RequesterId>>,
    ) -> Arc<dyn SignalMsi<RequesterId>> {
        kind.upstream(Arc::clone(&self.number), next)
    }

    /// Returns all functions on this bus and below it.
    pub fn functions(&self) -> Vec<Arc<Function>> {
        let below = |node: &Node| match node {
            Node::Function(function) => vec![Arc::clone(function)],
            Node::Bridge(_, secondary) => secondary.functions(),
        };
        self.nodes.values().flat_map(below).collect()
    }

    /// Returns the function or bridge at a location on bus `bus`, which may be this bus or any bus
    /// below it.
    pub(super) fn node(&self, bus: u8, at: DevFn) -> Option<&Node> {
        if bus == self.number.get() {
            return self.nodes.get(&at);
        }
        let (_, secondary) = self.bridges().find(|(bridge, _)| bridge.leads_to(bus))?;
        secondary.node(bus, at)
    }

    /// Returns `true` if `function` is on a bus below this one and every bridge in between forwards
    /// this address.
    pub(super) fn reaches(&self, function: &Function, address: u64) -> bool {
        let here = |node: &Node| match node {
            Node::Function(other) => std::ptr::eq(Arc::as_ptr(other), function),
            Node::Bridge(..) => false,
        };
        self.nodes.values().any(here)
            || self.bridges().any(|(bridge, secondary)| {
                bridge.forwards(address) && secondary.reaches(function, address)
            })
    }

    fn bridges(&self) -> impl Iterator<Item = (&Bridge, &Self)> {
        self.nodes.values().filter_map(|node| match node {
            Node::Bridge(bridge, secondary) => Some((&**bridge, secondary)),
            Node::Function(_) => None,
        })
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
