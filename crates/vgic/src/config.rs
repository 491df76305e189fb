//! Configuration for a virtual GIC: its memory map, its vCPUs and the optional architectural
//! features that it implements.

mod error;
mod its;
mod topology;
mod v2m;

pub use error::ConfigError;
pub use its::{
    Coherence, ErrorPolicy, ItsConfig, ItsConfigError, PageSizes, RedistributorNaming, TableLevels,
};
pub(crate) use topology::RedistributorFrame;
pub use topology::{CpuConfig, RedistributorRegion};
pub use v2m::{V2mConfig, V2mConfigError};

use crate::lpi::MAX_ID_BITS;
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_boxed_slice, try_collect_exact};
use gic_arch::{Iidr, IntId, IntIdClass, gicd, gicr, gits, lpi};
use msi_types::Cpu;

/// Maximum number of vCPUs per virtual GIC.
pub const MAX_CPUS: usize = 512;

/// Configuration for a virtual GIC.
///
/// [`VgicConfig::new`] returns a complete configuration in the memory map of QEMU's `virt` machine;
/// setters change individual fields. Later versions may add fields to this struct and to
/// [`CpuConfig`], [`RedistributorRegion`], [`ItsConfig`] and [`V2mConfig`]; `new` sets new fields
/// to values that keep the behavior of this version.
///
/// ```
/// use vgic::{VgicConfig, its::ItsConfig};
///
/// let its = ItsConfig::new(0x0808_0000).with_device_id_bits(20);
/// let config = VgicConfig::new(4).with_lpi_id_bits(Some(16)).with_its(vec![its]);
/// assert_eq!(config.validate(), Ok(()));
/// ```
///
/// # ID registers
///
/// | register | from the configuration | fixed | zero, because the feature is not implemented |
/// |---|---|---|---|
/// | `GICD_TYPER` | `ITLinesNumber`, `ESPI`, `ESPI_range`, `IDbits`, `LPIS`, `MBIS`, `No1N`, `SecurityExtn` | `A3V`, `RSS`; `CPUNumber` and `num_LPIs` zero | `NMI`, `DVIS` |
/// | `GICD_TYPER2` | – | zero: `VIL`, `VID` | `nASSGIcap` |
/// | `GICR_TYPER` | `PLPIS`, `DirectLPI`, `DPGS`, `PPInum`, `Processor_Number`, `Affinity_Value`, `Last` | `CommonLPIAff` zero | `MPAM`, `VLPIS`, `Dirty`, `RVPEID`, `VSGI` |
/// | `GITS_TYPER` | `Devbits`, `ID_bits`, `HCC`, `CIL`, `CIDbits`, `PTA`; `CCT` where the ITS both holds collections and has a collection table | `Physical`; `ITT_entry_size` of 8 bytes | `SEIS`, `UMSI`, `UMSIirq`, `INV`, `MPAM`, `Virtual`, `VMOVP`, `VMAPP`, `VSGI`, `SVPET`, `nID` |
/// | `IIDR` | all fields | – | – |
/// | `PIDR2` | – | `ArchRev` 3 | – |
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VgicConfig {
    /// The vCPUs, in order of their numbers: the first is [`Cpu`] 0.
    pub cpus: Vec<CpuConfig>,
    /// Guest physical address of the distributor frame (64 KiB).
    pub distributor: u64,
    /// Redistributor regions. The vCPUs' redistributors fill the regions in order.
    pub redistributors: Vec<RedistributorRegion>,
    /// Number of SPIs, starting at INTID 32: a multiple of 32 up to 960, or 988.
    pub spis: u32,
    /// Number of extended SPIs, starting at INTID 4096: a multiple of 32 up to 1024.
    pub extended_spis: u32,
    /// Number of extended PPIs, starting at INTID 1056: 0, 32 or 64.
    pub extended_ppis: u32,
    /// The security states that the guest sees.
    pub security: SecurityView,
    /// Interrupts that belong to the Secure side and are hidden from the guest. Must be empty
    /// unless `security` is [`SecurityView::NonSecure`].
    pub secure_interrupts: Vec<IntId>,
    /// If set, redistributors are awake after [`Vgic::reset`](crate::Vgic::reset) and
    /// [`Vcpu::reset`](crate::Vcpu::reset), just as firmware would leave them for a kernel.
    /// Otherwise, `GICR_WAKER.ProcessorSleep` is 1 after a system reset (IHI 0069, `GICR_WAKER`),
    /// and a redistributor doesn't forward interrupts until software clears the bit. A VMM that
    /// doesn't run firmware in its guests should set this field: Linux clears the bit, but other
    /// kernels rely on firmware to do so, and KVM's redistributors are always awake. The guest may
    /// still put its redistributors to sleep.
    pub awake_redistributors: bool,
    /// If set, PPIs are level-sensitive and cannot be reprogrammed: `GICR_ICFGR<n>` ignores writes,
    /// as in Linux's KVM. The architecture leaves it IMPLEMENTATION DEFINED whether a PPI's trigger
    /// is programmable (IHI 0069, `GICR_ICFGR1`).
    pub level_ppis: bool,
    /// Number of implemented priority bits: 4 to 8 with one security state, 5 to 8 with two.
    pub priority_bits: u8,
    /// Number of INTID bits, 14 to 20, or `None` for a machine without LPIs. Once its LPIs have
    /// been enabled, each vCPU needs a host buffer with one bit per LPI to read and write its
    /// pending table.
    pub lpi_id_bits: Option<u8>,
    /// Maximum work per access to a redistributor register, in units of 16 LPIs. An LPI that is
    /// visited and changed counts twice. The next access, or a vCPU that is about to enter its
    /// guest, continues with the remaining LPIs. Together with [`ItsConfig::work_per_access`], this
    /// bounds the length of an exit for a hypervisor that can't be interrupted.
    pub lpi_work_per_access: u32,
    /// Translation budget: roughly the largest number of mapped events, shared by all ITSes, at
    /// most 2^22. Up to 64 events, a device is charged the next power of two; above that, the next
    /// multiple of 64.
    ///
    /// Memory is allocated on demand and never returned. The worst case is 17 KiB × vCPUs ×
    /// ceil(`its_events` / 4096), or twice that with more than five priority bits. Only a guest
    /// that uses every priority for LPIs on every vCPU causes the worst case. LPIs that are pending
    /// at a redistributor without an event don't count toward the budget. Such LPIs need two bytes
    /// per vCPU and LPI, in blocks of 8 KiB, plus 17 KiB per block in the same worst case.
    pub its_events: u32,
    /// Maximum number of devices that can be mapped at each ITS. Mapped DeviceIDs also need 4 KiB
    /// per aligned group of 256, up to 16 MiB for each ITS (enough for all 16-bit DeviceIDs).
    pub its_devices: u32,
    /// The ITSes.
    pub its: Vec<ItsConfig>,
    /// `GICD_IIDR` and `GICR_IIDR`. Guests use these registers to select errata workarounds.
    pub iidr: Iidr,
    /// Lets the guest clear `GICR_CTLR.EnableLPIs` (`GICR_CTLR.CES`). Otherwise, the bit is
    /// write-once.
    pub can_clear_enable_lpis: bool,
    /// Implements `GICR_INVLPIR`, `GICR_INVALLR` and `GICR_SYNCR` (`GICR_CTLR.IR`).
    pub redistributor_invalidation: bool,
    /// Lets devices signal LPIs by writing to `GICR_SETLPIR` (`GICR_TYPER.DirectLPI`). Also
    /// implements the registers that
    /// [`redistributor_invalidation`](Self::redistributor_invalidation) selects. Cannot be combined
    /// with an ITS or with [`message_based_spis`](Self::message_based_spis). Setting `EnableLPIs`
    /// then allocates two bytes per vCPU and LPI.
    pub direct_lpi: bool,
    /// Lets the guest route SPIs to any participating PE (`GICD_TYPER.No1N` = 0,
    /// `GICR_TYPER.DPGS`).
    pub one_of_n: bool,
    /// Lets devices signal SPIs by writing to `GICD_SETSPI_NSR` (`GICD_TYPER.MBIS`).
    pub message_based_spis: bool,
    /// Guest physical address of an additional 64 KiB frame that has only the
    /// [`message_based_spis`](Self::message_based_spis) doorbells (`mbi-alias` in a devicetree).
    pub mbi_alias: Option<u64>,
    /// GICv2m frames.
    pub v2m: Vec<V2mConfig>,
    /// Coherence of the redistributors' accesses to LPI tables with the guest's caches.
    pub coherence: Coherence,
}

