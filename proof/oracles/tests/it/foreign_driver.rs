//! Replays the recorded accesses of another ITS driver against the model. The file
//! `data/linux-6.1-virt.trace` holds Linux's writes to QEMU's GICv3, and states how they were
//! recorded. The test writes the same values to `vgic`, and every message in the recording must
//! arrive at the CPU that Linux had chosen, even while the model is repeatedly replaced by new
//! ones.
//!
//! The commands in this test are encoded from the figures in IHI 0069 §5.3, not by `gic-arch`.

use doorbell_test_support::guest::{Machine, RAM, ram};
use gic_arch::icc;
use msi_types::Delivery;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use vgic::its::{ItsConfig, PageSizes};
use vgic::saved_state::SavedState;
use vgic::{AccessWidth, GuestMemory, VgicConfig, VmMemory};

const TRACE: &str = include_str!("../../data/linux-6.1-virt.trace");

const DISTRIBUTOR: u64 = 0x0800_0000;
const ITS: u64 = 0x0808_0000;
const REDISTRIBUTORS: u64 = 0x080A_0000;
const REDISTRIBUTOR_STRIDE: u64 = 0x2_0000;
/// Size of the recorded machine's memory.
const RAM_BYTES: usize = 0x2000_0000;
/// A page that the recorded machine doesn't use otherwise, for the second level of the device
/// table.
const SECOND_LEVEL: u64 = 0x5F00_0000;

const GITS_TYPER: u64 = 0x0008;
const GITS_IIDR: u64 = 0x0004;
const GITS_CBASER: u64 = 0x0080;
const GITS_BASER0: u64 = 0x0100;
const GICR_PROPBASER: u64 = 0x0070;

/// A change of a saved state.
type Change = fn(&mut SavedState);

/// The recorded machine, with the model in place of QEMU's GIC.
struct Replay {
    machine: Machine,
    /// Queue offset of Linux's next command.
    slot: u64,
    /// The mappings that Linux has made: (DeviceID, EventID) → (INTID, collection).
    events: HashMap<(u64, u64), (u64, u64)>,
    /// The events whose LPIs Linux has enabled.
    enabled: HashSet<(u64, u64)>,
    messages: usize,
    /// The model migrates before each access and during each message, and this changes the saved
    /// state.
    migration: Option<Change>,
}

impl Replay {
    fn new(migration: Option<Change>) -> Self {
        let its = ItsConfig::new(ITS).with_page_sizes(PageSizes::Any);
        let config = VgicConfig::new(2).with_lpi_id_bits(Some(16)).with_its(vec![its]);
        let mut machine = Machine::over(config, Arc::new(VmMemory(ram(RAM, RAM_BYTES))));
        for cpu in [0, 1] {
            machine.msr(cpu, icc::PMR.encoding(), 0xF0);
            machine.msr(cpu, icc::IGRPEN1.encoding(), 1);
        }
        let (events, enabled) = (HashMap::new(), HashSet::new());
        Self { machine, slot: 0, events, enabled, messages: 0, migration }
    }

    /// Replaces the model with a new one if migrations are enabled.
    fn perhaps_migrate(&mut self) {
        assert_eq!(self.machine.kicks.total(), 0, "a vCPU was kicked although it never slept");
        if let Some(change) = self.migration {
            let mut saved = self.machine.save();
            change(&mut saved);
            let sent = postcard::to_allocvec(&saved).unwrap();
            self.machine = self.machine.successor();
            self.machine.restore(&postcard::from_bytes(&sent).unwrap());
        }
    }

    fn line(&mut self, line: &str) {
        self.perhaps_migrate();
        let (kind, rest) = line.split_once(' ').unwrap();
        let words: Vec<&str> = rest.split(' ').collect();
        match kind {
            "dist" => self.write(DISTRIBUTOR, &words),
            "redist0" => self.write(REDISTRIBUTORS, &words),
            "redist1" => self.write(REDISTRIBUTORS + REDISTRIBUTOR_STRIDE, &words),
            "its-write" => self.write(ITS, &words),
            "its-read" => self.compare(&words, line),
            "cmd" => self.command(words[0], &words[1..]),
            "message" => self.message(hex(words[0]), hex(words[1]), line),
            other => panic!("unknown record {other}"),
        }
    }

    fn write(&self, base: u64, words: &[&str]) {
        let [offset, bytes, value] = words else { panic!("{words:?}") };
        self.machine.write(base + hex(offset), width(bytes), hex(value));
    }

    /// Compares a value that Linux read with the value from the model, except in identification
    /// registers.
    fn compare(&self, words: &[&str], line: &str) {
        let [offset, bytes, value] = words else { panic!("{words:?}") };
        if [GITS_TYPER, GITS_IIDR].contains(&hex(offset)) {
            return;
        }
        let ours = self.machine.read(ITS + hex(offset), width(bytes));
        assert_eq!(format!("{ours:x}"), format!("{:x}", hex(value)), "{line}");
    }

