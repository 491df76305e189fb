//! Inspection of a running machine: explanations, and its `Debug` summary.

use crate::explain::explained;
use crate::vgic::Vgic;
use core::fmt;
use gic_arch::IntId;
use msi_types::explain::Explanation;
use msi_types::{Cpu, DeviceId, EventId};

impl Vgic {
    /// Explains why a device's event does not interrupt its vCPU. `its` is the ITS's index in
    /// [`VgicConfig::its`](crate::VgicConfig::its).
    ///
    /// The machine may keep running. A vCPU does not wait longer for an explanation than for
    /// another vCPU's register access.
    ///
    /// ```
    /// # use msi_types::{Cpu, DeviceId, EventId, Kick};
    /// # use std::sync::Arc;
    /// # use vgic::{GuestMemory, MemoryFault, Vgic, VgicConfig, its::ItsConfig};
    /// # struct Nothing;
    /// # impl GuestMemory for Nothing {
    /// #     fn read(&self, address: u64, _: &mut [u8]) -> Result<(), MemoryFault> {
    /// #         Err(MemoryFault { address })
    /// #     }
    /// #     fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
    /// #         Err(MemoryFault { address })
    /// #     }
    /// # }
    /// # impl Kick for Nothing {
    /// #     fn kick(&self, _: Cpu) {}
    /// # }
    /// # let its = vec![ItsConfig::new(0x808_0000)];
    /// # let config = VgicConfig::new(1).with_lpi_id_bits(Some(16)).with_its(its);
    /// # let (gic, _vcpus) = Vgic::new(config, Arc::new(Nothing), Arc::new(Nothing))?;
    /// let explanation = gic.explain(0, DeviceId::new(0x10), EventId::new(0));
    /// assert_eq!(
    ///     explanation.to_string(),
    ///     "doorbell: a controller receives messages at 0x8090040\n\
    ///      translation: GITS_CTLR.Enabled is 0 at 0x8080000\n\
    ///      fix: program GITS_BASER<n> and GITS_CBASER, then set GITS_CTLR.Enabled\n\
    ///      not examined: endpoint, bus\n"
    /// );
    /// # Ok::<(), vgic::ConfigError>(())
    /// ```
    pub fn explain(&self, its: usize, device: DeviceId, event: EventId) -> Explanation {
        explained(self, |explainer| explainer.explain_its(its, device, event))
    }

    /// Explains why an SGI, PPI, SPI or LPI does not interrupt this vCPU, like
    /// [`explain`](Self::explain). The LPI may become pending through an event or `GICR_SETLPIR`.
    pub fn explain_interrupt(&self, cpu: Cpu, intid: IntId) -> Explanation {
        explained(self, |explainer| explainer.explain_interrupt(cpu, intid))
    }
}

impl fmt::Debug for Vgic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vgic")
            .field("ctlr", &format_args!("{:#x}", self.wired.control()))
            .field("faults", &self.events.total())
            .field("cpus", &self.config.cpus.len())
            .field("its_count", &self.its.len())
            .finish_non_exhaustive()
    }
}
