//! Device and collection mappings made by one ITS's commands.

use super::device_table::{DeviceTable, DeviceUsage};
use super::itt::Link;
use super::itt_teardown::IttTeardown;
use super::mapping::{ItsIndex, MappedDevice, NoRoom};
use crate::monitor::events::RegisterFrame;
use crate::sync::{AtomicU64, Ordering};
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, SortedMap};

/// One ITS's mappings and enable state.
pub(super) struct Translator {
    /// Register frame of the ITS.
    pub(super) frame: RegisterFrame,
    pub(super) enabled: bool,
    device_table: Arc<DeviceTable>,
    mapped_devices: DeviceUsage,
    /// vCPUs of mapped collections.
    collections: SortedMap<u16, u16>,
}

impl Translator {
    /// Creates an ITS with registers at `base`, disabled and without mappings.
    pub(super) fn new(base: u64, device_table: Arc<DeviceTable>) -> Result<Self, OutOfMemory> {
        Ok(Self {
            frame: RegisterFrame::Its(base),
            enabled: false,
            mapped_devices: device_table.no_devices()?,
            device_table,
            collections: SortedMap::new(),
        })
    }

    /// Publishes whether the ITS accepts messages. Only used to report why a message was dropped.
    pub(super) fn publish(&self, accepts: bool) {
        self.device_table.accepts.set(accepts.into());
    }

    /// Returns a device's entry in the device table.
    pub(super) fn dte(&self, device: u32) -> Option<&AtomicU64> {
        self.device_table.get(device)
    }

    /// Returns the device table.
    pub(super) fn device_table(&self) -> Arc<DeviceTable> {
        self.device_table.clone()
    }

    /// Returns a device's MAPD operands, if it is mapped.
    pub(super) fn device(&self, device: u32) -> Option<MappedDevice> {
        self.device_table.mapped(device, &self.mapped_devices)
    }

    /// Returns the first mapped device at or after this DeviceID.
    pub(super) fn device_from(&self, first: u32) -> Option<(u32, MappedDevice)> {
        self.device_table.mapped_from(first, &self.mapped_devices)
    }

    /// Returns the number of mapped devices.
    pub(super) const fn device_count(&self) -> usize {
        self.mapped_devices.devices()
    }

    /// Returns the mapped devices, in ascending order.
    pub(super) fn mapped_devices(&self) -> impl Iterator<Item = (u32, MappedDevice)> {
        let from = |first: u32| self.device_from(first);
        core::iter::successors(from(0), move |(device, _)| from(device.checked_add(1)?))
    }

    /// Maps a device. At most `limit` devices can be mapped.
    pub(super) fn map_device(
        &mut self,
        device: u32,
        mapped: MappedDevice,
        limit: usize,
    ) -> Result<(), NoRoom> {
        if self.mapped_devices.devices() >= limit {
            return Err(NoRoom::Budget);
        }
        let dte = self.device_table.map(device, mapped, &mut self.mapped_devices)?;
        let link = Link::NONE.of_device(mapped.event_bits.into());
        dte.store(link.bits(), Ordering::SeqCst);
        Ok(())
    }

    /// Unmaps a device, so that its entries are no longer reachable. Returns the entries that still
    /// have to be closed, or `None` if the device isn't mapped.
    pub(super) fn unmap_device(&mut self, device: u32) -> Option<IttTeardown> {
        let MappedDevice { event_bits, .. } = self.device(device)?;
        let link = |dte: &AtomicU64| dte.swap(Link::NONE.bits(), Ordering::SeqCst);
        let root = self.dte(device).map(|dte| Link::from_bits(link(dte)))?;
        self.device_table.unmap(device, &mut self.mapped_devices);
        Some(IttTeardown::of(root, event_bits.into()))
    }

    /// Returns a mapped collection's vCPU.
    pub(super) fn collection(&self, collection: u16) -> Option<u16> {
        self.collections.get(collection).copied()
    }

    /// Returns the mapped collections with their vCPUs, in ascending order.
    pub(super) fn collections(&self) -> impl Iterator<Item = (u16, u16)> {
        self.collections.iter().map(|(collection, vcpu)| (collection, *vcpu))
    }

    /// Maps a collection to a vCPU.
    pub(super) fn map_collection(&mut self, collection: u16, vcpu: u16) -> Result<(), OutOfMemory> {
        self.collections.reserve()?;
        self.collections.insert(collection, vcpu);
        Ok(())
    }

    /// Unmaps a collection. Returns `true` if the collection was mapped.
    pub(super) fn unmap_collection(&mut self, collection: u16) -> bool {
        self.collections.remove(collection).is_some()
    }

    /// Unmaps all collections starting at this number.
    pub(super) fn unmap_collections_from(&mut self, first: u16) {
        self.collections.retain(|collection, _| collection < first);
    }
}

/// The ITSes' mappings, by [`ItsIndex`].
pub(super) struct TranslatorList(Vec<Translator>);

impl TranslatorList {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds an ITS.
    pub(super) fn add(
        &mut self,
        base: u64,
        device_table: Arc<DeviceTable>,
    ) -> Result<ItsIndex, NoRoom> {
        let index = u16::try_from(self.0.len()).ok().filter(|index| *index < u16::MAX);
        let index = index.ok_or(NoRoom::Budget)?;
        self.0.try_reserve(1).map_err(OutOfMemory::from)?;
        self.0.push(Translator::new(base, device_table)?);
        Ok(ItsIndex::new(index))
    }

    pub(super) fn get(&self, its: ItsIndex) -> Option<&Translator> {
        self.0.get(usize::from(its.get()))
    }

    pub(super) fn get_mut(&mut self, its: ItsIndex) -> Option<&mut Translator> {
        self.0.get_mut(usize::from(its.get()))
    }
}
