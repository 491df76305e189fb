//! The configuration of GICv2m frames.

use core::ops::Range;
use gic_arch::v2m::{self, Typer};
use gic_arch::{IntId, IntIdClass};

/// A GICv2m frame. [`V2mConfig::new`] gives one without quirks; setters change what differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct V2mConfig {
    /// Guest physical address, aligned to [`size`](Self::size).
    pub base: u64,
    /// INTID of the first SPI that the frame rings.
    pub first_spi: u32,
    /// Number of SPIs.
    pub count: u32,
    /// `MSI_IIDR`: drivers choose quirks by it.
    pub iidr: u32,
    /// Encoding of SPIs in messages.
    pub naming: V2mNaming,
}

/// Encoding of an SPI in a message to a GICv2m frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum V2mNaming {
    /// The data is its INTID.
    IntId,
    /// The data counts from the frame's first SPI, as on Applied Micro's X-Gene (`MSI_IIDR`
    /// 0x06000170).
    FromFirst,
    /// The data counts from INTID 32, as on Broadcom's Northstar 2 (`MSI_IIDR` 0x0000013f).
    FromSpiBase,
    /// The address is the frame's base and 8 × (INTID − 32), whatever the data, as on Amazon's
    /// Graviton. The frame has 8 KiB and no registers to read.
    ByAddress,
}

/// A GICv2m frame that cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum V2mConfigError {
    /// The base.
    #[error("the GICv2m frame at {0:#x} is not aligned to its size")]
    Misaligned(u64),
    /// The range.
    #[error(
        "the GICv2m frame at {base:#x} cannot ring {count} SPIs from {first_spi} on: the machine \
         has not all of them"
    )]
    Spis {
        /// The frame.
        base: u64,
        /// The first SPI.
        first_spi: u32,
        /// Their number.
        count: u32,
    },
    /// Two frames ring the same SPI.
    #[error("the GICv2m frames at {first:#x} and {second:#x} both ring SPI {spi}")]
    SharedSpi {
        /// One frame.
        first: u64,
        /// The other.
        second: u64,
        /// The interrupt.
        spi: u32,
    },
}

impl V2mConfig {
    /// A frame without quirks that rings `count` SPIs from INTID `first_spi` on.
    pub const fn new(base: u64, first_spi: u32, count: u32) -> Self {
        Self { base, first_spi, count, iidr: 0, naming: V2mNaming::IntId }
    }

    msi_types::setters! {
        with_iidr: iidr: u32,
        with_naming: naming: V2mNaming,
    }

    /// Bytes: 4 KiB, or 8 KiB where messages name SPIs by address.
    pub const fn size(&self) -> u64 {
        match self.naming {
            V2mNaming::ByAddress => 2 * v2m::FRAME_SIZE,
            _ => v2m::FRAME_SIZE,
        }
    }

    /// Address and data of the message that rings an SPI; `None` if the frame does not ring it.
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

    /// Checks the frames of a machine that implements these interrupts.
    ///
    /// # Errors
    /// The first thing that cannot be.
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

    /// `MSI_TYPER`. What was validated fits its ten bits.
    pub(crate) fn typer(&self) -> Typer {
        let field = |number: u32| u16::try_from(number & 0x3ff).unwrap_or(0);
        Typer::new().with_first(field(self.first_spi)).with_count(field(self.count))
    }

    /// The SPI that a write names.
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
    fn a_message_names_the_spi_that_it_was_made_for() {
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
