//! A guest that brings up its interrupt controller in steps. Tests omit, reorder or corrupt steps.

pub(crate) use doorbell_test_support::guest::mapc;
use doorbell_test_support::guest::{self, ITS, Machine, RAM};
use gic_arch::gicr::{Ctlr, Propbaser};
use gic_arch::its::Command;
use gic_arch::{IntId, gicr};
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{Cpu, DeviceId, EventId, HwIrq};
use vgic::its::ItsConfig;
use vgic::{GuestMemory, VgicConfig};

pub(crate) const CONFIGURATION: u64 = RAM + 0x10_0000;
pub(crate) const PENDING: u64 = RAM + 0x20_0000;
/// Interrupt translation table of the device.
pub(crate) const ITT: u64 = RAM + 0x38_0000;
pub(crate) const DEVICE: DeviceId = DeviceId::new(0x10);
pub(crate) const EVENT: EventId = EventId::new(0);
/// The LPI to which the event is mapped.
pub(crate) const LPI: HwIrq = HwIrq::new(8192);
pub(crate) const CPU: Cpu = Cpu::new(0);
/// Number of INTID bits of the distributor and of the LPI tables.
pub(crate) const ID_BITS: u8 = 14;

/// A machine and its guest.
pub(crate) struct Guest {
    pub(crate) machine: Machine,
}

pub(crate) fn config() -> VgicConfig {
    VgicConfig::new(2).with_lpi_id_bits(Some(ID_BITS)).with_its(vec![ItsConfig::new(ITS)])
}

impl Guest {
    /// Creates a guest whose CPUs are on and that has configured one LPI.
    pub(crate) fn new(config: VgicConfig) -> Self {
        let guest = Self { machine: Machine::running(config) };
        guest.configure(0xa1);
        guest
    }

    /// Creates a guest that has mapped event 0 of device 0x10 to LPI 8192 at vCPU 0.
    pub(crate) fn working() -> Self {
        Self::working_with(config())
    }

    pub(crate) fn working_with(config: VgicConfig) -> Self {
        let guest = Self::new(config);
        guest.enable_lpis();
        guest.machine.start_its();
        guest.machine.run([mapc(0, 0), mapd(1), mapti(0, 8192, 0)]);
        guest
    }

    /// Writes the configuration byte of LPI 8192.
    pub(crate) fn configure(&self, byte: u8) {
        self.machine.ram.write(CONFIGURATION, &[byte]).unwrap();
    }

    pub(crate) fn enable_lpis(&self) {
        self.machine.enable_lpis(ID_BITS, CONFIGURATION, PENDING);
    }

    /// Sets `EnableLPIs` at vCPU 0 without programming tables.
    pub(crate) fn set_enable_lpis(&self) {
        self.machine.write_gicr(0, gicr::CTLR, Ctlr::new().with_enable_lpis(true));
    }

    pub(crate) fn send(&self) {
        let _ = self.machine.send(DEVICE.get(), EVENT.get());
    }

    pub(crate) fn explain(&self) -> Explanation {
        self.machine.gic.explain(0, DEVICE, EVENT)
    }

    /// Returns the obstacle of the event.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        self.explain().obstacle()
    }

    pub(crate) fn obstacle_of(&self, cpu: u32, intid: u32) -> Option<Obstacle> {
        self.machine.gic.explain_interrupt(Cpu::new(cpu), IntId::new(intid)).obstacle()
    }
}

/// Returns `GICR_PROPBASER` for the configuration table.
pub(crate) fn propbaser() -> Propbaser {
    Propbaser::new().with_id_bits_minus_one(ID_BITS - 1).with_address(CONFIGURATION)
}

pub(crate) fn facts(explanation: &Explanation) -> Vec<Fact> {
    explanation.facts().collect()
}

pub(crate) fn mapd(event_bits: u8) -> Command {
    guest::mapd(DEVICE.get(), event_bits, ITT)
}

pub(crate) fn mapti(event: u32, intid: u32, collection: u16) -> Command {
    guest::mapti(DEVICE.get(), event, intid, collection)
}
