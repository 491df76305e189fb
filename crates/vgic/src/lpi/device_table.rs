//! An ITS's device table. The table maps a DeviceID to a device table entry (DTE), which points to
//! the device's interrupt translation table (ITT).
//!
//! The table is a tree of 256-way nodes. The number of nodes is bounded, because the guest chooses
//! the DeviceIDs. Nodes are type-stable: a node without mapped devices is freed and reused
//! elsewhere, so an entry may be reassigned to another device while a delayed reader still refers
//! to it. The reader must look the entry up again ([`DeviceTable::leads_to`]) before acting on the
//! value that it read.
//!
//! With up to 16 DeviceID bits, 256 leaves are enough, and each leaf has a fixed number. The table
//! is then flat ([`DeviceTable::get_flat`]), and an entry is never reassigned to another device.

use super::mapping::{MappedDevice, NoRoom};
use crate::sync::published::Published;
use crate::sync::{AtomicU64, Ordering};
use alloc::boxed::Box;
use alloc::vec::Vec;
use doorbell_fallible::{
    OnceBox, OutOfMemory, try_box_array, try_boxed_slice, try_page, try_page_table,
};

const NODE_BITS: u32 = 8;
const NODE_MASK: u32 = (1 << NODE_BITS) - 1;
const NODE_ENTRIES: usize = 1 << NODE_BITS;
/// Maximum number of nodes below the root: 16 MiB. A table for 16-bit DeviceIDs needs 256.
pub(super) const NODE_LIMIT: u32 = 4096;

/// A node: either device table entries, or node numbers plus one.
type TableNode = [AtomicU64; NODE_ENTRIES];

/// An ITS's device table.
pub(crate) struct DeviceTable {
    root: Box<TableNode>,
    /// The nodes below the root, by number, unless the table is flat.
    nodes: Box<[OnceBox<TableNode>]>,
    /// The leaves of a flat table, which are all nodes below the root.
    flat_leaves: Box<[OnceBox<TableNode>]>,
    bits: u32,
    /// Number of nodes between the root and an entry.
    height: u32,
    /// 1 if the ITS accepts messages, otherwise 0. Only used to report why a message was dropped.
    pub(super) accepts: Published,
}

msi_types::debug_by!(DeviceTable as "DeviceTable", |it| {bits: it.bits});

/// Mapped devices and nodes in use. Protected by the command lock.
#[derive(Debug)]
pub(super) struct DeviceUsage {
    /// Number of devices mapped in the leaf or of nodes below the branch, indexed by node number.
    /// Has capacity for all nodes.
    used: Vec<u16>,
    /// Numbers of freed nodes. Has capacity for all nodes. Flat tables don't use this list, because
    /// their leaves have fixed numbers.
    free: Vec<u32>,
    limit: u32,
    /// MAPD operands, indexed by leaf number.
    mapped: Box<[Option<Box<DeviceLeaf>>]>,
    devices: usize,
}

/// MAPD operands for a leaf's devices: [`MappedDevice::packed`], or zero.
type DeviceLeaf = [u64; NODE_ENTRIES];

impl DeviceUsage {
    /// Returns the number of mapped devices.
    pub(super) const fn devices(&self) -> usize {
        self.devices
    }

    /// Allocates the memory for mapping devices in a leaf.
    fn provide(&mut self, leaf: usize) -> Result<(), OutOfMemory> {
        if let Some(page @ None) = self.mapped.get_mut(leaf) {
            *page = Some(try_box_array(|| 0)?);
        }
        Ok(())
    }

    /// Records a device's MAPD operands. `None` unmaps it.
    fn note(&mut self, leaf: usize, device: u32, mapped: Option<MappedDevice>) {
        if let Some(Some(page)) = self.mapped.get_mut(leaf) {
            let word = &mut page[(device & NODE_MASK) as usize];
            self.devices -= usize::from(*word != 0);
            *word = mapped.map_or(0, MappedDevice::packed);
            self.devices += usize::from(*word != 0);
        }
    }

