//! ITS configuration, as given by the caller and as corrected for errata, and the memory of an ITS,
//! with the vPE table of one that implements GICv4.0.

use super::command_queue::{CommandQueue, RING_BYTES};
use super::error::{ItsError, ProbeError, fault};
use super::tables::{ControlFrame, ItsTable, MemoryType, TableConstraints, TableRequest};
use crate::errata::{self, Erratum, ErratumEntry, IdRegister};
use crate::platform::{ADDRESS_BITS, Coherence, GicPlatform, PhysicalRegion};
use alloc::collections::TryReserveError;
use alloc::string::String;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::Iidr;
use gic_arch::gits::{TableKind, Typer};
use gic_arch::its::VpeId;
use msi_types::{Cpu, DeviceId};

/// Default size of the command queue, for 2047 commands.
const DEFAULT_QUEUE_BYTES: u32 = 0x1_0000;
/// Maximum number of CPUs, because collection 0xffff is never used.
const MAX_CPUS: u32 = 0xffff;

/// ITS configuration, given by the caller before the ITS is first accessed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ItsConfig {
    /// Physical base address of the control frame, from firmware.
    pub(crate) base: u64,
    /// Exclusive upper limit of CPU numbers that can be targets, 1 to 65535.
    pub(crate) cpus: u32,
    pub(crate) queue_bytes: u32,
    pub(crate) coherence: Coherence,
    pub(crate) device_id_bits: u8,
    pub(crate) node: Option<u32>,
    pub(crate) machine: Vec<String>,
    pub(crate) targets: Option<Vec<Cpu>>,
    pub(crate) pre_its: Option<PhysicalRegion>,
    pub(crate) if_enabled: IfEnabled,
    pub(crate) vpes: u16,
}

/// Behavior of [`Its::new`](super::Its::new) if the ITS is already enabled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum IfEnabled {
    /// Leave the ITS alone and return an error: another [`Its`](super::Its) may be driving it.
    #[default]
    Refuse,
    /// Disable the ITS and wait until it is quiescent. This is for an ITS that firmware or a
    /// previous kernel (kexec) left enabled.
    TakeOver,
}

impl ItsConfig {
    /// Creates a configuration with the usual defaults: a 64 KiB queue, coherent accesses, and as
    /// many DeviceID bits as the ITS supports. With these defaults, [`Its::new`](super::Its::new)
    /// refuses an ITS that is already enabled.
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
            vpes: 0,
        }
    }

    msi_types::setters! {
        /// Sets the size of the command queue in bytes, a multiple of 4 KiB up to 1 MiB.
        with_queue_bytes: queue_bytes: u32,
        /// Sets the coherence of the ITS's memory accesses, according to firmware. Even if they are
        /// coherent, memory attributes are negotiated with the ITS.
        with_coherence: coherence: Coherence,
        /// Sets the maximum DeviceID bits that devices use. A lower value than the ITS supports
        /// saves table memory.
        with_device_id_bits: device_id_bits: u8,
        /// Sets the NUMA node of the ITS.
        with_node: node: Option<u32>,
        /// Sets the names by which firmware identifies the machine, for
        /// [errata](crate::errata::matching): the compatible strings of the devicetree's root, or
        /// ACPI's OEM table ID.
        with_machine: machine: Vec<String>,
        /// Sets the CPUs that the ITS can target, if it can't reach all of them
        /// ([`ItsLocalNodeOnly`](crate::errata::Erratum::ItsLocalNodeOnly)).
        with_targets: targets: Option<Vec<Cpu>>,
        /// Sets the window in front of the ITS that devices write to instead of `GITS_TRANSLATER`,
        /// if firmware describes one (`socionext,synquacer-pre-its`). The window contains four
        /// bytes for each DeviceID.
        with_pre_its: pre_its: Option<PhysicalRegion>,
        /// Sets the choice between an error and a takeover if the ITS is already enabled.
        with_if_enabled: if_enabled: IfEnabled,
        /// Sets the maximum number of vPEs (GICv4), for hypervisors that
        /// [inject messages directly](crate::its::VpeSet). Ignored if the ITS does not implement
        /// GICv4.0.
        with_vpes: vpes: u16,
    }

    /// Returns the size of the command queue in bytes.
    pub const fn queue_bytes(&self) -> u32 {
        self.queue_bytes
    }

    /// Returns the physical base address of the control frame.
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Returns the choice between an error and a takeover if the ITS is already enabled.
    pub const fn if_enabled(&self) -> IfEnabled {
        self.if_enabled
    }

    pub(super) fn check(&self) -> Result<(), ProbeError> {
        let bad = |reason| Err(ProbeError::BadConfig { base: self.base, reason });
        if !RING_BYTES.contains(&self.queue_bytes) || !self.queue_bytes.is_multiple_of(0x1000) {
            return bad("the size of the command queue must be a multiple of 4 KiB up to 1 MiB");
        }
        if !(1..=MAX_CPUS).contains(&self.cpus) {
            return bad("the number of CPUs must be 1 to 65535");
        }
        if !(1..=32).contains(&self.device_id_bits) {
            return bad("the number of DeviceID bits must be 1 to 32");
        }
        if self.pre_its.is_some_and(|window| window.bytes < 8 || !window.base.is_multiple_of(4)) {
            return bad("the window in front of the ITS is misaligned or too small");
        }
        Ok(())
    }
}

