//! A guest's MSI controller.

use alloc::vec::Vec;
use vgic::its::ItsConfig;
use vgic::{V2mConfig, VgicConfig};

/// Addresses of a guest's ITS and GICv2m frame: the same as on `virt`.
const ITS: u64 = 0x0808_0000;
const V2M: u64 = 0x0802_0000;
/// First INTID and number of the SPIs that MBI or the GICv2m frame uses. As on `virt`, the range
/// begins above the wired SPIs.
pub(crate) const FIRST_SPI: u32 = 80;
pub(crate) const SPIS: u32 = 128;
/// Number of INTID bits for LPIs, as on `virt`.
const LPI_ID_BITS: u8 = 16;
/// Maximum units of work for an access by the guest, and for each entry. A unit is an ITS command
/// or 16 LPIs. The hypervisor can't be interrupted during this work.
const WORK_PER_ACCESS: u32 = 8;
/// Kind of MSI controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Controller {
    /// An ITS.
    #[default]
    Its,
    /// Direct LPIs (`GICR_SETLPIR`).
    DirectLpi,
    /// Direct LPIs that cannot be disabled once they are enabled (`GICR_CTLR.CES` is 0). Firmware
    /// reserves memory for their tables.
    PermanentLpi,
    /// Direct LPIs of redistributors that have no power while their vCPU is off.
    PoweredLpi,
    /// Message-based SPIs.
    Mbi,
    /// A GICv2m frame.
    V2m,
    /// No controller: messages are dropped.
    None,
}

impl Controller {
    /// Parses a controller name from the loader's command line.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "its" => Self::Its,
            "direct-lpi" => Self::DirectLpi,
            "permanent-lpi" => Self::PermanentLpi,
            "powered-lpi" => Self::PoweredLpi,
            "mbi" => Self::Mbi,
            "v2m" => Self::V2m,
            "none" => Self::None,
            _ => return None,
        })
    }

    /// Returns `true` if messages name an LPI.
    pub(crate) const fn is_direct(self) -> bool {
        matches!(self, Self::DirectLpi | Self::PermanentLpi | Self::PoweredLpi)
    }

    /// Adds the controller to a GIC. Linux uses GICv2m frames only if LPIs are not implemented.
    pub(crate) fn added_to(self, gic: VgicConfig) -> VgicConfig {
        let lpis = Some(LPI_ID_BITS);
        let gic = gic.with_lpi_work_per_access(WORK_PER_ACCESS);
        match self {
            Self::Its => {
                let its = ItsConfig::new(ITS).with_work_per_access(WORK_PER_ACCESS);
                gic.with_lpi_id_bits(lpis).with_its(Vec::from([its]))
            }
            Self::DirectLpi | Self::PoweredLpi => gic.with_lpi_id_bits(lpis).with_direct_lpi(true),
            Self::PermanentLpi => {
                let gic = gic.with_lpi_id_bits(lpis).with_direct_lpi(true);
                gic.with_can_clear_enable_lpis(false)
            }
            Self::Mbi => gic.with_message_based_spis(true),
            Self::V2m => gic.with_v2m(Vec::from([V2mConfig::new(V2M, FIRST_SPI, SPIS)])),
            Self::None => gic,
        }
    }
}
