//! Tables in guest memory whose addresses a snapshot's attributes contain.

use super::KvmSnapshot;
use crate::abi::{Attribute, DeviceEntry, Errno};
use crate::left_out::{LeftOut, TableMemory};
use crate::register::KvmDevice;
use crate::tables::scan::{self, ENTRY, IDS};
use alloc::vec::Vec;
use doorbell_fallible::try_push;
use gic_arch::gicr::{self, Ctlr, Pendbaser, Propbaser};
use gic_arch::gits::{self, Baser, Cbaser};
use gic_arch::{Affinity, lpi};
use msi_types::DeviceId;
use vgic::GuestMemory;

/// Maximum number of INTID bits on KVM.
const ID_BITS: u8 = 16;
/// Maximum number of tables, after which no more devices are listed. Suffices for every DeviceID of
/// two ITSes.
const MOST_TABLES: usize = 1 << 17;

/// A table in guest memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SnapshotTable {
    /// Use of the table.
    pub usage: TableUse,
    /// Guest physical address.
    pub address: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Use of a [`SnapshotTable`]. ITSes are identified by their index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TableUse {
    /// The command queue of an ITS (`GITS_CBASER`).
    Queue(usize),
    /// The device table of an ITS (`GITS_BASER0`), or its first level.
    Devices(usize),
    /// A second-level page of an ITS's device table.
    DevicePage(usize),
    /// The collection table of an ITS (`GITS_BASER1`).
    Collections(usize),
    /// The interrupt translation table of a device. The first field is the index of the device's
    /// ITS.
    Translations(usize, DeviceId),
    /// The configuration table of the LPIs (`GICR_PROPBASER`).
    Configuration,
    /// The pending table of a redistributor (`GICR_PENDBASER`).
    Pending(Affinity),
}

impl KvmSnapshot {
    /// Returns the tables that the attributes name. Reads the device tables from `memory` to find
    /// translation tables; a part that can't be read is treated as empty.
    ///
    /// # Errors
    /// `ENOMEM` if the heap is exhausted.
    pub fn tables(&self, memory: &dyn GuestMemory) -> Result<Vec<SnapshotTable>, Errno> {
        let mut left_out = LeftOut::default();
        let mut memory = TableMemory::new(memory, &mut left_out);
        let mut tables = Vec::new();
        for cpu in &self.cpus {
            self.lpi_tables(cpu.affinity, &mut tables)?;
        }
        for index in 0..self.its_count() {
            self.its_tables(index, &mut tables, &mut memory)?;
        }
        Ok(tables)
    }

    /// Lists the tables of a redistributor whose LPIs are enabled.
    fn lpi_tables(&self, cpu: Affinity, tables: &mut Vec<SnapshotTable>) -> Result<(), Errno> {
        let word = |offset| self.get(KvmDevice::Gic, Attribute::Redistributor { cpu, offset });
        let wide = |offset| Some(word(offset + 4)? << 32 | word(offset)?);
        let control = word(gicr::CTLR.offset()).unwrap_or(0);
        if !Ctlr::from(u32::try_from(control).unwrap_or(0)).enable_lpis() {
            return Ok(());
        }
        let configuration = wide(gicr::PROPBASER.offset()).map(Propbaser::from);
        let id_bits = configuration.map_or(0, Propbaser::id_bits).min(ID_BITS);
        if let Some(register) = configuration {
            let (usage, bytes) = (TableUse::Configuration, lpi::config_table_bytes(id_bits));
            let table = SnapshotTable { usage, address: register.address(), bytes };
            if !tables.contains(&table) {
                try_push(tables, table)?;
            }
        }
        if let Some(register) = wide(gicr::PENDBASER.offset()).map(Pendbaser::from) {
            let (usage, bytes) = (TableUse::Pending(cpu), lpi::pending_table_bytes(id_bits));
            try_push(tables, SnapshotTable { usage, address: register.address(), bytes })?;
        }
        Ok(())
    }

    fn its_tables(
        &self,
        index: usize,
        tables: &mut Vec<SnapshotTable>,
        memory: &mut TableMemory<'_>,
    ) -> Result<(), Errno> {
        let register =
            |offset: u64| self.get(KvmDevice::Its(index), Attribute::Its { offset }).unwrap_or(0);
        let first = u64::from(gits::BASER.info("").offset);
        let queue = Cbaser::from_bits(register(gits::CBASER.offset().into()));
        if queue.valid() {
            let (usage, bytes) = (TableUse::Queue(index), queue.bytes().into());
            try_push(tables, SnapshotTable { usage, address: queue.address(), bytes })?;
        }
        let collections = Baser::from_bits(register(first + 8));
        if collections.valid() {
            let (usage, bytes) = (TableUse::Collections(index), collections.bytes());
            let bytes = bytes.min(ENTRY * IDS);
            try_push(tables, SnapshotTable { usage, address: collections.address(), bytes })?;
        }
        let devices = Baser::from_bits(register(first));
        if devices.valid() {
            let (usage, bytes) = (TableUse::Devices(index), devices.bytes().min(ENTRY * IDS));
            try_push(tables, SnapshotTable { usage, address: devices.address(), bytes })?;
            translation_tables(index, devices, tables, memory)?;
        }
        Ok(())
    }
}

/// Lists the second-level pages of a device table, and the devices' translation tables.
fn translation_tables(
    its: usize,
    table: Baser,
    tables: &mut Vec<SnapshotTable>,
    memory: &mut TableMemory<'_>,
) -> Result<(), Errno> {
    for index in 0..scan::page_count(table, memory) {
        let Ok(Some(page)) = scan::page(table, index, memory) else { continue };
        if table.indirect() {
            let (usage, bytes) = (TableUse::DevicePage(its), ENTRY * page.entries);
            try_push(tables, SnapshotTable { usage, address: page.address, bytes })?;
        }
        let mut index = 0;
        while index < page.entries && tables.len() < MOST_TABLES {
            let Ok(word) = memory.read_u64(page.address + ENTRY * index) else { break };
            let entry = DeviceEntry::from_bits(word);
            if !entry.valid() {
                index += 1;
                continue;
            }
            let device = DeviceId::new(u32::try_from(page.first + index).unwrap_or(u32::MAX));
            let (usage, bytes) =
                (TableUse::Translations(its, device), ENTRY << (entry.event_bits_minus_one() + 1));
            try_push(tables, SnapshotTable { usage, address: entry.itt_address(), bytes })?;
            match entry.next() {
                0 => return Ok(()),
                distance => index += u64::from(distance),
            }
        }
    }
    Ok(())
}