/// Log2 of the four-byte word that each device has in a pre-ITS window.
const PRE_ITS_SHIFT: u32 = 2;
/// DeviceID bits supported by ThunderX's device table.
const THUNDERX_DEVICE_ID_BITS: u8 = 20;

/// Hardware features and the caller's configuration, corrected for errata.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CorrectedConfig {
    pub(crate) typer: Typer,
    pub(crate) coherence: Coherence,
    pub(crate) device_id_bits: u8,
    pub(crate) constraints: TableConstraints,
    pub(crate) memory_type: MemoryType,
}

/// Returns the errata that apply to this implementation on this machine.
pub(crate) fn find_errata(
    iidr: Iidr,
    config: &ItsConfig,
) -> Result<Vec<&'static ErratumEntry>, TryReserveError> {
    try_collect(errata::matching_names(IdRegister::Its, iidr, &config.machine))
}

/// Applies errata workarounds. Must be called before tables are allocated.
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
            // The remaining errata must be worked around by the caller (see `Its::errata`), or
            // concern other frames or virtual LPIs.
            _ => {}
        }
    }
    corrected
}

/// Returns how many DeviceID bits a window covers (Linux, `its_enable_quirk_socionext_synquacer`).
fn pre_its_device_bits(window: PhysicalRegion) -> u8 {
    let words = window.bytes >> PRE_ITS_SHIFT;
    u8::try_from(words.checked_ilog2().unwrap_or(0)).unwrap_or(0)
}

/// Returns the address of a device's word in the window in front of an ITS.
pub(crate) fn pre_its_doorbell(window: PhysicalRegion, device: DeviceId) -> u64 {
    window.base.wrapping_add(u64::from(device.get()) << PRE_ITS_SHIFT)
}

/// An ITS's memory.
pub(super) struct ItsMemory {
    pub(super) device_table: ItsTable,
    pub(super) collection_table: Option<ItsTable>,
    pub(super) vpe_table: Option<VpeTable>,
    pub(super) queue: CommandQueue,
}

/// Allocates an ITS's memory and programs its registers. On error, all memory has been freed.
pub(super) fn provision<P: GicPlatform>(
    frame: &ControlFrame<P>,
    corrected: &CorrectedConfig,
    config: &ItsConfig,
) -> Result<ItsMemory, ProbeError> {
    let mut device_table = device_table(frame, corrected)?;
    let (mut collections, mut vpes) = (None, None);
    let mut provision_rest = || {
        collections = collection_table(frame, corrected, config.cpus)?;
        vpes = VpeTable::provision(frame, corrected, config.vpes)?;
        let CorrectedConfig { coherence, constraints, .. } = *corrected;
        CommandQueue::provision(frame, config.queue_bytes, coherence, constraints)
    };
    match provision_rest() {
        Ok(queue) => {
            let (collection_table, vpe_table) = (collections, vpes);
            Ok(ItsMemory { device_table, collection_table, vpe_table, queue })
        }
        Err(error) => {
            device_table.release(frame);
            if let Some(mut table) = collections {
                table.release(frame);
            }
            if let Some(mut table) = vpes {
                table.release(frame);
            }
            Err(error)
        }
    }
}

