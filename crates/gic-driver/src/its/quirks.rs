//! What this driver does about an ITS's errata.

use super::placement::Placement;
use super::probe::ItsConfig;
use crate::errata::{self, Entry, Erratum, Frame};
use crate::platform::{ADDRESS_BITS, Coherence};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::Iidr;
use gic_arch::gits::Typer;

/// DeviceID bits that ThunderX's device table has room for.
const THUNDERX_DEVICE_ID_BITS: u8 = 20;

/// What the hardware says of itself and what the caller asked for, corrected by the errata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Corrected {
    pub(crate) typer: Typer,
    pub(crate) coherence: Coherence,
    pub(crate) device_id_bits: u8,
    pub(crate) placement: Placement,
}

/// The errata of this implementation on this machine.
pub(crate) fn find(iidr: Iidr, config: &ItsConfig) -> Result<Vec<&'static Entry>, TryReserveError> {
    try_collect(errata::matching_names(Frame::Its, iidr, &config.machine))
}

/// Applies the errata, before anything is allocated.
pub(crate) fn apply(errata: &[&'static Entry], typer: Typer, config: &ItsConfig) -> Corrected {
    let mut corrected = Corrected {
        typer,
        coherence: config.coherence,
        device_id_bits: config.device_id_bits.min(typer.device_id_bits()),
        placement: Placement { node: config.node, address_bits: ADDRESS_BITS },
    };
    for entry in errata {
        match entry.erratum {
            Erratum::TablesNotCoherent => corrected.coherence = Coherence::NonCoherent,
            Erratum::TablesBelow4GiB => corrected.placement.address_bits = 32,
            // Tables have read- and write-allocation anyway.
            Erratum::ItsNonCacheableTables => {
                corrected.device_id_bits = corrected.device_id_bits.min(THUNDERX_DEVICE_ID_BITS);
            }
            Erratum::ItsTranslationEntry16Bytes => corrected.typer.set_itt_entry_bytes_minus_one(15),
            // The caller's business (see `Its::errata`), of other frames, or of virtual LPIs.
            _ => {}
        }
    }
    corrected
}
