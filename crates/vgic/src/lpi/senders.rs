//! The devices of an ITS as senders: from a DeviceID to the entry that leads to its slots. A tree of 256-way nodes
//! that only grows, within a budget: DeviceIDs are the guest's to choose.

use crate::atomic::AtomicU64;
use alloc::boxed::Box;
use core::fmt;
use once_cell::race::OnceBox;

const NODE_BITS: u32 = 8;
const NODE_MASK: u32 = (1 << NODE_BITS) - 1;
const NODE_ENTRIES: usize = 1 << NODE_BITS;
/// Most nodes of the tree: 8 MiB. All of 16-bit DeviceIDs need 257.
const NODE_LIMIT: u32 = 4096;

enum Node {
    Branch([OnceBox<Node>; NODE_ENTRIES]),
    Leaf([AtomicU64; NODE_ENTRIES]),
}

impl Node {
    fn at_height(height: u32) -> Box<Self> {
        Box::new(if height == 0 {
            Self::Leaf(core::array::from_fn(|_| AtomicU64::new(0)))
        } else {
            Self::Branch(core::array::from_fn(|_| OnceBox::new()))
        })
    }
}

/// The entries of an ITS's devices.
pub(crate) struct Senders {
    root: Box<Node>,
    bits: u32,
    height: u32,
}

impl fmt::Debug for Senders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Senders").field("bits", &self.bits).finish_non_exhaustive()
    }
}

/// How much of the tree may still grow. Kept under the command lock.
#[derive(Debug)]
pub(super) struct Growth(u32);

impl Growth {
    /// The whole budget.
    pub(super) const FULL: Self = Self(NODE_LIMIT);

    /// May it grow by this many nodes?
    pub(super) const fn allows(&self, nodes: u32) -> bool {
        nodes <= self.0
    }
}

impl Senders {
    /// For DeviceIDs of this many bits, at most 32.
    pub(crate) fn new(bits: u8) -> Self {
        let bits = u32::from(bits).clamp(1, 32);
        let height = (bits - 1) / NODE_BITS;
        Self { root: Node::at_height(height), bits, height }
    }

    /// Is there such a DeviceID?
    pub(super) fn has(&self, device: u32) -> bool {
        u64::from(device) >> self.bits == 0
    }

    /// The entry of a device; `None` if no device near it was ever mapped.
    #[inline]
    pub(super) fn get(&self, device: u32) -> Option<&AtomicU64> {
        if !self.has(device) {
            return None;
        }
        let mut node = &*self.root;
        let mut shift = self.height * NODE_BITS;
        loop {
            match node {
                Node::Leaf(entries) => return entries.get((device & NODE_MASK) as usize),
                Node::Branch(children) => {
                    node = children[((device >> shift) & NODE_MASK) as usize].get()?;
                    shift = shift.saturating_sub(NODE_BITS);
                }
            }
        }
    }

    /// How many nodes the tree lacks for these devices, ascending.
    pub(super) fn missing_nodes(&self, devices: impl Iterator<Item = u32>) -> u32 {
        let mut last: Option<u32> = None;
        let mut missing = 0;
        for device in devices {
            for height in 0..self.height {
                let shift = (height + 1) * NODE_BITS;
                let fresh = last.is_none_or(|last| last >> shift != device >> shift);
                missing += u32::from(fresh && !self.has_node(device, height));
            }
            last = Some(device);
        }
        missing
    }

    /// Is there a node of this height on the way to a device?
    fn has_node(&self, device: u32, height: u32) -> bool {
        let mut node = &*self.root;
        for above in (height..self.height).rev() {
            let Node::Branch(children) = node else { return false };
            match children[((device >> ((above + 1) * NODE_BITS)) & NODE_MASK) as usize].get() {
                Some(child) => node = child,
                None => return false,
            }
        }
        true
    }

    /// The entry of a device, made if need be; `None` if the DeviceID is out of range or the budget used up.
    pub(super) fn ensure(&self, device: u32, growth: &mut Growth) -> Option<&AtomicU64> {
        if !self.has(device) {
            return None;
        }
        let mut node = &*self.root;
        for height in (0..self.height).rev() {
            let Node::Branch(children) = node else { break };
            let child = &children[((device >> ((height + 1) * NODE_BITS)) & NODE_MASK) as usize];
            if child.get().is_none() {
                growth.0 = growth.0.checked_sub(1)?;
            }
            node = child.get_or_init(|| Node::at_height(height));
        }
        self.get(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    fn devices() -> impl Strategy<Value = BTreeSet<u32>> {
        let device = prop_oneof![any::<u32>(), 0..2000u32, (0..4u32).prop_map(|high| high << 24)];
        proptest::collection::btree_set(device, 0..40)
    }

    proptest! {
        #[test]
        fn the_tree_grows_by_as_many_nodes_as_it_was_said_to_lack(
            bits in 1u8..=32,
            before in devices(),
            devices in devices(),
        ) {
            let within = |device: &u32| u64::from(*device) >> bits == 0;
            let senders = Senders::new(bits);
            let mut growth = Growth::FULL;
            for device in before.into_iter().filter(within) {
                senders.ensure(device, &mut growth).unwrap();
            }
            let Growth(left) = growth;

            let missing = senders.missing_nodes(devices.iter().copied().filter(within));

            for device in devices.into_iter().filter(within) {
                senders.ensure(device, &mut growth).unwrap();
            }
            prop_assert_eq!(left - growth.0, missing);
        }
    }
}