    /// Returns the MAPD operands for a leaf's devices.
    fn leaf(&self, leaf: usize) -> Option<&DeviceLeaf> {
        self.mapped.get(leaf)?.as_deref()
    }

    /// Returns the number of nodes in use.
    #[cfg(not(shuttle))]
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.used.iter().filter(|used| **used > 0).count()
    }

    /// Allocates an unused node number.
    fn take(&mut self) -> Option<u32> {
        if let Some(number) = self.free.pop() {
            return Some(number);
        }
        let number = u32::try_from(self.used.len()).ok().filter(|number| *number < self.limit)?;
        self.used.push(0);
        Some(number)
    }

    /// Adds one to the count of nodes or devices below this node.
    fn gain(&mut self, number: u32) {
        if let Some(used) = self.used.get_mut(number as usize) {
            *used = used.saturating_add(1);
        }
    }

    /// Subtracts one from the count of nodes or devices below this node. Returns `true` if the
    /// count is now zero.
    fn lose(&mut self, number: u32) -> bool {
        let Some(used) = self.used.get_mut(number as usize) else { return false };
        *used = used.saturating_sub(1);
        *used == 0
    }
}

impl DeviceTable {
    /// Creates a table for DeviceIDs with this many bits, at most 32.
    pub(crate) fn new(bits: u8) -> Result<Self, OutOfMemory> {
        let bits = u32::from(bits).clamp(1, 32);
        let height = ((bits - 1) / NODE_BITS).max(1);
        let of_height = |height| 1 << bits.saturating_sub(height * NODE_BITS);
        let complete = (1..=height).map(of_height).sum::<u32>();
        let (flat, others) = if height == 1 { (complete, 0) } else { (0, complete) };
        let (flat_leaves, nodes) = (try_page_table(flat)?, try_page_table(NODE_LIMIT.min(others))?);
        let (root, accepts) = (try_box_array(|| AtomicU64::new(0))?, Published::new(0));
        Ok(Self { root, nodes, flat_leaves, bits, height, accepts })
    }

    /// Creates the usage record for a tree without devices.
    pub(super) fn no_devices(&self) -> Result<DeviceUsage, OutOfMemory> {
        let limit = u32::try_from(self.nodes().len()).unwrap_or(NODE_LIMIT);
        let (mut used, mut free) = (Vec::new(), Vec::new());
        used.try_reserve_exact(self.nodes().len())?;
        free.try_reserve_exact(self.nodes().len())?;
        used.resize(self.flat_leaves.len(), 0);
        let mapped = try_boxed_slice((0..self.nodes().len()).map(|_| None))?;
        Ok(DeviceUsage { used, free, limit, mapped, devices: 0 })
    }

    /// Returns the nodes below the root, by number.
    fn nodes(&self) -> &[OnceBox<TableNode>] {
        if self.flat_leaves.is_empty() { &self.nodes } else { &self.flat_leaves }
    }

    /// Returns the root's number. The root's number is greater than that of any other node.
    fn root_number(&self) -> usize {
        self.nodes().len()
    }

    /// Returns `true` if the DeviceID is in range.
    fn has(&self, device: u32) -> bool {
        u64::from(device) >> self.bits == 0
    }

    /// Returns a device's entry in a flat table, or `None` if no device in its leaf was ever
    /// mapped. The entry is never reassigned to another device.
    #[inline(always)]
    pub(super) fn get_flat(&self, device: u32) -> Option<&AtomicU64> {
        let leaf = self.flat_leaves.get((device >> NODE_BITS) as usize)?;
        Some(entry(leaf.get()?, device, 0))
    }

    /// Returns a device's entry, or `None` if no device in its leaf is mapped. The entry belongs to
    /// the device as long as the device is mapped.
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