fn device_table<P: GicPlatform>(
    frame: &ControlFrame<P>,
    corrected: &CorrectedConfig,
) -> Result<ItsTable, ProbeError> {
    let request = TableRequest {
        kind: TableKind::Devices,
        name: "device table",
        ids: 1 << corrected.device_id_bits,
        coherence: corrected.coherence,
        constraints: corrected.constraints,
        memory_type: corrected.memory_type,
    };
    let missing = ProbeError::TableRefused {
        base: frame.base,
        table: "device table",
        reason: "no GITS_BASER<n> has its type",
    };
    ItsTable::provision(frame, request)?.ok_or(missing)
}

/// Allocates a collection table, if the ITS can't hold enough collections itself.
fn collection_table<P: GicPlatform>(
    frame: &ControlFrame<P>,
    corrected: &CorrectedConfig,
    cpus: u32,
) -> Result<Option<ItsTable>, ProbeError> {
    const NAME: &str = "collection table";
    let CorrectedConfig { typer, coherence, constraints, memory_type, .. } = *corrected;
    let too_few = |limit| ProbeError::TooFewCollections { base: frame.base, cpus, limit };
    let named = 1_u64 << typer.collection_id_bits();
    if u64::from(cpus) > named {
        return Err(too_few(named));
    }
    if cpus <= typer.hcc().into() {
        return Ok(None);
    }
    let request = TableRequest {
        kind: TableKind::Collections,
        name: NAME,
        ids: cpus.into(),
        coherence,
        constraints,
        memory_type,
    };
    let mut table = ItsTable::provision(frame, request)?.ok_or(too_few(typer.hcc().into()))?;
    // `GITS_TYPER.CCT` states whether collections below HCC use the table. In both cases, the table
    // must have room for all collections.
    if table.ids() < cpus.into() {
        let limit = table.ids();
        table.release(frame);
        return Err(too_few(limit));
    }
    match (0..cpus).try_for_each(|cpu| table.ensure(frame, cpu)) {
        Ok(()) => Ok(Some(table)),
        Err(error) => {
            table.release(frame);
            Err(ProbeError::no_table(frame.base, NAME, error))
        }
    }
}

/// The table in which the ITS keeps its vPEs.
#[derive(Debug)]
pub(super) struct VpeTable {
    table: ItsTable,
    vpes: u16,
}

impl VpeTable {
    /// Provides the table of an ITS that implements GICv4.0, for up to `vpes` vPEs. The ITS must be
    /// disabled. On error, all memory has been freed.
    pub(super) fn provision<P: GicPlatform>(
        frame: &ControlFrame<P>,
        corrected: &CorrectedConfig,
        vpes: u16,
    ) -> Result<Option<Self>, ProbeError> {
        const NAME: &str = "vPE table";
        let CorrectedConfig { typer, coherence, constraints, memory_type, .. } = *corrected;
        if vpes == 0 || !typer.virtual_lpis() || typer.vmapp() {
            return Ok(None);
        }
        let (kind, ids) = (TableKind::VirtualPes, vpes.into());
        let request = TableRequest { kind, name: NAME, ids, coherence, constraints, memory_type };
        Ok(ItsTable::provision(frame, request)?.map(|table| Self { table, vpes }))
    }

    pub(super) fn release<P: GicPlatform>(&mut self, frame: &ControlFrame<P>) {
        self.table.release(frame);
    }

    pub(super) fn restore<P: GicPlatform>(&self, frame: &ControlFrame<P>) {
        self.table.restore(frame);
    }

    /// Makes room for the vPE with this number.
    pub(super) fn ensure<P: GicPlatform>(
        &mut self,
        frame: &ControlFrame<P>,
        vpe: VpeId,
    ) -> Result<(), ItsError> {
        let number = vpe.get();
        if number >= self.vpes || u64::from(number) >= self.table.ids() {
            return Err(refused(frame.base, "the vPE table is full"));
        }
        let ensured = self.table.ensure(frame, u32::from(number));
        ensured.map_err(|error| ItsError::no_table("a second-level vPE table", error))
    }

    /// Returns the number of vPEs for which the table is meant.
    pub(super) const fn capacity(&self) -> u16 {
        self.vpes
    }
}

pub(super) const fn refused(base: u64, reason: &'static str) -> ItsError {
    fault(base, "VMAPP", reason)
}
