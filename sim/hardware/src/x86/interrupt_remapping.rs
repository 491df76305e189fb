//! An interrupt remapping unit (VT-d specification §5.1, §9.9), which reads the table that its
//! address register points to and caches entries until they are invalidated.

use super::local_apics::Arriving;
use crate::lock::lock;
use crate::ram::Ram;
use msi_types::{MsiMessage, RequesterId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use x86_irq::remapping::{EntryCache, InvalidationError};

/// Size of a table entry in bytes.
const ENTRY: u64 = 16;
/// EIME bit in the address register: entries hold 32-bit APIC IDs.
const EXTENDED: u64 = 1 << 11;
/// Maximum number of recorded faults.
const KEPT: usize = 64;

/// The remapping hardware.
pub struct RemappingUnit {
    ram: Arc<Ram>,
    /// Interrupt remapping table address register; 0 while the unit is disabled.
    table: AtomicU64,
    cache: Mutex<BTreeMap<u64, [u64; 2]>>,
    /// Senders of blocked messages, and fault reasons (VT-d specification §7.2.3.1).
    faults: Mutex<Vec<(RequesterId, u8)>>,
}

impl RemappingUnit {
    /// Creates a disabled unit. A disabled unit blocks all messages.
    pub fn new(ram: Arc<Ram>) -> Self {
        let table = AtomicU64::new(0);
        Self { ram, table, cache: Mutex::default(), faults: Mutex::default() }
    }

    /// Sets the table address register and enables the unit.
    pub fn set_table(&self, register: u64) {
        self.table.store(register, Ordering::Release);
        lock(&self.cache).clear();
    }

    /// Translates a message, or returns `None` if it is blocked.
    pub fn translate(&self, from: RequesterId, message: MsiMessage) -> Option<Arriving> {
        let translated = self.try_translate(from, message);
        translated
            .map_err(|reason| {
                let mut faults = lock(&self.faults);
                if faults.len() < KEPT {
                    faults.push((from, reason));
                }
            })
            .ok()
    }

    fn try_translate(&self, from: RequesterId, message: MsiMessage) -> Result<Arriving, u8> {
        let index = index(message)?;
        let register = self.table.load(Ordering::Acquire);
        if index >= 2 << (register & 0xf) {
            return Err(0x21);
        }
        let [low, high] = self.entry(register & !0xfff, index).ok_or(0x23)?;
        if low & 1 == 0 {
            return Err(0x22);
        }
        let reserved = 0xff00_7000;
        if low & reserved != 0 || low >> 15 & 1 != 0 || high >> 20 != 0 {
            return Err(0x24);
        }
        if !admits(high, from)? {
            return Err(0x26);
        }
        let destination = if register & EXTENDED == 0 { low >> 40 & 0xff } else { low >> 32 };
        Ok(Arriving {
            destination: u32::try_from(destination).unwrap_or(u32::MAX),
            logical: low >> 2 & 1 != 0,
            delivery_mode: u8::try_from(low >> 5 & 7).unwrap_or(u8::MAX),
            vector: u8::try_from(low >> 16 & 0xff).unwrap_or(0),
        })
    }

    /// Returns an entry from the cache or, if it isn't cached, from memory.
    fn entry(&self, base: u64, index: u64) -> Option<[u64; 2]> {
        let mut cache = lock(&self.cache);
        if let Some(entry) = cache.get(&index) {
            return Some(*entry);
        }
        let at = base + index * ENTRY;
        let entry = [self.ram.device_load64(at)?, self.ram.device_load64(at + 8)?];
        // An entry that isn't present must not be cached, because software need not invalidate the
        // cache when it makes the entry present.
        if entry[0] & 1 != 0 {
            cache.insert(index, entry);
        }
        Some(entry)
    }
}

/// Returns the index of the entry that a message refers to.
fn index(message: MsiMessage) -> Result<u64, u8> {
    let MsiMessage { address, data } = message;
    if address >> 20 != 0xfee {
        return Err(0x20);
    }
    if address >> 4 & 1 == 0 {
        // The unit blocks messages in compatibility format.
        return Err(0x25);
    }
    let handle = address >> 5 & 0x7fff | (address >> 2 & 1) << 15;
    if address >> 3 & 1 == 0 {
        return Ok(handle);
    }
    let subhandle = u64::from(data);
    if subhandle > 0xffff { Err(0x20) } else { Ok(handle + subhandle) }
}

/// Returns `true` if the entry permits messages from this sender.
fn admits(high: u64, from: RequesterId) -> Result<bool, u8> {
    let (source, sender) = (high & 0xffff, u64::from(from.get()));
    let ignored = match high >> 16 & 3 {
        0 => 0,
        1 => 0b100,
        2 => 0b110,
        _ => 0b111,
    };
    match high >> 18 & 3 {
        0 => Ok(true),
        1 => Ok((source ^ sender) & !ignored == 0),
        2 => Ok((source >> 8..=source & 0xff).contains(&(sender >> 8))),
        _ => Err(0x24),
    }
}

impl EntryCache for RemappingUnit {
    fn invalidate(&self, first: u16, log2_count: u8) -> Result<(), InvalidationError> {
        let first = u64::from(first);
        let count = 1u64.checked_shl(log2_count.into()).unwrap_or(u64::MAX);
        if !first.is_multiple_of(count) {
            return Err(InvalidationError { reason: "the range is not aligned to its size" });
        }
        lock(&self.cache).retain(|index, _| !(first..first.saturating_add(count)).contains(index));
        Ok(())
    }
}

msi_types::debug_by!(RemappingUnit as "RemappingUnit", |it| {faults: lock(&it.faults)});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::Caches;
    use gic_firmware::Region;

    const TABLE: u64 = 0x8000_0000;
    const DEVICE: RequesterId = RequesterId::new(0x0108);

    /// Returns a unit whose table has 16 entries in xAPIC mode. Entry 5 accepts messages from the
    /// device, and targets vector 0x61 at APIC 9.
    fn unit() -> (Arc<Ram>, RemappingUnit) {
        let region = Region::new(TABLE, 0x10_0000).unwrap();
        let ram = Arc::new(Ram::new(&[region], Caches::Snooped));
        ram.device_store64(TABLE + 5 * ENTRY, 9 << 40 | 0x61 << 16 | 1);
        ram.device_store64(TABLE + 5 * ENTRY + 8, 1 << 18 | 0x0108);
        let unit = RemappingUnit::new(Arc::clone(&ram));
        unit.set_table(TABLE | 3);
        (ram, unit)
    }

    /// Returns a message that selects an entry by its handle alone.
    fn naming(handle: u64) -> MsiMessage {
        MsiMessage { address: 0xfee0_0010 | handle << 5, data: 0 }
    }

    #[test]
    fn handle_and_subhandle_select_entry() {
        let (_, unit) = unit();
        let arriving = Arriving { destination: 9, logical: false, delivery_mode: 0, vector: 0x61 };
        assert_eq!(unit.translate(DEVICE, naming(5)), Some(arriving));
        let message = MsiMessage { address: 0xfee0_0018 | 3 << 5, data: 2 };
        assert_eq!(unit.translate(DEVICE, message), Some(arriving));
    }

    #[test]
    fn a_stopped_message_is_reported_with_its_sender_and_reason() {
        let (_, unit) = unit();
        let stranger = RequesterId::new(0x0109);
        let compatible = MsiMessage { address: 0xfee0_3000, data: 0x61 };
        for (device, message) in
            [(stranger, naming(5)), (DEVICE, naming(6)), (DEVICE, naming(16)), (DEVICE, compatible)]
        {
            assert_eq!(unit.translate(device, message), None);
        }
        let faults = lock(&unit.faults).clone();
        assert_eq!(faults, [(stranger, 0x26), (DEVICE, 0x22), (DEVICE, 0x21), (DEVICE, 0x25)]);
    }

    #[test]
    fn a_changed_entry_takes_effect_after_invalidation() {
        let (ram, unit) = unit();
        let vector = |unit: &RemappingUnit| unit.translate(DEVICE, naming(5)).map(|it| it.vector);
        assert_eq!(vector(&unit), Some(0x61));
        ram.device_store64(TABLE + 5 * ENTRY, 9 << 40 | 0x62 << 16 | 1);
        assert_eq!(vector(&unit), Some(0x61));
        unit.invalidate(4, 1).unwrap();
        assert_eq!(vector(&unit), Some(0x62));
        assert!(unit.invalidate(5, 1).is_err());
    }
}