/// Security states that a guest sees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SecurityView {
    /// One security state (`GICD_CTLR.DS` = 1): the guest sees the whole GIC, Groups 0 and 1.
    #[default]
    Single,
    /// The Non-secure view of a GIC with two security states (`DS` = 0), as a kernel under EL3
    /// firmware sees it. Only Non-secure Group 1 exists, priorities are shifted into the lower
    /// half, and redistributors are awake.
    NonSecure,
}

impl VgicConfig {
    /// Creates a configuration with `cpus` vCPUs in clusters of 16, with one security state, 5
    /// priority bits, 256 SPIs and no LPIs, at the addresses of QEMU's `virt` machine.
    ///
    /// Aborts if the heap is exhausted. If your code must not abort, use
    /// [`try_new`](Self::try_new).
    pub fn new(cpus: u16) -> Self {
        Self::of(
            (0..cpus).map(CpuConfig::in_clusters_of_sixteen).collect(),
            Vec::from([RedistributorRegion::in_one(cpus)]),
        )
    }

    /// Creates the same configuration as [`new`](Self::new), but returns an error if the heap is
    /// exhausted.
    ///
    /// # Errors
    /// The heap is exhausted.
    pub fn try_new(cpus: u16) -> Result<Self, OutOfMemory> {
        Ok(Self::of(
            try_collect_exact((0..cpus).map(CpuConfig::in_clusters_of_sixteen))?,
            try_collect_exact(core::iter::once(RedistributorRegion::in_one(cpus)))?,
        ))
    }

