//! What this driver does about an ITS's errata.

use super::probe::ItsConfig;
use crate::errata::{self, Entry, Erratum, Frame};
use crate::platform::Coherence;
use alloc::vec::Vec;
use gic_arch::Iidr;
use gic_arch::gits::Typer;

/// DeviceID bits that ThunderX's device table has room for.
const THUNDERX_DEVICE_ID_BITS: u8 = 20;

/// The errata of this implementation on this machine.
pub(crate) fn find(iidr: Iidr, config: &ItsConfig) -> Vec<&'static Entry> {
    let machine: Vec<&str> = config.machine.iter().map(alloc::string::String::as_str).collect();
    errata::matching(Frame::Its, iidr, &machine).collect()
}

/// Corrects what the hardware says of itself, and what was asked of it.
pub(crate) fn apply(errata: &[&'static Entry], typer: Typer, config: &ItsConfig) -> (Typer, ItsConfig) {
    let (mut typer, mut config) = (typer, config.clone());
    for entry in errata {
        match entry.erratum {
            Erratum::TablesNotCoherent => config.coherence = Coherence::NonCoherent,
            // Tables have read- and write-allocation anyway.
            Erratum::ItsNonCacheableTables => {
                config.device_id_bits = config.device_id_bits.min(THUNDERX_DEVICE_ID_BITS);
            }
            Erratum::ItsTranslationEntry16Bytes => typer.set_itt_entry_bytes_minus_one(15),
            // The caller's and the platform's business (see `Its::errata`), of other frames, or of virtual LPIs.
            _ => {}
        }
    }
    (typer, config)
}
