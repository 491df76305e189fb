//! Replays the recorded accesses of another ITS driver against the model. The file
//! `data/linux-6.1-virt.trace` holds Linux's writes to QEMU's GICv3, and states how they were
//! recorded. The test writes the same values to `vgic`, and every message in the recording must
//! arrive at the CPU that Linux had chosen, even while the model is repeatedly replaced by new
//! ones.
//!
//! The commands in this test are encoded from the figures in IHI 0069 §5.3, not by `gic-arch`.

use doorbell_test_support::guest::{Ram, ram};
use msi_types::{Delivery, DeviceId, MsiMessage};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use vgic::its::ItsConfig;
use vgic::saved_state::SavedState;
use vgic::{AccessWidth, GuestMemory, Vcpu, Vgic, VgicConfig, VmMemory};

const TRACE: &str = include_str!("../../data/linux-6.1-virt.trace");

const DISTRIBUTOR: u64 = 0x0800_0000;
const ITS: u64 = 0x0808_0000;
const REDISTRIBUTORS: u64 = 0x080A_0000;
const REDISTRIBUTOR_STRIDE: u64 = 0x2_0000;
/// The recorded machine's memory.
const RAM: u64 = 0x4000_0000;
const RAM_BYTES: usize = 0x2000_0000;
/// A page that the recorded machine doesn't use otherwise, for the second level of the device
/// table.
const SECOND_LEVEL: u64 = 0x5F00_0000;

const GITS_TYPER: u64 = 0x0008;
const GITS_IIDR: u64 = 0x0004;
const GITS_CBASER: u64 = 0x0080;
const GITS_BASER0: u64 = 0x0100;
const GICR_PROPBASER: u64 = 0x0070;
const ICC_PMR_EL1: u16 = 0xC230;
const ICC_IGRPEN1_EL1: u16 = 0xC667;
const ICC_IAR1_EL1: u16 = 0xC660;
const ICC_EOIR1_EL1: u16 = 0xC661;

/// The recorded machine, with the model in place of QEMU's GIC.
struct Replay {
    gic: Arc<Vgic>,
    vcpus: Vec<Vcpu>,
    ram: Arc<VmMemory<Ram>>,
    /// Queue offset of Linux's next command.
    slot: u64,
    /// The mappings that Linux has made: (DeviceID, EventID) → (INTID, collection).
    events: HashMap<(u64, u64), (u64, u64)>,
    /// The events whose LPIs Linux has enabled.
    enabled: HashSet<(u64, u64)>,
    messages: usize,
    /// Change that is made to the saved state in a migration. The model migrates before each access
    /// and during each message; `None` disables migrations.
    migration: Option<fn(&mut SavedState)>,
}

fn model(ram: &Arc<VmMemory<Ram>>) -> (Arc<Vgic>, Vec<Vcpu>) {
    let mut config = VgicConfig::new(2);
    config.lpi_id_bits = Some(16);
    let mut its = ItsConfig::new(ITS);
    its.page_sizes = vgic::its::PageSizes::Any;
    config.its = vec![its];
    Vgic::new(
        config,
        Arc::clone(ram) as _,
        Arc::new(|cpu| panic!("{cpu:?} was kicked although it never slept")),
    )
    .unwrap()
}

impl Replay {
    fn new(migration: Option<fn(&mut SavedState)>) -> Self {
        let ram = Arc::new(VmMemory(ram(RAM, RAM_BYTES)));
        let (gic, mut vcpus) = model(&ram);
        for vcpu in &mut vcpus {
            write_sysreg(vcpu, ICC_PMR_EL1, 0xF0);
            write_sysreg(vcpu, ICC_IGRPEN1_EL1, 1);
        }
        let (events, enabled) = (HashMap::new(), HashSet::new());
        Self { gic, vcpus, ram, slot: 0, events, enabled, messages: 0, migration }
    }

    /// Replaces the model with a new one if migrations are enabled.
    fn perhaps_migrate(&mut self) {
        let Some(on_the_way) = self.migration else { return };
        let paused: Vec<_> = self.vcpus.iter_mut().map(Vcpu::pause).collect();
        let mut saved = self.gic.save().unwrap();
        drop(paused);
        on_the_way(&mut saved);
        let sent = postcard::to_allocvec(&saved).unwrap();
        let (gic, mut vcpus) = model(&self.ram);
        let received: SavedState = postcard::from_bytes(&sent).unwrap();
        let paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
        gic.restore(&received).unwrap();
        drop(paused);
        (self.gic, self.vcpus) = (gic, vcpus);
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
        self.gic.write_until_done(base + hex(offset), width(bytes), hex(value)).unwrap();
    }

