//! GICv2m frames (Arm Server Base System Architecture). A device makes an SPI pending by writing
//! its INTID to the frame's `MSI_SETSPI_NS`. These frames accompany a GICv2; hypervisors also
//! provide them with a GICv3.
//!
//! ```
//! extern crate alloc;
//! use alloc::sync::Arc;
//! use gic_driver::v2m::{V2m, V2mFrame};
//! use gic_driver::{Gic, GicPlatform, SpiError};
//!
//! fn bring_up<P: GicPlatform + 'static>(
//!     gic: Arc<Gic<P>>,
//!     frame: u64,
//! ) -> Result<V2m<P>, SpiError> {
//!     V2m::new(gic.platform().clone(), gic, &[V2mFrame::new(frame)])
//! }
//! ```

use crate::spi_messages::{Doorbell, Encoding, SpiError, SpiMessages, SpiRange};
use crate::{MmioExt, PhysicalRegion, Platform};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use gic_arch::v2m;
use msi_types::{DoorbellPage, HwIrq, MsiError, NotIsolated, WiredParent};

/// SPIs from one or more frames, and the [`MsiParent`](msi_types::MsiParent) for every device that
/// firmware assigns to them. A request is served by the first frame with enough free SPIs.
///
/// See the [module](self) for an example.
pub type V2m<P> = SpiMessages<P, V2mDoorbell>;

/// Lowest INTID that a frame may use.
const FIRST_SPI: u32 = 32;
/// Exclusive upper limit of a frame's SPIs: 1018 is the last INTID that can be used. As in other
/// kernels, the driver refuses a range with the architecture's last SPI, 1019.
const END: u32 = 1019;

/// A GICv2m frame from firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct V2mFrame<'a> {
    /// Physical address.
    pub(crate) address: u64,
    pub(crate) first_spi: Option<u32>,
    pub(crate) spi_count: Option<u32>,
    pub(crate) oem_id: Option<&'a str>,
}

impl<'a> V2mFrame<'a> {
    /// Creates a frame for which firmware specifies only the address.
    pub const fn new(address: u64) -> Self {
        Self { address, first_spi: None, spi_count: None, oem_id: None }
    }

    msi_types::setters! {
        /// Sets the first SPI, if firmware overrides the frame's register (`arm,msi-base-spi`, or
        /// the MADT's SPI base). The override only applies if both the first SPI and the count are
        /// present and not zero.
        with_first_spi: first_spi: Option<u32>,
        /// Sets the number of SPIs, if firmware overrides the frame's register (`arm,msi-num-spis`,
        /// or the MADT's SPI count).
        with_spi_count: spi_count: Option<u32>,
        /// Sets the MADT's OEM ID without trailing blanks, with ACPI. The ID identifies machines on
        /// which the frame registers can't be read.
        with_oem_id: oem_id: Option<&'a str>,
    }

    fn stated_spis(&self) -> Option<(u32, u32)> {
        let given = |number: Option<u32>| number.filter(|number| *number != 0);
        given(self.first_spi).zip(given(self.spi_count))
    }
}

/// Marks [`V2m`].
#[derive(Debug)]
pub enum V2mDoorbell {}

impl<P: Platform> V2m<P> {
    /// Claims the frames' SPIs from the GIC `wired`.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Any [`SpiError`]. On error, no SPI is claimed.
    pub fn new(
        platform: Arc<P>,
        wired: Arc<dyn WiredParent>,
        frames: &[V2mFrame<'_>],
    ) -> Result<Self, SpiError> {
        if frames.is_empty() {
            return Err(SpiError::Nothing("v2m frame"));
        }
        let mut found = Vec::new();
        let unusable = |error| SpiError::Claim("of a v2m frame", error);
        let no_memory = |_| unusable(MsiError::NoMemory("the list of GICv2m frames"));
        found.try_reserve_exact(frames.len()).map_err(no_memory)?;
        for frame in frames {
            found.push(open(&*platform, frame)?);
        }
        Self::claim("v2m", platform, wired, found).map_err(unusable)
    }
}

/// Determines a frame's SPIs and doorbell.
fn open<P: Platform>(platform: &P, frame: &V2mFrame<'_>) -> Result<(SpiRange, Doorbell), SpiError> {
    let at = frame.address;
    let (spis, address, encoding) =
        if frame.oem_id.is_some_and(|id| ADDRESS_ONLY.contains(&id.trim_end())) {
            (frame.stated_spis().ok_or(SpiError::SpisUnknown(at))?, at, Encoding::Address)
        } else {
            let region = PhysicalRegion { base: at, bytes: v2m::FRAME_SIZE };
            let mmio =
                platform.map(region).ok_or(SpiError::NotMapped { kind: "v2m frame", base: at })?;
            let typer = || mmio.read(v2m::TYPER);
            let spis = frame
                .stated_spis()
                .unwrap_or_else(|| (typer().first().into(), typer().count().into()));
            let base = match mmio.read(v2m::IIDR) {
                XGENE_1 => spis.0,
                NORTHSTAR_2 => FIRST_SPI,
                _ => 0,
            };
            (spis, at + u64::from(v2m::SETSPI_NS.offset()), Encoding::DataAbove(base))
        };
    let doorbell = Doorbell {
        at,
        address,
        encoding,
        deassert: None,
        not_isolated: NotIsolated::SharedDoorbell("a GICv2m frame (MSI_SETSPI_NS)"),
        // A larger page also contains other registers or memory, depending on the board.
        page: [DoorbellPage::Alone, DoorbellPage::Unknown],
    };
    Ok((check(at, spis.0, spis.1)?, doorbell))
}

fn check(address: u64, first: u32, count: u32) -> Result<SpiRange, SpiError> {
    let bad = SpiError::BadRange { address, first, count };
    let end = first.checked_add(count).ok_or(bad)?;
    let count = u16::try_from(count).ok().and_then(NonZeroU16::new).ok_or(bad)?;
    if first < FIRST_SPI || end > END {
        return Err(bad);
    }
    Ok(SpiRange { first: HwIrq::new(first), count })
}

/// Implementations (`MSI_IIDR`) whose message data is relative to a nonzero INTID: the first SPI,
/// or the frame's first SPI.
const XGENE_1: u32 = 0x0600_0170;
const NORTHSTAR_2: u32 = 0x0000_013f;

/// MADT OEM IDs for machines whose frames have 8 KiB of doorbells and no registers (Amazon
/// Graviton).
const ADDRESS_ONLY: &[&str] = &["AMAZON"];
