//! Workarounds for distributor and redistributor errata.

use crate::errata::{self, Erratum, ErratumEntry, IdRegister};
use crate::frame::ChipAliases;
use crate::lpi::LpiConfig;
use crate::{
    Block, Distributor, GicError, GicPlatform, Mmio, PhysicalRegion, Redistributor,
    RedistributorRegion, TableAccess,
};
use alloc::string::String;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::{Affinity, gicd};

/// Errata in a machine's distributor and redistributors.
#[derive(Debug)]
pub(super) struct GicErrata(Vec<&'static ErratumEntry>);

impl GicErrata {
    pub(super) fn of_distributor<M: Mmio>(
        distributor: &Distributor<M>,
        machine: &[String],
    ) -> Result<Self, GicError> {
        let found = errata::matching_names(IdRegister::Distributor, distributor.iidr(), machine);
        let no_memory = |_| GicError::NoMemory(Block::Distributor(distributor.address()));
        try_collect(found).map(Self).map_err(no_memory)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'static ErratumEntry> {
        self.0.iter().copied()
    }

    /// Applies workarounds to the distributor. Must be called before [`Distributor::init`].
    pub(super) fn apply_to_distributor<P: GicPlatform>(
        &self,
        platform: &P,
        distributor: &mut Distributor<P::Mmio>,
        regions: &[RedistributorRegion],
    ) -> Result<(), GicError> {
        if self.has(Erratum::SecureRegistersExposed) {
            distributor.disable_security(platform)?;
        }
        if self.has(Erratum::SpisOwnedByChips)
            && let Some(aliases) = chip_aliases(platform, distributor.address(), regions)?
        {
            distributor.read_at(aliases);
        }
        Ok(())
    }

    /// Adds a redistributor's errata and applies their workarounds. Must be called before the
    /// redistributor is used.
    pub(super) fn apply_to_redistributor<M: Mmio>(
        &mut self,
        redistributor: &mut Redistributor<M>,
        machine: &[String],
    ) -> Result<(), GicError> {
        for entry in
            errata::matching_names(IdRegister::Redistributor, redistributor.iidr(), machine)
        {
            if !self.0.contains(&entry) {
                let no_memory =
                    |_| GicError::NoMemory(Block::Redistributor(redistributor.address()));
                self.0.try_reserve(1).map_err(no_memory)?;
                self.0.push(entry);
            }
            if entry.erratum == Erratum::WakerUnusable {
                redistributor.leave_waker();
            }
        }
        Ok(())
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, erratum: Erratum) -> bool {
        self.0.iter().any(|entry| entry.erratum == erratum)
    }

    /// Converts a CPU's `MPIDR_EL1` affinity to the affinity that the GIC uses.
    pub(super) fn affinity(&self, of: Affinity) -> Affinity {
        let [_, aff2, aff1, _] = of.levels();
        if self.has(Erratum::AffinityOneLevelDown) { Affinity::new(0, 0, aff2, aff1) } else { of }
    }
}

/// Returns the LPI configuration, corrected for a redistributor's errata.
pub(super) fn corrected<M: Mmio>(
    mut choice: LpiConfig,
    redistributor: &Redistributor<M>,
    machine: &[String],
) -> LpiConfig {
    for entry in errata::matching_names(IdRegister::Redistributor, redistributor.iidr(), machine) {
        match entry.erratum {
            Erratum::TablesNotCoherent => choice.access = TableAccess::NonCoherent,
            Erratum::TablesBelow4GiB => choice.address_bits = 32,
            _ => {}
        }
    }
    choice
}

/// Offset of a chip's distributor alias from the distributor, not including the chip number (Linux,
/// `gic_enable_quirk_nvidia_t241`).
const CHIP_ALIAS: u64 = 0x158_0000;
/// Position of the chip number in physical addresses.
const CHIP_SHIFT: u32 = 44;

/// Maps the distributor's aliases if the machine has more than two chips; the erratum does not
/// apply to machines with fewer chips. The addresses of the redistributor regions show which chips
/// are present.
fn chip_aliases<P: GicPlatform>(
    platform: &P,
    distributor: u64,
    regions: &[RedistributorRegion],
) -> Result<Option<ChipAliases<P::Mmio>>, GicError> {
    let present = |chip: u64| regions.iter().any(|each| each.region.base >> CHIP_SHIFT & 3 == chip);
    if (0..4).filter(|chip| present(*chip)).count() < 3 {
        return Ok(None);
    }
    let mut aliases = [const { None }; 4];
    for (alias, chip) in aliases.iter_mut().zip(0..).filter(|(_, chip)| present(*chip)) {
        let base = distributor.wrapping_add(CHIP_ALIAS) | chip << CHIP_SHIFT;
        let region = PhysicalRegion { base, bytes: gicd::FRAME_SIZE };
        let block = Block::Distributor(base);
        *alias = Some(platform.map(region).ok_or(GicError::NotMapped(block))?);
    }
    Ok(Some(ChipAliases(aliases)))
}
