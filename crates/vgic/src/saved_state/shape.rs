//! Shape of a machine: what a guest relies on, although no register in a saved state shows it.

#[cfg(feature = "serde")]
use super::numbers;
#[cfg(doc)]
use crate::config::{ItsConfig, V2mConfig, VgicConfig};

/// Property of a machine that no register in a saved state shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Property {
    /// The property.
    pub name: PropertyName,
    /// Address of the frame that has the property, affinity of the CPU, or 0 for the machine.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub of: u64,
    /// The value. Values of enumerations are the variants' positions in their declarations.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub value: u64,
}

/// Name of a [`Property`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum PropertyName {
    /// Address of the distributor.
    Distributor,
    /// Address of a CPU's redistributor.
    Redistributor,
    /// Number of redistributors that fit in a region.
    RegionCount,
    /// Distance between a region's redistributors.
    RegionStride,
    /// Address of the [`VgicConfig::mbi_alias`].
    MbiAlias,
    /// First SPI of a GICv2m frame.
    V2mFirstSpi,
    /// Number of SPIs of a GICv2m frame.
    V2mCount,
    /// `MSI_IIDR` of a GICv2m frame.
    V2mIidr,
    /// Encoding of the SPI in messages to a GICv2m frame: always 0, the INTID.
    V2mNaming,
    /// [`ItsConfig::device_table`].
    DeviceTable,
    /// [`ItsConfig::collection_table`], plus 1; 0 if there is none.
    CollectionTable,
    /// `GITS_BASER<n>.Page_Size` plus 1; 0 if the guest can choose ([`ItsConfig::page_sizes`]).
    PageSize,
    /// [`ItsConfig::coherence`].
    ItsCoherence,
    /// [`ItsConfig::error_policy`].
    ErrorPolicy,
    /// [`VgicConfig::coherence`].
    LpiCoherence,
    /// [`VgicConfig::level_ppis`].
    LevelPpis,
    /// Redistributors are awake after reset.
    AwakeRedistributors,
    /// INTID in [`VgicConfig::secure_interrupts`].
    SecureInterrupt,
}