    /// Returns `true` if this is still the device's entry. If so, the value that the caller read
    /// from the entry belonged either to this device, or to a device that had been completely
    /// unmapped before. In the latter case, the generations of that device's translation entries
    /// have changed since.
    pub(super) fn leads_to(&self, device: u32, dte: &AtomicU64) -> bool {
        self.get(device).is_some_and(|found| core::ptr::eq(found, dte))
    }

    /// Returns the node that a branch entry refers to.
    #[inline]
    fn node(&self, named: u64) -> Option<&TableNode> {
        self.nodes().get(number_of(named)? as usize)?.get()
    }

    /// Returns a device's MAPD operands, if it is mapped.
    pub(super) fn mapped(&self, device: u32, mapped_devices: &DeviceUsage) -> Option<MappedDevice> {
        let leaf = mapped_devices.leaf(self.leaf_number(device)?)?;
        MappedDevice::unpacked(leaf[(device & NODE_MASK) as usize])
    }

    /// Returns the first mapped device at or after this DeviceID.
    pub(super) fn mapped_from(
        &self,
        first: u32,
        mapped_devices: &DeviceUsage,
    ) -> Option<(u32, MappedDevice)> {
        if !self.has(first) {
            return None;
        }
        let at =
            NodeAt { node: &self.root, number: self.root_number(), height: self.height, first: 0 };
        self.mapped_below(&at, first, mapped_devices)
    }

    fn mapped_below(
        &self,
        at: &NodeAt<'_>,
        from: u32,
        mapped_devices: &DeviceUsage,
    ) -> Option<(u32, MappedDevice)> {
        let shift = at.height * NODE_BITS;
        let mut entries =
            at.node.iter().zip(0u32..).skip((from.saturating_sub(at.first) >> shift) as usize);
        entries.find_map(|(link, index)| {
            let first = at.first + (index << shift);
            if at.height == 0 {
                let packed = mapped_devices.leaf(at.number)?[index as usize];
                return MappedDevice::unpacked(packed).map(|mapped| (first, mapped));
            }
            let number = number_of(link.load(Ordering::SeqCst))? as usize;
            let node = self.nodes().get(number)?.get()?;
            self.mapped_below(
                &NodeAt { node, number, height: at.height - 1, first },
                from,
                mapped_devices,
            )
        })
    }

    /// Returns the number of the leaf that a device is in, or `None` if no device in the leaf is
    /// mapped.
    fn leaf_number(&self, device: u32) -> Option<usize> {
        if !self.has(device) {
            return None;
        }
        let (mut node, mut number) = (&*self.root, self.root_number());
        for height in (1..=self.height).rev() {
            let named = entry(node, device, height).load(Ordering::SeqCst);
            node = self.node(named)?;
            number = number_of(named)? as usize;
        }
        Some(number)
    }

    /// Maps a device that is not mapped, and returns its entry.
    ///
    /// # Errors
    /// The DeviceID is out of range, the budget is exhausted, or the heap is exhausted. The tree is
    /// unchanged.
    pub(super) fn map(
        &self,
        device: u32,
        mapped: MappedDevice,
        mapped_devices: &mut DeviceUsage,
    ) -> Result<&AtomicU64, NoRoom> {
        if !self.has(device) {
            return Err(NoRoom::Budget);
        }
        let at =
            NodeAt { node: &self.root, number: self.root_number(), height: self.height, first: 0 };
        let found = self.map_below(&at, device, mapped_devices)?;
        mapped_devices.note(found.leaf, device, Some(mapped));
        Ok(found.dte)
    }