    /// Compares a value that Linux read with the value from the model, except in identification
    /// registers.
    fn compare(&self, words: &[&str], line: &str) {
        let [offset, bytes, value] = words else { panic!("{words:?}") };
        if [GITS_TYPER, GITS_IIDR].contains(&hex(offset)) {
            return;
        }
        let ours = self.gic.read(ITS + hex(offset), width(bytes)).unwrap();
        assert_eq!(format!("{ours:x}"), format!("{:x}", hex(value)), "{line}");
    }

    fn command(&mut self, name: &str, operands: &[&str]) {
        let operands: Vec<u64> = operands.iter().copied().map(hex).collect();
        self.prepare_memory(name, &operands);
        let words = encode(name, &operands);
        let queue = self.read_its(GITS_CBASER) & 0xF_FFFF_FFFF_F000;
        for (index, word) in (0..).zip(words) {
            self.ram.write_u64(queue + self.slot * 32 + index * 8, word).unwrap();
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
                self.ram.write_u64(first_level, 1 << 63 | SECOND_LEVEL).unwrap();
            }
            ("INV", &[device, event]) => {
                let table =
                    self.gic.read(REDISTRIBUTORS + GICR_PROPBASER, AccessWidth::Double).unwrap();
                let (intid, _) = self.events[&(device, event)];
                let byte = if self.enabled.insert((device, event)) {
                    0xA3
                } else {
                    self.enabled.remove(&(device, event));
                    0xA2
                };
                self.ram.write((table & 0xF_FFFF_FFFF_F000) + intid - 8192, &[byte]).unwrap();
            }
            _ => {}
        }
    }

    /// Sends a device message. Only the CPU that the event's collection targets may receive the
    /// interrupt.
    fn message(&mut self, device: u64, event: u64, line: &str) {
        let message = MsiMessage { address: ITS + 0x1_0040, data: u32::try_from(event).unwrap() };
        let sender = DeviceId::new(u32::try_from(device).unwrap());
        let answer = self.gic.its(0).unwrap().signal_msi(sender, message);
        assert_eq!(answer, Delivery::Pending, "{line}");
        self.perhaps_migrate();
        let (intid, collection) = self.events[&(device, event)];
        for (cpu, vcpu) in (0..).zip(&mut self.vcpus) {
            let expected = if cpu == collection { intid } else { 1023 };
            let acknowledged = read_sysreg(vcpu, ICC_IAR1_EL1);
            assert_eq!(acknowledged, expected, "CPU {cpu} at {line}");
            if acknowledged != 1023 {
                write_sysreg(vcpu, ICC_EOIR1_EL1, acknowledged);
            }
        }
        self.messages += 1;
    }

    fn read_its(&self, offset: u64) -> u64 {
        self.gic.read(ITS + offset, AccessWidth::Double).unwrap()
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

fn read_sysreg(vcpu: &mut Vcpu, packed: u16) -> u64 {
    vcpu.read_sysreg(gic_arch::icc::SysRegEncoding::from_packed(packed)).unwrap()
}

fn write_sysreg(vcpu: &mut Vcpu, packed: u16, value: u64) {
    vcpu.write_sysreg(gic_arch::icc::SysRegEncoding::from_packed(packed), value).unwrap();
}

/// Replays the whole recording.
fn replay(migration: Option<fn(&mut SavedState)>) {
    let mut replay = Replay::new(migration);
    for line in TRACE.lines().filter(|line| !line.starts_with('#')) {
        replay.line(line);
    }
    assert_eq!(replay.messages, TRACE.lines().filter(|line| line.starts_with("message")).count());
    assert!(replay.messages > 20, "the recording has messages");
    assert!(replay.events.is_empty(), "Linux discarded every event");
    assert_eq!(replay.gic.command_faults(0).unwrap().to_string(), "no command faults");
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
#[should_panic(expected = "CPU 0 at message")]
fn a_migration_that_drops_pending_events_loses_messages() {
    replay(Some(|saved| {
        let devices = saved.its.iter_mut().flat_map(|its| &mut its.devices);
        devices.flat_map(|device| &mut device.events).for_each(|event| event.pending = false);
    }));
}
