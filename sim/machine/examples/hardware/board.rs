//! The example board: RAM, plus a GIC model that lives in this process.

use doorbell_hardware::bus::{AccessWidth, Bus, MmioDevice};
use doorbell_hardware::platform::{Executing, MachinePlatform};
use doorbell_hardware::ram::{Caches, Ram};
use gic_arch::icc::SysRegEncoding;
use gic_driver::{PhysicalRegion, RedistributorRegion, SystemRegisters};
use gic_firmware::Region;
use msi_types::Cpu;
use std::sync::{Arc, Mutex, PoisonError};
use std::{error::Error, fmt};
use vgic::{Block, Vcpu, Vgic, VgicConfig};

/// The distributor's address.
pub(crate) const DISTRIBUTOR: u64 = 0x0800_0000;

/// The machine that the examples run on.
pub(crate) struct Board {
    /// The GIC model, which receives the devices' messages.
    pub(crate) gic: Arc<Vgic>,
    /// What a kernel on this board passes to its drivers: addresses, memory and barriers.
    pub(crate) platform: Arc<MachinePlatform>,
    /// The redistributors' addresses.
    pub(crate) redistributors: RedistributorRegion,
    vcpus: Vec<Mutex<Vcpu>>,
}

impl Board {
    /// Creates a board with a GIC of this configuration and powers it on.
    pub(crate) fn new(config: VgicConfig) -> Result<Self, Box<dyn Error>> {
        let region = |base, bytes| Region::new(base, bytes).ok_or("an empty region");
        let ram = Arc::new(Ram::new(&[region(0x4000_0000, 0x100_0000)?], Caches::Snooped));
        let (gic, vcpus) = Vgic::new(config, ram.clone(), Arc::new(|_: Cpu| ()))?;
        let (mut bus, mut redistributors) = (Bus::default(), PhysicalRegion { base: 0, bytes: 0 });
        for frames in gic.regions() {
            let (base, bytes) =
                (frames.addresses.start, frames.addresses.end - frames.addresses.start);
            let device = Arc::new(Frames { gic: gic.clone(), base });
            bus.attach(&format!("{:?}", frames.block), region(base, bytes)?, device)?;
            if matches!(frames.block, Block::Redistributors(_)) {
                redistributors = PhysicalRegion { base, bytes };
            }
        }
        let platform = Arc::new(MachinePlatform::new(Arc::new(bus), ram));
        let redistributors = RedistributorRegion::new(redistributors);
        let vcpus = vcpus.into_iter().map(Mutex::new).collect();
        Ok(Self { gic, platform, redistributors, vcpus })
    }

    /// Executes `code` on a CPU with interrupts masked.
    pub(crate) fn execute<R>(&self, cpu: Cpu, code: impl FnOnce(&Registers<'_>) -> R) -> R {
        let _executing = Executing::in_exception(cpu);
        code(&Registers(&self.vcpus[cpu.index()]))
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Board").finish_non_exhaustive()
    }
}

/// Attaches the model's register frames to the bus.
struct Frames {
    gic: Arc<Vgic>,
    base: u64,
}

impl MmioDevice for Frames {
    fn read(&self, offset: u64, width: AccessWidth) -> u64 {
        self.gic.read(self.base + offset, width).unwrap_or(width.mask())
    }

    fn write(&self, offset: u64, width: AccessWidth, value: u64) {
        // Writes to addresses that no frame claims are ignored.
        let _ = self.gic.write_until_done(self.base + offset, width, value);
    }
}

/// The CPU's system registers; on hardware, this would be `gic_driver::sysreg::CpuRegisters`.
#[derive(Debug)]
pub(crate) struct Registers<'a>(&'a Mutex<Vcpu>);

impl SystemRegisters for Registers<'_> {
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        let mut vcpu = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        vcpu.read_sysreg(register).unwrap_or(0)
    }

    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        let mut vcpu = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Ignore writes to unimplemented registers.
        let _ = vcpu.write_sysreg(register, value);
    }
}
