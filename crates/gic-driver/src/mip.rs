use crate::spi_messages::{Doorbell, Encoding, SpiError, SpiMessages, SpiRange};
use crate::{Mmio, PhysicalRegion, Platform};
use alloc::sync::Arc;
use msi_types::{DoorbellPage, NotIsolated, WiredParent};

/// Broadcom's MIP (Raspberry Pi 5), which turns messages into SPIs: a device writes the number of a
/// vector, and the MIP raises the SPI that belongs to it. The
/// [`MsiParent`](msi_types::MsiParent) of each device that firmware assigns to it.
///
/// No emulator has this controller. The driver follows the devicetree binding `brcm,bcm2712-msix`
/// and the public register names of Linux's `irq-bcm2712-mip.c`.
pub type Mip<P> = SpiMessages<P, MipDoorbell>;

/// Length of the registers in bytes.
const BYTES: u64 = 0xc0;
/// `MIP_INT_CFGL_HOST` and `MIP_INT_CFGH_HOST`: a 1 makes the vector's SPI edge-triggered.
const EDGE: [u32; 2] = [0x20, 0x30];
/// `MIP_INT_MASKL_HOST` and `MIP_INT_MASKH_HOST`: a 1 masks the vector for the Arm CPUs.
const HOST_MASKS: [u32; 2] = [0x40, 0x50];
/// `MIP_INT_MASKL_VPU` and `MIP_INT_MASKH_VPU`: a 1 masks the vector for the video processor.
const VPU_MASKS: [u32; 2] = [0x60, 0x70];

/// A MIP, as firmware describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MipConfig {
    pub(crate) registers: u64,
    pub(crate) spis: SpiRange,
    pub(crate) doorbell: u64,
    pub(crate) first_data: u32,
}

impl MipConfig {
    /// Creates the configuration for a MIP with its registers at the physical address `registers`,
    /// for these SPIs (`msi-ranges`), to which devices write at the PCI address `doorbell`.
    pub const fn new(registers: u64, spis: SpiRange, doorbell: u64) -> Self {
        Self { registers, spis, doorbell, first_data: 0 }
    }

    msi_types::setters! {
        /// Sets the data of the first SPI's message (`brcm,msi-offset`).
        with_first_data: first_data: u32,
    }
}

/// Marks [`Mip`].
#[derive(Debug)]
pub enum MipDoorbell {}

impl<P: Platform> Mip<P> {
    /// Claims the MIP's SPIs from the GIC `wired`, and routes all vectors to the Arm CPUs.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Any [`SpiError`]. On error, no SPI is claimed.
    pub fn new(
        platform: Arc<P>,
        wired: Arc<dyn WiredParent>,
        config: &MipConfig,
    ) -> Result<Self, SpiError> {
        let MipConfig { registers, spis, doorbell: address, first_data } = *config;
        let SpiRange { first, count } = spis;
        if !spis.has_only_spis() {
            return Err(SpiError::NotSpis { property: "msi-ranges", first, count: count.get() });
        }
        let region = PhysicalRegion { base: registers, bytes: BYTES };
        let frame =
            platform.map(region).ok_or(SpiError::NotMapped { kind: "mip", base: registers })?;
        let doorbell = Doorbell {
            at: address,
            address,
            encoding: Encoding::DataAbove(first.get().wrapping_sub(first_data)),
            deassert: None,
            not_isolated: NotIsolated::SharedDoorbell("a MIP"),
            page: [DoorbellPage::Unknown; 2],
        };
        let mut new = Self::claim("mip", platform, wired, [(spis, doorbell)])
            .map_err(|error| SpiError::Claim("that firmware states (msi-ranges)", error))?;
        new.registers = Some(frame);
        new.restore();
        Ok(new)
    }

    /// Writes all registers again, whether or not the MIP lost its power.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    pub fn restore(&self) {
        if let Some(frame) = &self.registers {
            for (registers, value) in [(EDGE, u32::MAX), (VPU_MASKS, u32::MAX), (HOST_MASKS, 0)] {
                for register in registers {
                    frame.write32(register, value);
                }
            }
        }
    }
}
