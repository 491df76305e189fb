//! The devices of an ITS as senders: from a DeviceID to the entry that leads to its slots.
//!
//! A tree of 256-way nodes within a budget, as DeviceIDs are the guest's to choose. Nodes are
//! type-stable; one without mapped devices is taken back and used elsewhere. So a reader that was
//! delayed may hold an entry that belongs to another device by then, and asks for it again
//! ([`Senders::leads_to`]) before it acts on what the entry said.

use crate::atomic::{AtomicU64, Ordering};
use crate::safeguard::Safeguard;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use once_cell::race::OnceBox;

const NODE_BITS: u32 = 8;
const NODE_MASK: u32 = (1 << NODE_BITS) - 1;
const NODE_ENTRIES: usize = 1 << NODE_BITS;
/// Most nodes of the tree below its root: 8 MiB. All of 16-bit DeviceIDs need 256.
pub(super) const NODE_LIMIT: u32 = 4096;

/// Entries of devices, or numbers of nodes plus one.
type Node = [AtomicU64; NODE_ENTRIES];

fn empty() -> Box<Node> {
    Box::new(core::array::from_fn(|_| AtomicU64::new(0)))
}

/// The entries of an ITS's devices.
pub(crate) struct Senders {
    root: Box<Node>,
    /// The nodes below the root, by number.
    nodes: Box<[OnceBox<Node>]>,
    bits: u32,
    height: u32,
}

impl fmt::Debug for Senders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Senders").field("bits", &self.bits).finish_non_exhaustive()
    }
}

/// Which nodes of the tree are in use. Kept under the command lock.
#[derive(Debug)]
pub(super) struct Growth {
    /// By number: how many devices are mapped in a leaf, or how many nodes are below a branch.
    used: Vec<u16>,
    /// Numbers of nodes that were taken back.
    free: Vec<u32>,
    limit: u32,
}

impl Growth {
    /// May the tree have this many nodes, if it has no others?
    pub(super) const fn allows(&self, nodes: u32) -> bool {
        nodes <= self.limit
    }

    /// How many nodes are in use?
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.used.len() - self.free.len()
    }

    /// A node that is not in use.
    fn take(&mut self) -> Option<u32> {
        if let Some(number) = self.free.pop() {
            return Some(number);
        }
        let number = u32::try_from(self.used.len()).ok().filter(|number| *number < self.limit)?;
        self.used.push(0);
        Some(number)
    }

    /// One more node or device is below this one.
    fn gain(&mut self, number: u32) {
        if let Some(used) = self.used.get_mut(number as usize) {
            *used = used.saturating_add(1);
        }
    }

    /// One less is. Is it the last?
    fn lose(&mut self, number: u32) -> bool {
        let Some(used) = self.used.get_mut(number as usize) else { return false };
        *used = used.saturating_sub(1);
        *used == 0
    }
}

impl Senders {
    /// For DeviceIDs of this many bits, at most 32.
    pub(crate) fn new(bits: u8) -> Self {
        let bits = u32::from(bits).clamp(1, 32);
        let height = (bits - 1) / NODE_BITS;
        let complete = (1..=height).map(|height| 1 << (bits - height * NODE_BITS)).sum::<u32>();
        let nodes = (0..NODE_LIMIT.min(complete)).map(|_| OnceBox::new()).collect();
        Self { root: empty(), nodes, bits, height }
    }

    /// A tree without devices.
    pub(super) fn growth(&self) -> Growth {
        let limit = u32::try_from(self.nodes.len()).unwrap_or(NODE_LIMIT);
        Growth { used: Vec::new(), free: Vec::new(), limit }
    }

    /// Is there such a DeviceID?
    fn has(&self, device: u32) -> bool {
        u64::from(device) >> self.bits == 0
    }

