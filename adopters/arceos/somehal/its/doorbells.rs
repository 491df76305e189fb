//! MSIs by doorbells in the GICv3's own frames: message-based SPIs (`mbi-ranges`) and direct LPIs
//! (`arm,direct-lpi`). `somehal` supports neither. The GIC's own node is the MSI controller.

use alloc::{sync::Arc, vec::Vec};
use core::num::NonZeroU16;

use gic_driver::msi_types::HwIrq;
use gic_driver::{DirectLpi, Mbi, MbiConfig, SpiRange};
use rdrive::{PlatformDevice, probe::OnProbeError, register::FdtInfo};

use super::{LpiSender, SENDER, probe_error};
use crate::arch::gic::v3::gic;

/// Registers the MSI controller that the GIC's node describes, if any.
pub(in super::super) fn probe(
    info: &FdtInfo<'_>,
    dev: &PlatformDevice,
) -> Result<(), OnProbeError> {
    let gic = gic().ok_or_else(|| probe_error("the GICv3 is not registered"))?;
    let cells = |name| {
        let property = info.node.as_node().get_property(name)?;
        Some(property.get_u32_iter().collect::<Vec<u32>>())
    };
    match (cells("mbi-ranges"), cells("arm,direct-lpi")) {
        (Some(ranges), None) => {
            let alias = cells("mbi-alias").map(|cells| address(&cells));
            let config = MbiConfig::new(spi_ranges(&ranges)).with_alias(alias);
            super::register(dev, Arc::new(Mbi::new(gic, config).map_err(probe_error)?))
        }
        (None, Some(_)) => {
            let direct = Arc::new(DirectLpi::new(gic.clone()).map_err(probe_error)?);
            SENDER.init(LpiSender::Direct(direct.clone()));
            super::register(dev, direct)
        }
        (None, None) => Ok(()),
        (Some(_), Some(_)) => Err(probe_error("`mbi-ranges` and `arm,direct-lpi` are both stated")),
    }
}

fn address(cells: &[u32]) -> u64 {
    cells.iter().fold(0, |high, low| high << 32 | u64::from(*low))
}

/// Parses pairs (first INTID, number of SPIs). Ignores malformed pairs.
fn spi_ranges(cells: &[u32]) -> Vec<SpiRange> {
    let range = |pair: &[u32]| {
        let [first, count] = *pair else { return None };
        let count = NonZeroU16::new(u16::try_from(count).ok()?)?;
        Some(SpiRange { first: HwIrq::new(first), count })
    };
    cells.chunks(2).filter_map(range).collect()
}
