//! MSI controllers that a guest can have.

use clap::ValueEnum;

/// A kind of MSI controller, named as on the hypervisor's command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Controller {
    /// An ITS
    #[default]
    Its,
    /// Message-based SPIs
    Mbi,
    /// `GICR_SETLPIR`, for which Linux needs a module
    DirectLpi,
    /// The same, but LPIs stay enabled, and memory is reserved for their tables
    PermanentLpi,
    /// The same as `direct-lpi`, but redistributors have no power while their vCPU is off
    PoweredLpi,
    /// A GICv2m frame
    V2m,
    /// None: MSIs have no effect
    None,
}

impl Controller {
    /// Returns the option for the hypervisor's command line.
    pub(crate) fn word(self) -> String {
        let value = self.to_possible_value().expect("no value is skipped");
        format!("controller={}", value.get_name())
    }

    /// Returns the beginning of the name that Linux's `/proc/interrupts` shows for the controller.
    pub(crate) const fn chip(self) -> Option<&'static str> {
        match self {
            Self::Its => Some("ITS-"),
            Self::DirectLpi | Self::PermanentLpi | Self::PoweredLpi => Some("DLPI-"),
            Self::Mbi | Self::V2m | Self::None => None,
        }
    }

    /// Returns `true` if the controller's messages signal LPIs.
    pub(crate) const fn has_lpis(self) -> bool {
        matches!(self, Self::Its) || self.is_direct()
    }

    /// Returns `true` if messages name an LPI.
    pub(crate) const fn is_direct(self) -> bool {
        matches!(self, Self::DirectLpi | Self::PermanentLpi | Self::PoweredLpi)
    }

    /// Returns text that Linux logs if it has the controller, and only then.
    pub(crate) const fn mark(self) -> Option<&'static str> {
        match self {
            Self::Its => Some("ITS [mem 0x08080000-"),
            Self::Mbi => Some("MBI range [80:207]"),
            Self::V2m => Some("GICv2m: range[mem 0x08020000-0x08020fff], SPI[80:207]"),
            Self::DirectLpi | Self::PermanentLpi | Self::PoweredLpi | Self::None => None,
        }
    }
}
