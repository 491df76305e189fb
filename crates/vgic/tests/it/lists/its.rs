//! A test machine with an ITS whose guest has mapped all events and collections.

use doorbell_test_support::guest::{self, ITS, Machine, RAM, mapc, mapd};
use gic_arch::Priority;
use gic_arch::its::Command;
use gic_arch::lpi::Config;
use msi_types::{Delivery, DeviceId, Kick};
use std::sync::Arc;
use vgic::its::ItsConfig;
use vgic::{GuestMemory, VgicConfig};

const CONFIGURATION: u64 = RAM + 0x10_0000;
const PENDING: u64 = RAM + 0x20_0000;
pub(crate) const DEVICE: DeviceId = DeviceId::new(1);

/// A machine whose device 1 has 16 events, mapped to LPIs starting at 8192 in order of decreasing
/// priority. Collection n is mapped to vCPU n.
pub(crate) struct Translated {
    pub(crate) machine: Machine,
}

fn config(cpus: u16) -> VgicConfig {
    VgicConfig::new(cpus).with_lpi_id_bits(Some(14)).with_its(vec![ItsConfig::new(ITS)])
}

impl Translated {
    pub(crate) const EVENTS: u32 = 16;

    pub(crate) fn new(cpus: u16) -> Self {
        Self::configured(cpus, |config| config)
    }

    pub(crate) fn configured(cpus: u16, with: impl FnOnce(VgicConfig) -> VgicConfig) -> Self {
        Self::booted(cpus, Machine::new(with(config(cpus))))
    }

    /// Creates a machine with the given kick handler.
    pub(crate) fn kicking(cpus: u16, kick: Arc<dyn Kick>) -> Self {
        Self::booted(cpus, Machine::kicking(config(cpus), kick))
    }

    fn booted(cpus: u16, mut machine: Machine) -> Self {
        machine.start();
        let this = Self { machine };
        for event in 0..Self::EVENTS {
            this.configure(event, true);
        }
        this.machine.enable_lpis(14, CONFIGURATION, PENDING);
        this.machine.start_its();
        this.map(cpus);
        this
    }

    fn map(&self, cpus: u16) {
        self.run((0..cpus).map(|cpu| mapc(cpu, cpu)));
        self.run([mapd(DEVICE.get(), 4, 0)]);
        self.run((0..Self::EVENTS).map(|event| mapti(event, 0)));
    }

    /// Writes the configuration byte of the event's LPI.
    pub(crate) fn configure(&self, event: u32, enable: bool) {
        let priority = Priority::new(u8::try_from(0x40 + 8 * event).unwrap());
        let byte = Config::new().with_enable(enable).with_priority(priority).into_bits();
        self.machine.ram.write(CONFIGURATION + u64::from(event), &[byte]).unwrap();
    }

    /// Returns whether the event's LPI is pending in vCPU 0's table in memory.
    pub(crate) fn is_saved(&self, event: u32) -> bool {
        let mut byte = [0];
        let lpi = 8192 + event;
        self.machine.ram.read(PENDING + u64::from(lpi / 8), &mut byte).unwrap();
        byte[0] & 1 << (lpi % 8) != 0
    }

    /// Writes commands to the queue, and updates `GITS_CWRITER`.
    pub(crate) fn run(&self, commands: impl IntoIterator<Item = Command>) {
        self.machine.queue(commands);
    }

    /// Returns `true` if the queue is empty.
    pub(crate) fn is_done(&self) -> bool {
        self.machine.is_queue_done()
    }

    pub(crate) fn send(&self, event: u32) -> Delivery {
        self.machine.send(DEVICE.get(), event)
    }
}

/// Maps an event to its LPI.
pub(crate) fn mapti(event: u32, collection: u16) -> Command {
    guest::mapti(DEVICE.get(), event, 8192 + event, collection)
}
