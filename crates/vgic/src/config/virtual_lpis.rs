//! What the ID registers say of virtual LPIs (GICv4), which somebody else provides.

use super::{ConfigError, VgicConfig};
use crate::its::ItsConfig;
use core::ops::Range;
use gic_arch::gicr;

/// Virtual LPIs (GICv4), as `GICD_TYPER.DVIS`, `GICR_TYPER.VLPIS` and `PIDR2.ArchRev` announce them. **This model has
/// none.** A monitor that announces them provides them: it serves the frames of [`VgicConfig::virtual_lpi_frames`] and, in
/// GICv4.1, the virtual forms of `GICR_INVLPIR` and `GICR_INVALLR`, before it hands an access to the model. What reaches
/// the model reads as zero and is ignored; in the frames it is counted as
/// [`UnknownRegister`](crate::FaultReason::UnknownRegister). What the monitor holds is not in a saved state, but that it is
/// there is compared.
///
/// vPEIDs have 16 bits (`GICD_TYPER2.VIL` = 0); there are no virtual SGIs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VirtualLpis {
    /// Which.
    pub version: VirtualLpiVersion,
    /// `GICR_VPENDBASER.Dirty` says when the virtual pending table is read completely (`GICR_TYPER.Dirty`).
    pub dirty: bool,
}

/// The versions of virtual LPIs. They differ in the layouts of registers and commands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum VirtualLpiVersion {
    /// GICv4.
    V4_0,
    /// GICv4.1: redistributors have a table of vPEs (`GICR_TYPER.RVPEID`, `GITS_TYPER.VMAPP`).
    V4_1,
}

impl VgicConfig {
    /// Where the frames for virtual LPIs lie, in the order of vCPUs: VLPI_base and the reserved frame after it. Empty
    /// without [`virtual_lpis`](Self::virtual_lpis).
    pub fn virtual_lpi_frames(&self) -> impl Iterator<Item = Range<u64>> {
        let frames = self.redistributor_frames().filter(|_| self.virtual_lpis.is_some());
        frames.map(|frame| frame.base + gicr::STRIDE_V3..frame.base + gicr::STRIDE_V4)
    }

    pub(super) fn validate_virtual_lpis(&self) -> Result<(), ConfigError> {
        let version = self.virtual_lpis.map(|virtual_lpis| virtual_lpis.version);
        self.its.iter().try_for_each(|its| matches_redistributors(its, version))?;
        if version.is_none() {
            return Ok(());
        }
        if self.lpi_id_bits.is_none() {
            return Err(ConfigError::VirtualLpisWithoutLpis);
        }
        match self.redistributors.iter().find(|region| region.stride < gicr::STRIDE_V4) {
            Some(region) => Err(ConfigError::VirtualLpiStride(region.stride)),
            None => Ok(()),
        }
    }
}

/// An ITS may lack virtual LPIs where redistributors have them, not the other way round.
fn matches_redistributors(its: &ItsConfig, version: Option<VirtualLpiVersion>) -> Result<(), ConfigError> {
    match its.virtual_lpis.map(|virtual_lpis| virtual_lpis.version) {
        Some(announced) if version != Some(announced) => {
            Err(ConfigError::VirtualLpisOfIts { its: its.base, announced })
        }
        _ => Ok(()),
    }
}
