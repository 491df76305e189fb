//! The configuration of an ITS: as the caller states it, and corrected by the errata.

use super::command_queue::RING_BYTES;
use super::error::ProbeError;
use super::tables::{MemoryType, TableConstraints};
use crate::errata;
use crate::errata::{Erratum, ErratumEntry, IdRegister};
use crate::platform::{ADDRESS_BITS, Coherence, PhysicalRegion};
use alloc::collections::TryReserveError;
use alloc::string::String;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::Iidr;
use gic_arch::gits::Typer;
use msi_types::{Cpu, DeviceId};

/// 2047 commands at a time.
const DEFAULT_QUEUE_BYTES: u32 = 0x1_0000;
/// Collection 0xffff is never used.
const MAX_CPUS: u32 = 0xffff;

/// Configuration of an ITS, known before any access to it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ItsConfig {
    /// Physical base address of its control frame, as firmware states it.
    pub base: u64,
    /// CPU numbers below this can be targets: 1 to 65535.
    pub cpus: u32,
    /// Size of the command queue: a multiple of 4 KiB up to 1 MiB.
    pub queue_bytes: u32,
    /// Coherence of its accesses, as firmware states it. Coherent accesses are negotiated with the
    /// ITS too.
    pub coherence: Coherence,
    /// DeviceIDs need at most so many bits: saves table memory where the ITS has more.
    pub device_id_bits: u8,
    /// The NUMA node that it is near to.
    pub node: Option<u32>,
    /// By which names firmware identifies the machine, for [errata](crate::errata::matching): the
    /// compatible strings of the devicetree's root, or ACPI's OEM table ID.
    pub machine: Vec<String>,
    /// The CPUs that the ITS can target, where it does not reach all
    /// ([`ItsLocalNodeOnly`](crate::errata::Erratum::ItsLocalNodeOnly)).
    pub targets: Option<Vec<Cpu>>,
    /// The window before the ITS that devices write to in place of `GITS_TRANSLATER`, where
    /// firmware states one (`socionext,synquacer-pre-its`): four bytes for each DeviceID.
    pub pre_its: Option<PhysicalRegion>,
    /// The treatment of an ITS that is enabled already.
    pub if_enabled: IfEnabled,
}

/// The treatment by [`Its::new`](super::Its::new) of an ITS that is enabled already.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum IfEnabled {
    /// It leaves the ITS alone and refuses it: another [`Its`](super::Its) may drive it.
    #[default]
    Refuse,
    /// It disables the ITS and waits until it is quiescent: firmware or a previous kernel (kexec)
    /// left it enabled.
    TakeOver,
}

impl ItsConfig {
    /// The usual: a queue of 64 KiB, coherent, as many DeviceID bits as the ITS has. One that is
    /// enabled already is refused.
    pub const fn new(base: u64, cpus: u32) -> Self {
        Self {
            base,
            cpus,
            queue_bytes: DEFAULT_QUEUE_BYTES,
            coherence: Coherence::Coherent,
            device_id_bits: 32,
            node: None,
            machine: Vec::new(),
            targets: None,
            pre_its: None,
            if_enabled: IfEnabled::Refuse,
        }
    }

    msi_types::setters! {
        with_base: base: u64,
        with_cpus: cpus: u32,
        with_queue_bytes: queue_bytes: u32,
        with_coherence: coherence: Coherence,
        with_device_id_bits: device_id_bits: u8,
        with_node: node: Option<u32>,
        with_machine: machine: Vec<String>,
        with_targets: targets: Option<Vec<Cpu>>,
        with_pre_its: pre_its: Option<PhysicalRegion>,
        with_if_enabled: if_enabled: IfEnabled,
    }

    pub(super) fn check(&self) -> Result<(), ProbeError> {
        let bad = |reason| Err(ProbeError::BadConfig { base: self.base, reason });
        if !RING_BYTES.contains(&self.queue_bytes) || !self.queue_bytes.is_multiple_of(0x1000) {
            return bad("the command queue must be a multiple of 4 KiB up to 1 MiB");
        }
        if !(1..=MAX_CPUS).contains(&self.cpus) {
            return bad("there must be 1 to 65535 CPUs");
        }
        if !(1..=32).contains(&self.device_id_bits) {
            return bad("DeviceIDs have 1 to 32 bits");
        }
        if self.pre_its.is_some_and(|window| window.bytes < 8 || !window.base.is_multiple_of(4)) {
            return bad("the window before the ITS has no room for DeviceIDs");
        }
        Ok(())
    }
}

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

/// The errata of this implementation on this machine.
pub(crate) fn find_errata(
    iidr: Iidr,
    config: &ItsConfig,
) -> Result<Vec<&'static ErratumEntry>, TryReserveError> {
    try_collect(errata::matching_names(IdRegister::Its, iidr, &config.machine))
}

/// Applies the errata, before anything is allocated.
pub(crate) fn apply_errata(
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
