//! An ITS that executes commands with a delay, and only those that are in the queue.

use super::board::{Memory, load64};
use std::collections::HashMap;

/// Fields: 16 bits each for DeviceID, EventID and collection, 8-byte entries, flat tables, targets
/// by processor number.
const TYPER: u64 = 15 << 13 | 15 << 8 | 7 << 4 | 1;

pub(crate) struct Its {
    memory: Memory,
    /// Number of `CREADR` reads before a command is executed.
    pub(crate) lag: u32,
    /// Set to make the ITS stop executing commands.
    pub(crate) hangs: bool,
    /// Number of times that the queue has wrapped.
    pub(crate) wraps: u32,
    looks: u32,
    control: u64,
    queue: u64,
    tables: [u64; 8],
    writer: u64,
    reader: u64,
    devices: HashMap<u64, u64>,
    events: HashMap<(u64, u64), (u64, u64)>,
    collections: HashMap<u64, u64>,
}

impl Its {
    pub(crate) fn new(memory: Memory) -> Self {
        let devices = 1 << 56 | 7 << 48;
        let collections = 4 << 56 | 7 << 48;
        Self {
            memory,
            lag: 0,
            hangs: false,
            wraps: 0,
            looks: 0,
            control: 0,
            queue: 0,
            tables: [devices, collections, 0, 0, 0, 0, 0, 0],
            writer: 0,
            reader: 0,
            devices: HashMap::new(),
            events: HashMap::new(),
            collections: HashMap::new(),
        }
    }

    /// Returns the INTID and redistributor for a device's event.
    pub(crate) fn translate(&self, device: u64, event: u32) -> Option<(u32, u64)> {
        let (intid, collection) = self.events.get(&(device, u64::from(event)))?;
        Some((u32::try_from(*intid).unwrap(), *self.collections.get(collection)?))
    }

    pub(crate) fn events(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn devices(&self) -> usize {
        self.devices.len()
    }

    pub(crate) fn read(&mut self, offset: u64, bytes: u32) -> u64 {
        match (offset, bytes) {
            (0x0000, _) => self.control | u64::from(self.control & 1 == 0) << 31,
            (0x0004, 4) => 0x43B,
            (0x0008, 8) => TYPER,
            (0x0080, 8) => self.queue,
            (0x0088, 8) => self.writer,
            (0x0090, 8) => self.creadr(),
            (0x0100..0x0140, 8) => self.tables[usize::try_from((offset - 0x100) / 8).unwrap()],
            (0xFFE8, 4) => 0x3B,
            other => panic!("read of {other:x?}"),
        }
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: u32, value: u64) {
        let disabled = self.control & 1 == 0;
        match (offset, bytes) {
            (0x0000, 4) => {
                let complete =
                    self.queue >> 63 != 0 && self.tables[..2].iter().all(|table| table >> 63 != 0);
                assert!(value & 1 == 0 || complete, "enabled without queue or tables");
                self.control = value & 1;
            }
            (0x0080, 8) => {
                assert!(disabled, "the queue was moved while enabled");
                self.queue = value;
                self.reader = 0;
            }
            (0x0088, 8) => self.set_writer(value),
            (0x0100..0x0140, 8) => {
                assert!(disabled, "a table was moved while in use");
                let table = &mut self.tables[usize::try_from((offset - 0x100) / 8).unwrap()];
                // Type and entry size are read-only, and tables cannot have a second level.
                let fixed = 7 << 56 | 31 << 48;
                let implemented = *table & 7 << 56 != 0;
                *table = if implemented { *table & fixed | value & !(fixed | 1 << 62) } else { 0 };
            }
            other => panic!("write of {other:x?}"),
        }
    }

    fn queue_bytes(&self) -> u64 {
        ((self.queue & 0xFF) + 1) * 0x1000
    }

    /// Checks that `CWRITER` never passes the slot before `CREADR`.
    fn set_writer(&mut self, value: u64) {
        assert_eq!(value & !0xF_FFE0, 0, "reserved bits of GITS_CWRITER");
        assert!(value < self.queue_bytes(), "GITS_CWRITER beyond the queue");
        let size = self.queue_bytes();
        if self.control & 1 != 0 {
            let outstanding = (self.writer + size - self.reader) % size;
            let posted = (value + size - self.writer) % size;
            assert!(outstanding + posted < size, "commands were overwritten before they were read");
            self.wraps += u32::from(value < self.writer);
        }
        self.writer = value;
    }

    fn creadr(&mut self) -> u64 {
        self.looks += 1;
        if self.looks > self.lag
            && !self.hangs
            && self.control & 1 != 0
            && self.reader != self.writer
        {
            self.looks = 0;
            let at = (self.queue & 0xF_FFFF_FFFF_F000) + self.reader;
            let words = [0, 8, 16, 24].map(|word| load64(&self.memory, at + word));
            self.execute(words);
            self.reader = (self.reader + 32) % self.queue_bytes();
        }
        self.reader
    }

    fn execute(&mut self, [w0, w1, w2, w3]: [u64; 4]) {
        let device = w0 >> 32;
        let event = w1 & 0xFFFF_FFFF;
        let collection = w2 & 0xFFFF;
        let valid = w2 >> 63 != 0;
        match w0 & 0xFF {
            // MOVI
            0x01 => {
                self.events.get_mut(&(device, event)).expect("MOVI of a mapped event").1 =
                    collection;
            }
            // INT, CLEAR, INV
            0x03 | 0x04 | 0x0C => {
                assert!(self.events.contains_key(&(device, event)), "event {event:#x}");
            }
            // SYNC
            0x05 => assert!(self.collections.values().any(|target| *target == w2 >> 16 & 0xFFFF)),
            // MAPD
            0x08 if valid => {
                assert_eq!(w2 & 0xFF, 0, "the table of device {device:#x} is not aligned");
                let entries = 2 << (w1 & 0x1F);
                let table = w2 & 0xF_FFFF_FFFF_FF00;
                for entry in 0..entries {
                    assert_eq!(load64(&self.memory, table + entry * 8), 0, "the table is not zero");
                }
                self.devices.insert(device, entries);
            }
            0x08 => {
                assert!(
                    self.events.keys().all(|(mapped, _)| *mapped != device),
                    "the device still has mapped events"
                );
                self.devices.remove(&device);
            }
            // MAPC
            0x09 if valid => drop(self.collections.insert(collection, w2 >> 16 & 0xFFFF)),
            0x09 => drop(self.collections.remove(&collection)),
            // MAPTI
            0x0A => {
                let entries = self.devices.get(&device).expect("MAPTI of a mapped device");
                assert!(event < *entries, "EventID {event:#x} is beyond the table");
                assert!(w1 >> 32 >= 8192, "INTID {} is no LPI", w1 >> 32);
                let before = self.events.insert((device, event), (w1 >> 32, collection));
                assert!(before.is_none(), "an event was mapped twice");
            }
            // INVALL
            0x0D => assert!(self.collections.contains_key(&collection)),
            // MOVALL
            0x0E => assert_ne!(w2, w3),
            // DISCARD
            0x0F => drop(self.events.remove(&(device, event)).expect("DISCARD of a mapped event")),
            other => panic!("command {other:#x}"),
        }
    }
}
