//! GICv2 discovery.

use super::{GicV2, GicV2Config, MAX_CPUS};
use crate::frame::{Frame, is_v3_or_later};
use crate::{Block, GicError, MmioExt, PhysicalRegion, Platform};
use core::num::NonZeroU8;
use doorbell_lock::IrqLock;
use gic_arch::gicd::{self, Ctlr};
use msi_types::Cpu;

impl<P: Platform> GicV2<P> {
    /// Creates the driver for a GICv2 and brings its SPIs to a known state: disabled, inactive, not
    /// pending, level-triggered, and routed to the calling CPU, `boot`. Interrupts are not enabled
    /// at any CPU yet. Must be called once.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`GicError::NotMapped`] if the platform cannot map a frame; [`GicError::OtherVersion`] or
    /// [`GicError::WrongRevision`] if the distributor is not a GICv2's; [`GicError::UnknownCpu`] if
    /// `boot` is not below [`GicV2Config::cpus`], or if `cpus` exceeds eight;
    /// [`GicError::NoTarget`] if the calling CPU cannot find its CPU interface number.
    pub fn new(platform: P, config: GicV2Config, boot: Cpu) -> Result<Self, GicError> {
        let block = Block::Distributor(config.distributor);
        if boot.index() >= config.cpus || config.cpus > MAX_CPUS {
            return Err(GicError::UnknownCpu(boot));
        }
        let map = |base, bytes, block| {
            platform.map(PhysicalRegion { base, bytes }).ok_or(GicError::NotMapped(block))
        };
        let distributor = map(config.distributor, gicd::GICV2_FRAME_SIZE, block)?;
        if is_v3_or_later(&distributor) {
            return Err(GicError::OtherVersion { block, found: "GICv3 or later" });
        }
        let frame = Frame::probe_v2(distributor, block)?;
        let interface = map(config.cpu_interface, config.interface_bytes(), Block::CpuInterface)?;
        let typer = frame.mmio.read(gicd::TYPER);
        let new = Self {
            platform,
            config,
            frame,
            interface,
            typer,
            targets: Default::default(),
            claims: IrqLock::default(),
        };
        new.init(new.own_target(boot)?);
        Ok(new)
    }

    fn init(&self, boot: NonZeroU8) {
        self.frame.mmio.write(gicd::CTLR, Ctlr::new());
        let targets = u32::from_ne_bytes([boot.get(); 4]);
        for block in 1..self.typer.spi_end().div_ceil(32) {
            self.reset(block);
            for register in self.target_registers(block) {
                self.frame.mmio.write(register, targets);
            }
        }
        self.frame.mmio.write(gicd::CTLR, Ctlr::new().with_enable_grp0(true));
    }
}
