//! The example board: RAM, plus a GIC model that lives in this process.

use doorbell_hardware::bus::{Bus, Doorbells};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::{Caches, Ram};
use doorbell_machine::Migration;
use doorbell_machine::sequential::{CpuRegisters, GicCpus, GicHardware};
use gic_driver::{PhysicalRegion, RedistributorRegion};
use gic_firmware::Region;
use msi_types::{Cpu, Delivery, DeviceId, Level, Line, MsiMessage, SetLine, SignalMsi};
use std::error::Error;
use std::sync::Arc;
use vgic::VgicConfig;

/// The distributor's address.
pub(crate) const DISTRIBUTOR: u64 = 0x0800_0000;

/// The machine that the examples run on.
pub(crate) struct Board {
    /// What a kernel on this board passes to its drivers: addresses, memory and barriers.
    pub(crate) platform: Arc<MachinePlatform>,
    /// The redistributors' addresses.
    pub(crate) redistributors: RedistributorRegion,
    doorbells: Doorbells,
    lines: Arc<dyn SetLine>,
    cpus: GicCpus,
}

impl Board {
    /// Creates a board with a GIC of this configuration and powers it on.
    pub(crate) fn new(config: VgicConfig) -> Result<Self, Box<dyn Error>> {
        let region = Region::new(0x4000_0000, 0x100_0000).ok_or("an empty region")?;
        let ram = Arc::new(Ram::new(&[region], Caches::Snooped));
        let gic = GicHardware::new(config, ram.clone())?;
        let mut bus = Bus::default();
        gic.attach(&mut bus)?;
        let platform = Arc::new(MachinePlatform::new(Arc::new(bus), ram));
        let region = gic.config().redistributors.first().ok_or("no redistributors")?;
        let bytes = region.stride * u64::from(region.count);
        let redistributors = RedistributorRegion::new(PhysicalRegion { base: region.base, bytes });
        let (doorbells, lines) = (gic.doorbells(), gic.lines());
        let cpus = gic.power_on(Migration::Never, &platform);
        Ok(Self { platform, redistributors, doorbells, lines, cpus })
    }

    /// Executes `code` on a CPU with interrupts masked.
    pub(crate) fn execute<R>(&self, cpu: Cpu, code: impl FnOnce(&CpuRegisters<'_>) -> R) -> R {
        self.cpus.execute(cpu, code).expect("the board has the CPU")
    }
}

/// The targets of the devices' messages.
impl SignalMsi<DeviceId> for Board {
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        self.doorbells.signal_msi(from, message)
    }
}

/// The wired inputs.
impl SetLine for Board {
    fn set_line(&self, line: Line, level: Level) -> Delivery {
        self.lines.set_line(line, level)
    }

    fn pulse(&self, line: Line) -> Delivery {
        self.lines.pulse(line)
    }
}
