//! Message-based interrupts (MBI) on a GICv3 (IHI 0069 §3.1.2). A device makes an SPI pending by
//! writing its INTID to `GICD_SETSPI_NSR`, or to an alias of that register.
//!
//! ```
//! extern crate alloc;
//! use alloc::sync::Arc;
//! use gic_driver::mbi::{Mbi, MbiConfig, MbiError};
//! use gic_driver::{Gic, GicPlatform};
//!
//! /// Firmware states `mbi-ranges` and `mbi-alias`.
//! fn bring_up<P: GicPlatform + 'static>(
//!     gic: &Arc<Gic<P>>,
//!     config: MbiConfig,
//! ) -> Result<Mbi<P>, MbiError> {
//!     Mbi::new(gic, config)
//! }
//! ```

use crate::distributor::MessageRegisters;
use crate::spi_messages::{Doorbell, Groups, SpiMessages, SpiRange, check_range};
use crate::{Gic, GicPlatform};
use alloc::sync::Arc;
use alloc::vec::Vec;
use msi_types::{DoorbellPage, Granule, HwIrq, MsiError, MsiMessage, NotIsolated, WiredParent};

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

/// Error in the message ranges that firmware describes, or in setting them up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MbiError {
    /// `GICD_TYPER.MBIS` is 0: firmware describes message registers that the hardware lacks.
    #[error(
        "distributor@{distributor:x}: firmware describes message-based SPIs, but the hardware does \
         not support them (GICD_TYPER.MBIS is 0)"
    )]
    NotSupported {
        /// The distributor's physical address.
        distributor: u64,
    },
    /// Firmware describes no ranges.
    #[error("firmware states no SPIs for messages (mbi-ranges)")]
    NoRanges,
    /// Firmware describes a range with INTIDs other than SPIs.
    #[error("firmware states {count} INTIDs from {first} on (mbi-ranges), but not all are SPIs")]
    NotSpis {
        /// The first INTID.
        first: HwIrq,
        /// Number of INTIDs.
        count: u16,
    },
    /// Firmware describes overlapping ranges.
    #[error("firmware states a range from {0} on (mbi-ranges) that overlaps another one")]
    Overlap(HwIrq),
    /// An SPI does not exist, belongs to Secure software, or has another owner.
    #[error("an SPI that firmware states (mbi-ranges) cannot be used: {0}")]
    Claim(MsiError),
}

/// The message registers that devices write to, which are the same for all ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MbiDoorbell {
    registers: MessageRegisters,
    frame: MbiFrame,
}

/// The frame with the registers that devices write to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum MbiFrame {
    Distributor,
    Alias,
}

impl<P: GicPlatform + 'static> Mbi<P> {
    /// Claims the SPIs in these ranges from a GIC.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Any [`MbiError`]. On error, no SPI is claimed.
    pub fn new(gic: &Arc<Gic<P>>, config: MbiConfig) -> Result<Self, MbiError> {
        let distributor = gic.distributor().address();
        let registers =
            gic.distributor().message_registers().ok_or(MbiError::NotSupported { distributor })?;
        check_ranges(&config.ranges)?;
        let doorbell = MbiDoorbell::new(registers, distributor, config.alias);
        let wired: Arc<dyn WiredParent> = gic.clone();
        let ranges = config.ranges.into_iter().map(|range| (range, doorbell));
        let new = Self::claim(gic.platform().clone(), wired, ranges).map_err(MbiError::Claim)?;
        let no_memory = |_| MbiError::Claim(MsiError::NoMemory("a list of message-based SPIs"));
        gic.record_messages(new.ranges()).map_err(no_memory)?;
        Ok(new)
    }
}

impl MbiDoorbell {
    /// Creates the doorbell. `registers` belong to the distributor at `distributor`; an alias frame
    /// has these registers at the same offsets.
    fn new(registers: MessageRegisters, distributor: u64, alias: Option<u64>) -> Self {
        let Some(alias) = alias else { return Self { registers, frame: MbiFrame::Distributor } };
        let moved = |register: u64| alias.wrapping_add(register.wrapping_sub(distributor));
        let registers =
            MessageRegisters { set: moved(registers.set), clear: moved(registers.clear) };
        Self { registers, frame: MbiFrame::Alias }
    }
}

/// Name of the doorbell registers in the distributor, used if firmware describes no alias.
const OWN_PAGE: &str = "GICD_SETSPI (the distributor's own)";

impl Doorbell for MbiDoorbell {
    const KIND: &'static str = "mbi";

    fn message(&self, spi: HwIrq) -> MsiMessage {
        MsiMessage { address: self.registers.set, data: spi.get() }
    }

    fn deassert(&self, spi: HwIrq) -> Option<MsiMessage> {
        Some(MsiMessage { address: self.registers.clear, data: spi.get() })
    }

    fn groups(&self) -> Groups {
        Groups::Possible
    }

    fn not_isolated(&self) -> NotIsolated {
        match self.frame {
            MbiFrame::Distributor => NotIsolated::DoorbellPageHoldsControls(OWN_PAGE),
            MbiFrame::Alias => NotIsolated::SharedDoorbell("the alias of GICD_SETSPI (mbi-alias)"),
        }
    }

    fn page(&self, _granule: Granule) -> DoorbellPage {
        match self.frame {
            MbiFrame::Distributor => DoorbellPage::HoldsControls(OWN_PAGE),
            MbiFrame::Alias => DoorbellPage::Alone,
        }
    }

    fn address(&self) -> u64 {
        self.registers.set
    }
}

fn check_ranges(ranges: &[SpiRange]) -> Result<(), MbiError> {
    if ranges.is_empty() {
        return Err(MbiError::NoRanges);
    }
    for (index, range) in ranges.iter().enumerate() {
        if !check_range(*range) {
            return Err(MbiError::NotSpis { first: range.first, count: range.count.get() });
        }
        if ranges.iter().take(index).any(|earlier| earlier.overlaps(*range)) {
            return Err(MbiError::Overlap(range.first));
        }
    }
    Ok(())
}
