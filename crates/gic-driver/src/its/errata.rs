//! Workarounds for errata of an ITS.

use super::config::ItsConfig;
use super::table_constraints::TableConstraints;
use crate::errata::{self, Erratum, ErratumEntry, IdRegister};
use crate::platform::{ADDRESS_BITS, Coherence, PhysicalRegion};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::Iidr;
use gic_arch::gits::Typer;
use msi_types::DeviceId;

/// A device's word in a pre-ITS window has four bytes.
const PRE_ITS_SHIFT: u32 = 2;
/// DeviceID bits that ThunderX's device table has room for.
const THUNDERX_DEVICE_ID_BITS: u8 = 20;

/// The hardware's features and the caller's configuration, corrected by the errata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CorrectedConfig {
    pub(crate) typer: Typer,
    pub(crate) coherence: Coherence,
    pub(crate) device_id_bits: u8,
    pub(crate) constraints: TableConstraints,
    pub(crate) memory_type: MemoryType,
}

/// The memory type of tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MemoryType {
    /// The best that the ITS takes.
    Negotiated,
    /// Device-nGnRnE, Inner Shareable.
    Device,
}

/// The errata of this implementation on this machine.
pub(crate) fn find(
    iidr: Iidr,
    config: &ItsConfig,
) -> Result<Vec<&'static ErratumEntry>, TryReserveError> {
    try_collect(errata::matching_names(IdRegister::Its, iidr, &config.machine))
}

/// Applies the errata, before anything is allocated.
pub(crate) fn apply(
    errata: &[&'static ErratumEntry],
    typer: Typer,
    config: &ItsConfig,
) -> CorrectedConfig {
    let mut corrected = CorrectedConfig {
        typer,
        coherence: config.coherence,
        device_id_bits: config.device_id_bits.min(typer.device_id_bits()),
        constraints: TableConstraints { node: config.node, address_bits: ADDRESS_BITS },
        memory_type: MemoryType::Negotiated,
    };
    if let Some(window) = config.pre_its {
        corrected.device_id_bits = corrected.device_id_bits.min(pre_its_device_bits(window));
    }
    for entry in errata {
        match entry.erratum {
            Erratum::TablesNotCoherent => corrected.coherence = Coherence::NonCoherent,
            Erratum::TablesBelow4GiB => corrected.constraints.address_bits = 32,
            Erratum::ItsTableAttributes => {
                corrected.memory_type = MemoryType::Device;
                corrected.device_id_bits = corrected.device_id_bits.min(THUNDERX_DEVICE_ID_BITS);
            }
            Erratum::ItsTranslationEntry16Bytes => {
                corrected.typer.set_itt_entry_bytes_minus_one(15);
            }
            // The caller's business (see `Its::errata`), of other frames, or of virtual LPIs.
            _ => {}
        }
    }
    corrected
}

/// DeviceIDs whose words fit a window (Linux, `its_enable_quirk_socionext_synquacer`).
fn pre_its_device_bits(window: PhysicalRegion) -> u8 {
    let words = window.bytes >> PRE_ITS_SHIFT;
    u8::try_from(words.checked_ilog2().unwrap_or(0)).unwrap_or(0)
}

/// The word of a device in the window before an ITS.
pub(crate) fn pre_its_doorbell(window: PhysicalRegion, device: DeviceId) -> u64 {
    window.base.wrapping_add(u64::from(device.get()) << PRE_ITS_SHIFT)
}