    const fn of(cpus: Vec<CpuConfig>, redistributors: Vec<RedistributorRegion>) -> Self {
        Self {
            cpus,
            distributor: 0x0800_0000,
            redistributors,
            spis: 256,
            extended_spis: 0,
            extended_ppis: 0,
            security: SecurityView::Single,
            secure_interrupts: Vec::new(),
            awake_redistributors: false,
            level_ppis: false,
            priority_bits: 5,
            lpi_id_bits: None,
            lpi_work_per_access: 1024,
            its_events: 1 << 17,
            its_devices: 1 << 16,
            its: Vec::new(),
            iidr: Iidr::new().with_implementer(0x43b),
            can_clear_enable_lpis: true,
            redistributor_invalidation: false,
            direct_lpi: false,
            one_of_n: false,
            message_based_spis: false,
            mbi_alias: None,
            v2m: Vec::new(),
            coherence: Coherence::Coherent,
        }
    }

    msi_types::setters! {
        with_cpus: cpus: Vec<CpuConfig>,
        with_distributor: distributor: u64,
        with_redistributors: redistributors: Vec<RedistributorRegion>,
        with_spis: spis: u32,
        with_extended_spis: extended_spis: u32,
        with_extended_ppis: extended_ppis: u32,
        with_security: security: SecurityView,
        with_secure_interrupts: secure_interrupts: Vec<IntId>,
        with_awake_redistributors: awake_redistributors: bool,
        with_level_ppis: level_ppis: bool,
        with_priority_bits: priority_bits: u8,
        with_lpi_id_bits: lpi_id_bits: Option<u8>,
        with_lpi_work_per_access: lpi_work_per_access: u32,
        with_its_events: its_events: u32,
        with_its_devices: its_devices: u32,
        with_its: its: Vec<ItsConfig>,
        with_iidr: iidr: Iidr,
        with_can_clear_enable_lpis: can_clear_enable_lpis: bool,
        with_redistributor_invalidation: redistributor_invalidation: bool,
        with_direct_lpi: direct_lpi: bool,
        with_one_of_n: one_of_n: bool,
        with_message_based_spis: message_based_spis: bool,
        with_mbi_alias: mbi_alias: Option<u64>,
        with_v2m: v2m: Vec<V2mConfig>,
        with_coherence: coherence: Coherence,
    }

    /// Copies the configuration. Does not abort if the heap is exhausted.
    pub(crate) fn duplicate(&self) -> Result<Self, OutOfMemory> {
        Ok(Self {
            secure_interrupts: try_collect_exact(self.secure_interrupts.iter().copied())?,
            its: try_collect_exact(self.its.iter().copied())?,
            v2m: try_collect_exact(self.v2m.iter().copied())?,
            cpus: try_collect_exact(self.cpus.iter().copied())?,
            redistributors: try_collect_exact(self.redistributors.iter().copied())?,
            ..*self
        })
    }

