//! GICv2m frame configuration.

use core::ops::Range;
use gic_arch::v2m::{self, Typer};
use gic_arch::{IntId, IntIdClass};

/// Configuration for a GICv2m frame. The data of a message is the SPI's INTID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct V2mConfig {
    /// Guest physical address of the frame, aligned to [`SIZE`](Self::SIZE).
    pub base: u64,
    /// INTID of the first SPI that the frame can signal.
    pub first_spi: u32,
    /// Number of SPIs that the frame can signal.
    pub count: u32,
    /// `MSI_IIDR`. Drivers use this value to select quirks.
    pub iidr: u32,
}

/// Error for a GICv2m frame that no machine could have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum V2mConfigError {
    /// The base is not aligned to 4 KiB.
    #[error("the GICv2m frame at {0:#x} is not aligned to 4 KiB")]
    Misaligned(u64),
    /// The range is empty, or has SPIs that the machine does not implement.
    #[error(
        "the GICv2m frame at {base:#x} cannot signal {count} SPIs from INTID {first_spi}: the \
         machine does not implement all of them"
    )]
    Spis {
        /// The frame's base.
        base: u64,
        /// INTID of the first SPI.
        first_spi: u32,
        /// Number of SPIs.
        count: u32,
    },
    /// Two frames can signal the same SPI.
    #[error("the GICv2m frames at {first:#x} and {second:#x} both signal SPI {spi}")]
    SharedSpi {
        /// Base of one frame.
        first: u64,
        /// Base of the other frame.
        second: u64,
        /// INTID of the shared SPI.
        spi: u32,
    },
}

impl V2mConfig {
    /// Size of a frame in bytes.
    pub const SIZE: u64 = v2m::FRAME_SIZE;

    /// Creates a frame for `count` SPIs, starting at INTID `first_spi`.
    pub const fn new(base: u64, first_spi: u32, count: u32) -> Self {
        Self { base, first_spi, count, iidr: 0 }
    }

    msi_types::setters! {
        with_iidr: iidr: u32,
    }

    /// Returns the message that signals `spi`, or `None` if the frame cannot signal it.
    pub fn message(&self, spi: IntId) -> Option<msi_types::MsiMessage> {
        let address = self.base + u64::from(v2m::SETSPI_NS.offset());
        let message = msi_types::MsiMessage { address, data: spi.get() };
        self.spis().contains(&spi.get()).then_some(message)
    }

    pub(crate) const fn spis(&self) -> Range<u32> {
        self.first_spi..self.first_spi.saturating_add(self.count)
    }

    /// Validates all frames on a machine. `implements` returns whether an interrupt exists.
    ///
    /// # Errors
    /// The first violated constraint, if any.
    pub(super) fn validate(
        frames: &[Self],
        implements: impl Fn(IntId) -> bool,
    ) -> Result<(), V2mConfigError> {
        for (index, frame) in frames.iter().enumerate() {
            frame.validate_alone(&implements)?;
            if let Some(other) = frames.iter().take(index).find(|other| frame.overlaps(other)) {
                let spi = frame.first_spi.max(other.first_spi);
                return Err(V2mConfigError::SharedSpi {
                    first: other.base,
                    second: frame.base,
                    spi,
                });
            }
        }
        Ok(())
    }

    fn validate_alone(&self, implements: impl Fn(IntId) -> bool) -> Result<(), V2mConfigError> {
        if !self.base.is_multiple_of(Self::SIZE) {
            return Err(V2mConfigError::Misaligned(self.base));
        }
        let is_spi = |number| {
            let intid = IntId::new(number);
            intid.class() == IntIdClass::Spi && implements(intid)
        };
        let last = self.spis().end.saturating_sub(1);
        if self.count == 0 || !is_spi(self.first_spi) || !is_spi(last) {
            let Self { base, first_spi, count, .. } = *self;
            return Err(V2mConfigError::Spis { base, first_spi, count });
        }
        Ok(())
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.first_spi < other.spis().end && other.first_spi < self.spis().end
    }

    /// Returns `MSI_TYPER`. The values in a validated configuration fit the register's ten-bit
    /// fields.
    pub(crate) fn typer(&self) -> Typer {
        let field = |number: u32| u16::try_from(number & 0x3ff).unwrap_or(0);
        Typer::new().with_first(field(self.first_spi)).with_count(field(self.count))
    }
}
