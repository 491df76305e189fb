//! Message-based interrupts (MBI) on a GICv3 (IHI 0069 §3.1.2). A device makes an SPI pending by
//! writing its INTID to `GICD_SETSPI_NSR`, or to an alias of that register.
//!
//! ```
//! extern crate alloc;
//! use alloc::sync::Arc;
//! use gic_driver::mbi::{Mbi, MbiConfig};
//! use gic_driver::{Gic, GicPlatform, SpiError};
//!
//! /// Firmware states `mbi-ranges` and `mbi-alias`.
//! fn bring_up<P: GicPlatform + 'static>(
//!     gic: &Arc<Gic<P>>,
//!     config: MbiConfig,
//! ) -> Result<Mbi<P>, SpiError> {
//!     Mbi::new(gic, config)
//! }
//! ```

use crate::spi_messages::{Doorbell, Encoding, SpiError, SpiMessages, SpiRange};
use crate::{Gic, GicPlatform};
use alloc::sync::Arc;
use alloc::vec::Vec;
use msi_types::{DoorbellPage, MsiError, NotIsolated};

/// SPIs that firmware reserves for messages to the distributor's registers. This type is the
/// [`MsiParent`](msi_types::MsiParent) of every device that firmware assigns to this controller.
///
/// See the [module](self) for an example.
pub type Mbi<P> = SpiMessages<P, MbiDoorbell>;

/// Message-based SPI configuration from firmware.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MbiConfig {
    /// SPIs that may be used (`mbi-ranges`). A group of vectors never spans two ranges.
    pub(crate) ranges: Vec<SpiRange>,
    pub(crate) alias: Option<u64>,
}

impl MbiConfig {
    /// Creates a configuration with these ranges, for messages to the distributor's own registers.
    pub const fn new(ranges: Vec<SpiRange>) -> Self {
        Self { ranges, alias: None }
    }

    msi_types::setters! {
        /// Sets the physical address of a frame with only the message registers, at the same
        /// offsets as in the distributor (`mbi-alias`).
        with_alias: alias: Option<u64>,
    }
}

/// Marks [`Mbi`].
#[derive(Debug)]
pub enum MbiDoorbell {}

/// Where firmware states the SPIs.
const STATED: &str = "that firmware states (mbi-ranges)";
/// Name of the doorbell registers in the distributor, used if firmware describes no alias.
const OWN_PAGE: &str = "GICD_SETSPI (the distributor's own)";

impl<P: GicPlatform + 'static> Mbi<P> {
    /// Claims the SPIs in these ranges from a GIC.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Any [`SpiError`]. On error, no SPI is claimed.
    pub fn new(gic: &Arc<Gic<P>>, config: MbiConfig) -> Result<Self, SpiError> {
        let distributor = gic.distributor().address();
        let registers =
            gic.distributor().message_registers().ok_or(SpiError::NotSupported { distributor })?;
        check_ranges(&config.ranges)?;
        // An alias frame has the registers at the same offsets.
        let frame = config.alias.unwrap_or(distributor);
        let [set, clear] = [registers.set, registers.clear]
            .map(|register| frame.wrapping_add(register.wrapping_sub(distributor)));
        let (not_isolated, page) = if config.alias.is_some() {
            let alias = NotIsolated::SharedDoorbell("the alias of GICD_SETSPI (mbi-alias)");
            (alias, DoorbellPage::Alone)
        } else {
            let own = NotIsolated::DoorbellPageHoldsControls(OWN_PAGE);
            (own, DoorbellPage::HoldsControls(OWN_PAGE))
        };
        let (encoding, deassert, page) = (Encoding::DataAbove(0), Some(clear), [page; 2]);
        let doorbell = Doorbell { at: set, address: set, encoding, deassert, not_isolated, page };
        let ranges = config.ranges.into_iter().map(|range| (range, doorbell));
        let new = Self::claim("mbi", gic.platform().clone(), gic.clone(), ranges)
            .map_err(|error| SpiError::Claim(STATED, error))?;
        let no_memory =
            |_| SpiError::Claim(STATED, MsiError::NoMemory("a list of message-based SPIs"));
        gic.record_messages(new.ranges()).map_err(no_memory)?;
        Ok(new)
    }
}

fn check_ranges(ranges: &[SpiRange]) -> Result<(), SpiError> {
    if ranges.is_empty() {
        return Err(SpiError::Nothing("SPIs for messages (mbi-ranges)"));
    }
    for (index, range) in ranges.iter().enumerate() {
        if !range.has_only_spis() {
            let (first, count) = (range.first, range.count.get());
            return Err(SpiError::NotSpis { property: "mbi-ranges", first, count });
        }
        if ranges.iter().take(index).any(|earlier| earlier.overlaps(*range)) {
            return Err(SpiError::Overlap(range.first));
        }
    }
    Ok(())
}