    /// Returns `true` if this machine implements the interrupt. Always returns `false` for LPIs.
    pub(crate) const fn implements(&self, intid: IntId) -> bool {
        self.wired_intids().contains(intid)
    }

    pub(crate) const fn wired_intids(&self) -> WiredIntIds {
        let Self { spis, extended_spis, extended_ppis, .. } = *self;
        WiredIntIds { spis, extended_spis, extended_ppis }
    }

    /// Returns `true` if redistributors are awake after reset. In the Non-secure view, where
    /// firmware owns `GICR_WAKER`, redistributors are always awake.
    pub(crate) fn resets_awake(&self) -> bool {
        self.awake_redistributors || self.security == SecurityView::NonSecure
    }

    /// Returns `true` if the interrupt can have this trigger mode.
    pub(crate) fn allows_trigger(&self, intid: IntId, edge: bool) -> bool {
        match intid.class() {
            IntIdClass::Sgi => edge,
            IntIdClass::Ppi | IntIdClass::ExtendedPpi => !edge || !self.level_ppis,
            _ => true,
        }
    }

    /// Returns the number of INTID bits that the distributor implements. Without LPIs, 10 bits are
    /// enough, or 13 with extended ranges.
    pub(crate) fn id_bits(&self) -> u8 {
        let wired = if self.extended_spis > 0 || self.extended_ppis > 0 { 13 } else { 10 };
        self.lpi_id_bits.unwrap_or(wired)
    }

    /// Iterates over the vCPUs' redistributor frames, in order.
    pub(crate) fn redistributor_frames(&self) -> impl Iterator<Item = RedistributorFrame> + Clone {
        topology::redistributor_frames(&self.redistributors, self.cpus.len())
    }