    fn command(&mut self, name: &str, operands: &[&str]) {
        let operands: Vec<u64> = operands.iter().copied().map(hex).collect();
        self.prepare_memory(name, &operands);
        let words = encode(name, &operands);
        let queue = self.read_its(GITS_CBASER) & 0xF_FFFF_FFFF_F000;
        for (index, word) in (0..).zip(words) {
            self.machine.ram.write_u64(queue + self.slot * 32 + index * 8, word).unwrap();
        }
        self.slot += 1;
        match (name, operands.as_slice()) {
            ("MAPTI", &[device, event, intid, collection]) => {
                self.events.insert((device, event), (intid, collection));
            }
            ("MOVI", &[device, event, collection]) => {
                self.events.get_mut(&(device, event)).unwrap().1 = collection;
            }
            ("DISCARD", &[device, event]) => {
                self.events.remove(&(device, event)).unwrap();
            }
            _ => {}
        }
    }

    /// Performs the memory writes that accompany a command.
    fn prepare_memory(&mut self, name: &str, operands: &[u64]) {
        match (name, operands) {
            ("MAPD", _) => {
                let first_level = self.read_its(GITS_BASER0) & 0xFFFF_FFFF_0000;
                self.machine.ram.write_u64(first_level, 1 << 63 | SECOND_LEVEL).unwrap();
            }
            ("INV", &[device, event]) => {
                let propbaser = REDISTRIBUTORS + GICR_PROPBASER;
                let table = self.machine.read(propbaser, AccessWidth::Double);
                let (intid, _) = self.events[&(device, event)];
                let byte = if self.enabled.insert((device, event)) {
                    0xA3
                } else {
                    self.enabled.remove(&(device, event));
                    0xA2
                };
                self.machine
                    .ram
                    .write((table & 0xF_FFFF_FFFF_F000) + intid - 8192, &[byte])
                    .unwrap();
            }
            _ => {}
        }
    }

    /// Sends a device message. Only the CPU that the event's collection targets may receive the
    /// interrupt.
    fn message(&mut self, device: u64, event: u64, line: &str) {
        let (device, event) = (u32::try_from(device).unwrap(), u32::try_from(event).unwrap());
        assert_eq!(self.machine.send(device, event), Delivery::Pending, "{line}");
        self.perhaps_migrate();
        let (intid, collection) = self.events[&(device.into(), event.into())];
        let expected = [0, 1].map(|cpu| if cpu == collection { intid } else { 1023 });
        assert_eq!([0, 1].map(|cpu| self.machine.handle(cpu)), expected, "{line}");
        self.messages += 1;
    }

    fn read_its(&self, offset: u64) -> u64 {
        self.machine.read(ITS + offset, AccessWidth::Double)
    }
}

fn encode(name: &str, operands: &[u64]) -> [u64; 4] {
    match (name, operands) {
        ("MAPC", &[collection, target, valid]) => {
            [0x09, 0, valid << 63 | target << 16 | collection, 0]
        }
        ("MAPD", &[device, size, itt, valid]) => [device << 32 | 0x08, size, valid << 63 | itt, 0],
        ("MAPTI", &[device, event, intid, collection]) => {
            [device << 32 | 0x0A, intid << 32 | event, collection, 0]
        }
        ("MOVI", &[device, event, collection]) => [device << 32 | 0x01, event, collection, 0],
        ("DISCARD", &[device, event]) => [device << 32 | 0x0F, event, 0, 0],
        ("INV", &[device, event]) => [device << 32 | 0x0C, event, 0, 0],
        ("INVALL", &[collection]) => [0x0D, 0, collection, 0],
        ("SYNC", &[target]) => [0x05, 0, target << 16, 0],
        other => panic!("{other:?}"),
    }
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap()
}

fn width(bytes: &str) -> AccessWidth {
    match bytes {
        "1" => AccessWidth::Byte,
        "4" => AccessWidth::Word,
        "8" => AccessWidth::Double,
        other => panic!("{other} bytes"),
    }
}

/// Replays the whole recording.
fn replay(migration: Option<Change>) {
    let mut replay = Replay::new(migration);
    for line in TRACE.lines().filter(|line| !line.starts_with('#')) {
        replay.line(line);
    }
    assert_eq!(replay.machine.kicks.total(), 0, "a vCPU was kicked although it never slept");
    assert_eq!(replay.messages, TRACE.lines().filter(|line| line.starts_with("message")).count());
    assert!(replay.messages > 20, "the recording has messages");
    assert!(replay.events.is_empty(), "Linux discarded every event");
    assert_eq!(replay.machine.gic.command_faults(0).unwrap().to_string(), "no command faults");
}

#[test]
fn messages_of_the_linux_driver_reach_their_target_cpus() {
    replay(None);
}

#[test]
fn messages_of_the_linux_driver_survive_migrations() {
    replay(Some(|_| {}));
}

#[test]
#[should_panic(expected = "right` failed: message")]
fn a_migration_that_drops_pending_events_loses_messages() {
    replay(Some(|saved| {
        let devices = saved.its.iter_mut().flat_map(|its| &mut its.devices);
        devices.flat_map(|device| &mut device.events).for_each(|event| event.pending = false);
    }));
}