    /// Maps a device below a node. A new node is linked only after all nodes below it have been
    /// created.
    fn map_below<'a>(
        &'a self,
        at: &NodeAt<'a>,
        device: u32,
        mapped_devices: &mut DeviceUsage,
    ) -> Result<MappedDte<'a>, NoRoom> {
        let link = entry(at.node, device, at.height);
        if at.height == 0 {
            mapped_devices.provide(at.number)?;
            return Ok(MappedDte { dte: link, leaf: at.number, is_more: true });
        }
        let named = link.load(Ordering::SeqCst);
        let number = match number_of(named) {
            None => self.take_node(device, mapped_devices),
            number => number,
        }
        .ok_or(NoRoom::Budget)?;
        let mapped = self.node_at(number).and_then(|node| {
            let below = NodeAt { node, number: number as usize, height: at.height - 1, first: 0 };
            self.map_below(&below, device, mapped_devices)
        });
        match mapped {
            Ok(mapped) => {
                if mapped.is_more {
                    mapped_devices.gain(number);
                }
                link.store(u64::from(number) + 1, Ordering::SeqCst);
                Ok(MappedDte { is_more: named == 0, ..mapped })
            }
            Err(error) => {
                if named == 0 {
                    self.release_node(number, mapped_devices);
                }
                Err(error)
            }
        }
    }

    /// Allocates a node number on the path to a device.
    fn take_node(&self, device: u32, mapped_devices: &mut DeviceUsage) -> Option<u32> {
        if self.flat_leaves.is_empty() { mapped_devices.take() } else { Some(device >> NODE_BITS) }
    }

    /// Frees a node number.
    fn release_node(&self, number: u32, mapped_devices: &mut DeviceUsage) {
        if self.flat_leaves.is_empty() {
            mapped_devices.free.push(number);
        }
    }

    /// Returns the node with this number, allocating it on first use.
    fn node_at(&self, number: u32) -> Result<&TableNode, NoRoom> {
        let place = self.nodes().get(number as usize).ok_or(NoRoom::Budget)?;
        try_page(place, || AtomicU64::new(0)).map_err(OutOfMemory::from)?;
        place.get().ok_or(NoRoom::Budget)
    }

    /// Unmaps a device. Callers must already have cleared the device's entry. Nodes without mapped
    /// devices below them are freed.
    pub(super) fn unmap(&self, device: u32, mapped_devices: &mut DeviceUsage) {
        if let Some(leaf) = self.leaf_number(device) {
            mapped_devices.note(leaf, device, None);
            self.unmap_below(&self.root, self.height, device, mapped_devices);
        }
    }

    /// Unmaps a device below a node. Returns `true` if the node has one fewer node or device below
    /// it.
    fn unmap_below(
        &self,
        node: &TableNode,
        height: u32,
        device: u32,
        mapped_devices: &mut DeviceUsage,
    ) -> bool {
        if height == 0 {
            return true;
        }
        let link = entry(node, device, height);
        let named = link.load(Ordering::SeqCst);
        let Some((below, number)) = self.node(named).zip(number_of(named)) else { return false };
        let is_less = self.unmap_below(below, height - 1, device, mapped_devices);
        let is_empty = is_less && mapped_devices.lose(number);
        if is_empty {
            link.store(0, Ordering::SeqCst);
            self.release_node(number, mapped_devices);
        }
        is_empty
    }
}

/// A node in the tree.
struct NodeAt<'a> {
    node: &'a TableNode,
    number: usize,
    /// Number of nodes below this node on the path to a device.
    height: u32,
    /// The first DeviceID below this node.
    first: u32,
}

/// A device's entry in its leaf. `is_more` is `true` if the node above has one more node or device
/// below it.
struct MappedDte<'a> {
    dte: &'a AtomicU64,
    leaf: usize,
    is_more: bool,
}

/// Returns the node number in a branch entry.
fn number_of(named: u64) -> Option<u32> {
    u32::try_from(named.checked_sub(1)?).ok()
}

/// Returns a node's entry on the path to a device.
#[inline]
fn entry(node: &TableNode, device: u32, height: u32) -> &AtomicU64 {
    &node[((device >> (height * NODE_BITS)) & NODE_MASK) as usize]
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests;