    /// Checks that a GIC with this configuration can exist.
    ///
    /// # Errors
    /// The first violated constraint, if any.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_cpus()?;
        self.validate_counts()?;
        self.validate_map()?;
        let secure = self.security == SecurityView::NonSecure;
        match self.secure_interrupts.iter().find(|intid| !secure || !self.implements(**intid)) {
            Some(intid) => Err(ConfigError::SecureInterrupt(*intid)),
            None => Ok(()),
        }
    }

    fn validate_cpus(&self) -> Result<(), ConfigError> {
        if self.cpus.is_empty() || self.cpus.len() > MAX_CPUS {
            return Err(ConfigError::CpuCount(self.cpus.len()));
        }
        let mut affinities = try_boxed_slice(self.cpus.iter().map(|cpu| cpu.affinity))?;
        affinities.sort_unstable();
        if let Some(pair) = affinities.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::DuplicateAffinity(pair[0]));
        }
        let mut numbers = try_boxed_slice(self.cpus.iter().map(|cpu| cpu.processor_number))?;
        numbers.sort_unstable();
        match numbers.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(ConfigError::DuplicateProcessorNumber(pair[0])),
            None => Ok(()),
        }
    }

    fn validate_counts(&self) -> Result<(), ConfigError> {
        if self.spis != 988 && (self.spis > 960 || !self.spis.is_multiple_of(32)) {
            return Err(ConfigError::SpiCount(self.spis));
        }
        if self.extended_spis > IntId::EXTENDED_SPI_COUNT || !self.extended_spis.is_multiple_of(32)
        {
            return Err(ConfigError::ExtendedSpiCount(self.extended_spis));
        }
        if !matches!(self.extended_ppis, 0 | 32 | 64) {
            return Err(ConfigError::ExtendedPpiCount(self.extended_ppis));
        }
        let fewest = match self.security {
            SecurityView::Single => 4,
            SecurityView::NonSecure => 5,
        };
        if !(fewest..=8).contains(&self.priority_bits) {
            return Err(ConfigError::PriorityBits(self.priority_bits));
        }
        match self.lpi_id_bits {
            Some(bits) if !(lpi::MIN_ID_BITS..=MAX_ID_BITS).contains(&bits) => {
                Err(ConfigError::LpiIdBits(bits))
            }
            _ if self.lpi_work_per_access == 0 => Err(ConfigError::NoLpiWork),
            _ => self.validate_direct_lpi(),
        }
    }

    /// Checks that direct LPIs are combined with neither an ITS nor message-based SPIs. GICv2m
    /// frames may be combined with any of these.
    fn validate_direct_lpi(&self) -> Result<(), ConfigError> {
        if !self.direct_lpi {
            return Ok(());
        }
        if self.lpi_id_bits.is_none() {
            return Err(ConfigError::DirectLpiWithoutLpis);
        }
        if let Some(its) = self.its.first() {
            return Err(ConfigError::DirectLpiBesideIts { its: its.base });
        }
        if self.message_based_spis { Err(ConfigError::DirectLpiBesideMbi) } else { Ok(()) }
    }

    fn validate_map(&self) -> Result<(), ConfigError> {
        if let Some(its) = self.its.first().filter(|_| self.lpi_id_bits.is_none()) {
            return Err(ConfigError::ItsWithoutLpis(its.base));
        }
        if let Some(base) = self.mbi_alias.filter(|_| !self.message_based_spis) {
            return Err(ConfigError::MbiAlias(base));
        }
        self.its.iter().try_for_each(ItsConfig::validate)?;
        V2mConfig::validate(&self.v2m, |intid| self.implements(intid))?;
        let bad_stride = |stride: u64| {
            stride < gicr::STRIDE_V3 || !stride.is_multiple_of(gicr::FRAME_SIZE) || stride > 1 << 32
        };
        if let Some(region) = self.redistributors.iter().find(|region| bad_stride(region.stride)) {
            return Err(ConfigError::Stride(region.stride));
        }
        let room = self.redistributors.iter().map(|region| u64::from(region.count)).sum();
        if room < self.cpus.len() as u64 {
            return Err(ConfigError::TooFewRedistributors { cpus: self.cpus.len(), room });
        }
        let mut blocks = try_collect_exact(self.blocks())?;
        for (base, size) in &blocks {
            if *size >= gicd::FRAME_SIZE && !base.is_multiple_of(gicd::FRAME_SIZE) {
                return Err(ConfigError::Misaligned(*base));
            }
            if base.checked_add(*size).is_none_or(|end| end > 1 << 52) {
                return Err(ConfigError::AddressSpace(*base));
            }
        }
        blocks.sort_unstable();
        match blocks.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
            Some(pair) => Err(ConfigError::Overlap { first: pair[0].0, second: pair[1].0 }),
            None => Ok(()),
        }
    }

    /// Iterates over the base and size of each address block that the GIC decodes.
    fn blocks(&self) -> impl Iterator<Item = (u64, u64)> + Clone {
        let redistributors = self
            .redistributors
            .iter()
            .map(|region| (region.base, region.stride * u64::from(region.count)));
        let its = self.its.iter().map(|its| (its.base, gits::SIZE));
        let v2m = self.v2m.iter().map(|frame| (frame.base, V2mConfig::SIZE));
        let alias = self.mbi_alias.map(|base| (base, gicd::FRAME_SIZE));
        core::iter::once((self.distributor, gicd::FRAME_SIZE))
            .chain(redistributors)
            .chain(its)
            .chain(alias)
            .chain(v2m)
    }
}

/// INTIDs of the SGIs, PPIs and SPIs on a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WiredIntIds {
    spis: u32,
    extended_spis: u32,
    extended_ppis: u32,
}

impl WiredIntIds {
    /// Returns the highest shared INTID.
    pub(crate) fn last_shared(self) -> Option<IntId> {
        let last_of = |first: u32, count: u32| Some(IntId::new(first + count.checked_sub(1)?));
        last_of(IntId::EXTENDED_SPI_BASE, self.extended_spis)
            .or_else(|| last_of(IntId::SPI_BASE, self.spis))
    }

    pub(crate) const fn contains(&self, intid: IntId) -> bool {
        match intid.class() {
            IntIdClass::Sgi | IntIdClass::Ppi => true,
            IntIdClass::Spi => intid.get() < IntId::SPI_BASE + self.spis,
            IntIdClass::ExtendedPpi => intid.get() < IntId::EXTENDED_PPI_BASE + self.extended_ppis,
            IntIdClass::ExtendedSpi => intid.get() < IntId::EXTENDED_SPI_BASE + self.extended_spis,
            IntIdClass::Special | IntIdClass::Lpi | IntIdClass::Reserved => false,
        }
    }
}

/// Converts an index into [`VgicConfig::cpus`], which has at most [`MAX_CPUS`] elements, to a vCPU
/// number.
pub(crate) fn cpu(index: usize) -> Cpu {
    Cpu::new(u32::try_from(index).unwrap_or(u32::MAX))
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests;