    /// The entry of a device; `None` if no device near it is mapped. It is the device's as long as
    /// the device is mapped.
    #[inline]
    pub(super) fn get(&self, device: u32) -> Option<&AtomicU64> {
        if !self.has(device) {
            return None;
        }
        let mut node = &*self.root;
        for height in (1..=self.height).rev() {
            node = self.node(entry(node, device, height).load(Ordering::SeqCst))?;
        }
        Some(entry(node, device, 0))
    }

    /// Is this still the entry of the device? If so, what was read from it was this device's, or that
    /// of one which was unmapped completely before: then its slots have another generation.
    #[inline]
    pub(super) fn leads_to(&self, device: u32, sender: &AtomicU64) -> bool {
        !Safeguard::LookUpAgain.stands() || self.get(device).is_some_and(|found| core::ptr::eq(found, sender))
    }

    /// The node that a branch's entry names.
    #[inline]
    fn node(&self, named: u64) -> Option<&Node> {
        self.nodes.get(number_of(named)? as usize)?.get()
    }

    /// How many nodes a tree with these devices has, ascending.
    pub(super) fn nodes_of(&self, devices: impl Iterator<Item = u32>) -> u32 {
        let mut last: Option<u32> = None;
        let mut nodes = 0;
        for device in devices {
            for height in 1..=self.height {
                let shift = height * NODE_BITS;
                nodes += u32::from(last.is_none_or(|last| last >> shift != device >> shift));
            }
            last = Some(device);
        }
        nodes
    }

    /// The entry of a device that is being mapped; `None` if the DeviceID is out of range or the
    /// budget used up.
    pub(super) fn map(&self, device: u32, growth: &mut Growth) -> Option<&AtomicU64> {
        if !self.has(device) {
            return None;
        }
        Some(self.map_below(&self.root, self.height, device, growth)?.sender)
    }

    /// A node is linked when all below it is there.
    fn map_below<'a>(
        &'a self,
        node: &'a Node,
        height: u32,
        device: u32,
        growth: &mut Growth,
    ) -> Option<Mapped<'a>> {
        let link = entry(node, device, height);
        if height == 0 {
            return Some(Mapped { sender: link, is_more: true });
        }
        let named = link.load(Ordering::SeqCst);
        let number = if named == 0 { growth.take()? } else { number_of(named)? };
        let below = self.nodes.get(number as usize)?.get_or_init(empty);
        let Some(mapped) = self.map_below(below, height - 1, device, growth) else {
            if named == 0 {
                growth.free.push(number);
            }
            return None;
        };
        if mapped.is_more {
            growth.gain(number);
        }
        link.store(u64::from(number) + 1, Ordering::SeqCst);
        Some(Mapped { is_more: named == 0, ..mapped })
    }

    /// A device was unmapped, and its entry names nothing: nodes that lead to no device any more are
    /// taken back.
    pub(super) fn unmap(&self, device: u32, growth: &mut Growth) {
        if self.has(device) {
            self.unmap_below(&self.root, self.height, device, growth);
        }
    }

    /// Is there less below this node now?
    fn unmap_below(&self, node: &Node, height: u32, device: u32, growth: &mut Growth) -> bool {
        if height == 0 {
            return true;
        }
        let link = entry(node, device, height);
        let named = link.load(Ordering::SeqCst);
        let Some((below, number)) = self.node(named).zip(number_of(named)) else { return false };
        let is_less = self.unmap_below(below, height - 1, device, growth);
        let is_empty = is_less && growth.lose(number);
        if is_empty {
            link.store(0, Ordering::SeqCst);
            growth.free.push(number);
        }
        is_empty
    }
}

/// A device's entry; and whether the node above has one more node or device below it.
struct Mapped<'a> {
    sender: &'a AtomicU64,
    is_more: bool,
}

/// The number of the node that a branch's entry names.
fn number_of(named: u64) -> Option<u32> {
    u32::try_from(named.checked_sub(1)?).ok()
}

/// A node's entry on the way to a device.
#[inline]
fn entry(node: &Node, device: u32, height: u32) -> &AtomicU64 {
    &node[((device >> (height * NODE_BITS)) & NODE_MASK) as usize]
}
