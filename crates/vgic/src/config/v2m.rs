//! GICv2m frame configuration.

use core::ops::Range;
use gic_arch::v2m::{self, Typer};
use gic_arch::{IntId, IntIdClass};

/// Configuration for a GICv2m frame. [`V2mConfig::new`] returns a frame without quirks; setters
/// change individual fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct V2mConfig {
    /// Guest physical address of the frame, aligned to [`size`](Self::size).
    pub base: u64,
    /// INTID of the first SPI that the frame can signal.
    pub first_spi: u32,
    /// Number of SPIs that the frame can signal.
    pub count: u32,
    /// `MSI_IIDR`. Drivers use this value to select quirks.
    pub iidr: u32,
    /// Encoding of the SPI in a message.
    pub naming: V2mNaming,
}

/// Encoding of an SPI in messages to a GICv2m frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum V2mNaming {
    /// The data is the SPI's INTID.
    IntId,
    /// The data is relative to the frame's first SPI, as on Applied Micro's X-Gene (`MSI_IIDR`
    /// 0x06000170).
    FromFirst,
    /// The data is relative to INTID 32, as on Broadcom's Northstar 2 (`MSI_IIDR` 0x0000013f).
    FromSpiBase,
    /// The address is the frame's base plus 8 × (INTID − 32), as on Amazon's Graviton. The data is
    /// ignored. The frame is 8 KiB in size and doesn't have readable registers.
    ByAddress,
}

/// Error for a GICv2m frame that no machine could have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum V2mConfigError {
    /// The base is not aligned to the frame's size.
    #[error("the GICv2m frame at {0:#x} is not aligned to its size")]
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
    /// Creates a frame without quirks for `count` SPIs, starting at INTID `first_spi`.
    pub const fn new(base: u64, first_spi: u32, count: u32) -> Self {
        Self { base, first_spi, count, iidr: 0, naming: V2mNaming::IntId }
    }

    msi_types::setters! {
        with_iidr: iidr: u32,
        with_naming: naming: V2mNaming,
    }

    /// Returns the frame's size in bytes: 4 KiB, or 8 KiB if the address encodes the SPI.
    pub const fn size(&self) -> u64 {
        match self.naming {
            V2mNaming::ByAddress => 2 * v2m::FRAME_SIZE,
            _ => v2m::FRAME_SIZE,
        }
    }

    /// Returns the message that signals `spi`, or `None` if the frame cannot signal it.
    pub fn message(&self, spi: IntId) -> Option<msi_types::MsiMessage> {
        let doorbell = self.base + u64::from(v2m::SETSPI_NS.offset());
        let offset =
            spi.get().checked_sub(IntId::SPI_BASE).filter(|_| self.spis().contains(&spi.get()))?;
        let (address, data) = match self.naming {
            V2mNaming::IntId => (doorbell, spi.get()),
            V2mNaming::FromFirst => (doorbell, spi.get() - self.first_spi),
            V2mNaming::FromSpiBase => (doorbell, offset),
            V2mNaming::ByAddress => (self.base + 8 * u64::from(offset), 0),
        };
        Some(msi_types::MsiMessage { address, data })
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
        if !self.base.is_multiple_of(self.size()) {
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

    /// Returns `true` if a write at this offset of the frame is a message.
    pub(crate) const fn has_doorbell(&self, offset: u32) -> bool {
        match self.naming {
            V2mNaming::ByAddress => offset.is_multiple_of(8),
            _ => offset == v2m::SETSPI_NS.offset(),
        }
    }

    /// Decodes the INTID from a write, or returns `None` on overflow. The SPI may be outside the
    /// frame's range.
    pub(crate) fn named(&self, offset: u32, data: u32) -> Option<u32> {
        match self.naming {
            V2mNaming::IntId => Some(data),
            V2mNaming::FromFirst => self.first_spi.checked_add(data),
            V2mNaming::FromSpiBase => IntId::SPI_BASE.checked_add(data),
            V2mNaming::ByAddress => Some(IntId::SPI_BASE + offset / 8),
        }
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v2m_message_decodes_to_its_spi() {
        for naming in
            [V2mNaming::IntId, V2mNaming::FromFirst, V2mNaming::FromSpiBase, V2mNaming::ByAddress]
        {
            let frame = V2mConfig::new(0x2000, 64, 32).with_naming(naming);
            for spi in 0..1024 {
                let message = frame.message(IntId::new(spi));
                assert_eq!(message.is_some(), (64..96).contains(&spi), "{naming:?} {spi}");
                if let Some(message) = message {
                    let offset = u32::try_from(message.address - frame.base).unwrap();
                    assert_eq!(frame.named(offset, message.data), Some(spi));
                }
            }
        }
    }
}
