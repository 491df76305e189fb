//! A whole GIC: the distributor plus every CPU's redistributor, CPU interface and LPIs. CPUs are
//! addressed by the platform's CPU numbers.
//!
//! ```text
//! lock order, outermost first; each masks interrupts, none is held while waiting for hardware
//!   claims (which INTIDs have an owner)
//!   moves (which SPIs are being rerouted)
//!   LPI allocator
//!     LPI configuration bytes
//!   LPI pending tables
//!   fields of a frame (one lock per distributor and redistributor)
//! ```

mod errata;
mod suspend;
mod wired;

pub use suspend::{Resumed, SuspendError, SuspendRoom, Suspended};

use crate::claims::{Claims, Moves};
use crate::cpu_interface::{
    Acknowledged, Active, CombinedEoi, CpuInterface, CpuInterfaceConfig, EoiMode, SplitEoi,
};
use crate::distributor::{Distributor, DistributorConfig};
use crate::errata::{Erratum, ErratumEntry};
use crate::lpi::{Attached, LpiConfig, LpiError, Lpis};
use crate::redistributor::{
    PrivateConfig, Redistributor, RedistributorRegion, TableAccess, walk_redistributors,
};
use crate::spi_messages::SpiRange;
use crate::{Block, GicError, GicPlatform, Interrupt, Priorities, Route, SystemRegisters, barrier};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, Ordering};
use doorbell_fallible::lock::{IrqLock, TaskLock};
use doorbell_fallible::try_collect;
use errata::GicErrata;
use gic_arch::{Affinity, IntId, IntIdClass, gicd, icc};
use msi_types::{Cpu, HwIrq, MsiError};

/// GIC configuration, partly from firmware and partly chosen by the kernel.
///
/// For a GICv2, kernels must use [`GicV2`](crate::GicV2) instead. [`Gic::new`] rejects a GICv2
/// before it accesses a register that a GICv2 lacks, regardless of the distributor frame size that
/// firmware describes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GicConfig {
    /// Physical address of the distributor's frame.
    pub(crate) distributor: u64,
    pub(crate) distributor_bytes: Option<u64>,
    pub(crate) redistributors: Vec<RedistributorRegion>,
    pub(crate) cpus: Vec<Affinity>,
    pub(crate) priorities: Priorities,
    pub(crate) lpi_id_bits: Option<u8>,
    pub(crate) table_access: TableAccess,
    pub(crate) machine: Vec<String>,
}

impl GicConfig {
    /// Creates a configuration with defaults for everything that the kernel may choose.
    pub fn new(
        distributor: u64,
        redistributors: Vec<RedistributorRegion>,
        cpus: Vec<Affinity>,
    ) -> Self {
        Self {
            distributor,
            distributor_bytes: None,
            redistributors,
            cpus,
            priorities: Priorities::default(),
            lpi_id_bits: None,
            table_access: TableAccess::Negotiate,
            machine: Vec::new(),
        }
    }

    msi_types::setters! {
        /// Sets the size of the distributor's frame, if given by firmware. A size below 64 KiB is
        /// rejected before any register is accessed.
        with_distributor_bytes: distributor_bytes: Option<u64>,
        /// Sets the redistributor regions.
        with_redistributors: redistributors: Vec<RedistributorRegion>,
        /// Sets the CPUs' affinities as in `MPIDR_EL1`, indexed by CPU number.
        with_cpus: cpus: Vec<Affinity>,
        /// Sets the interrupt priorities, and the priority mask.
        with_priorities: priorities: Priorities,
        /// Sets the maximum INTID bits for LPIs; `None` for [the
        /// default](crate::lpi::DEFAULT_ID_BITS).
        with_lpi_id_bits: lpi_id_bits: Option<u8>,
        /// Sets the coherence of the redistributors' memory accesses, according to firmware.
        with_table_access: table_access: TableAccess,
        /// Sets the names by which firmware identifies the machine, for
        /// [errata](crate::errata::ErratumEntry::machines). With a devicetree, these are the
        /// compatible strings of the root and of the GIC's node, and the node's quirk properties;
        /// with ACPI, the OEM table ID.
        with_machine: machine: Vec<String>,
    }

    /// Returns the redistributor regions.
    pub fn redistributors(&self) -> &[RedistributorRegion] {
        &self.redistributors
    }

    /// Returns the CPUs' affinities, indexed by CPU number.
    pub fn cpus(&self) -> &[Affinity] {
        &self.cpus
    }
}

/// A whole GIC. Shared in an [`Arc`]; locking is internal. Implements
/// [`WiredParent`](msi_types::WiredParent) for SPIs and extended SPIs, and for the calling CPU's
/// SGIs and PPIs.
///
/// The [second example of the crate](crate#examples) boots a GIC. Another CPU is then turned on and
/// sends an IPI:
///
/// ```
/// use gic_arch::SgiId;
/// use gic_driver::{Gic, GicError, GicPlatform, SystemRegisters};
/// use msi_types::Cpu;
///
/// /// Called on the CPU that starts. `registers` are its own.
/// fn start<P: GicPlatform>(
///     gic: &Gic<P>,
///     registers: &impl SystemRegisters,
/// ) -> Result<(), GicError> {
///     gic.cpu_on(gic.platform().cpu(), registers)?;
///     let boot = gic.affinity(Cpu::new(0)).ok_or(GicError::UnknownCpu(Cpu::new(0)))?;
///     let reschedule = SgiId::new(1).expect("below 16");
///     gic.cpu_interface(registers).send(reschedule, boot)
/// }
/// ```
#[derive(Debug)]
pub struct Gic<P: GicPlatform> {
    platform: Arc<P>,
    distributor: Distributor<P::Mmio>,
    cpus: Vec<PerCpu<P::Mmio>>,
    bad_regions: Vec<GicError>,
    priorities: Priorities,
    lpis: Result<Lpis<P>, LpiError>,
    errata: GicErrata,
    claims: IrqLock<Claims>,
    moves: IrqLock<Moves>,
    /// `true` if the first CPU's interface reports no support for extended INTID ranges.
    without_extended: AtomicBool,
    /// Message-based SPIs. The level that a message asserts exists only in the distributor, so
    /// suspend must save it.
    message_ranges: IrqLock<Vec<SpiRange>>,
    /// Sequence number of the last VMOVP that several ITSes execute. The lock is held until they
    /// have executed it.
    pub(crate) vpe_moves: TaskLock<u16>,
    /// For each number of a vPE, whether a vPE has it. No other ITS may use it for another vPE.
    pub(crate) vpe_numbers: TaskLock<Vec<bool>>,
}

#[derive(Debug)]
struct PerCpu<M> {
    affinity: Affinity,
    redistributor: Option<Redistributor<M>>,
    on: AtomicBool,
}

impl<P: GicPlatform> Gic<P> {
    /// Discovers a GIC and brings its distributor to a known state. Interrupts are not enabled at
    /// any CPU yet: each CPU must be [turned on](Self::cpu_on) separately. Must be called once, on
    /// the boot CPU.
    ///
    /// Context: task; may sleep.
    ///
    /// A CPU without a redistributor, a redistributor region that can't be walked to the end, and
    /// unusable LPIs are not errors here: [`cpu_on`](Self::cpu_on),
    /// [`bad_regions`](Self::bad_regions) and [`lpis`](Self::lpis) report them.
    ///
    /// # Errors
    /// Any [`GicError`] except those for SGIs and CPU interfaces. The error of a region is returned
    /// only if no configured CPU has a redistributor.
    pub fn new(platform: Arc<P>, config: GicConfig) -> Result<Self, GicError> {
        let GicConfig {
            distributor,
            distributor_bytes,
            redistributors,
            cpus,
            priorities,
            lpi_id_bits,
            table_access,
            machine,
        } = config;
        let boot = platform.cpu();
        let route = *cpus.get(boot.index()).ok_or(GicError::UnknownCpu(boot))?;
        check_frame(distributor, distributor_bytes)?;
        let mut distributor = Distributor::map(&*platform, distributor)?;
        let mut errata = GicErrata::of_distributor(&distributor, &machine)?;
        errata.apply_to_distributor(&*platform, &mut distributor, &redistributors)?;
        let route = errata.affinity(route);
        distributor.init(&*platform, DistributorConfig::new(priorities.wired, route))?;
        let affinities = cpus.into_iter().map(|cpu| errata.affinity(cpu));
        let block = Block::Distributor(distributor.address());
        let (mut cpus, bad_regions) =
            open_redistributors(&*platform, block, &redistributors, affinities)?;
        for redistributor in cpus.iter_mut().filter_map(|cpu| cpu.redistributor.as_mut()) {
            errata.apply_to_redistributor(redistributor, &machine)?;
        }
        let present = cpus.iter().filter_map(|cpu| cpu.redistributor.as_ref());
        let choice =
            LpiConfig::new(priorities.lpi).with_id_bits(lpi_id_bits).with_access(table_access);
        let choice =
            present.clone().fold(choice, |choice, each| errata::corrected(choice, each, &machine));
        let lpis = match Lpis::new(platform.clone(), &distributor, present, choice) {
            Ok(lpis) => Ok(lpis),
            Err(GicError::Lpi(refused)) => Err(refused),
            Err(error) => return Err(error),
        };
        let (claims, moves) = Default::default();
        Ok(Self {
            platform,
            distributor,
            cpus,
            bad_regions,
            priorities,
            lpis,
            errata,
            claims,
            moves,
            without_extended: AtomicBool::new(false),
            message_ranges: IrqLock::default(),
            vpe_moves: TaskLock::new(0),
            vpe_numbers: TaskLock::new(Vec::new()),
        })
    }

    /// Enables interrupts at the calling CPU. Wakes its redistributor,
    /// [evicts](Redistributor::evict_vpe) a vPE, brings the CPU's SGIs and PPIs to a known state,
    /// sets up the redistributor's LPI tables, and enables the CPU interface. The LPI sender (an
    /// ITS or direct LPIs) must then invalidate any LPI configuration that the redistributor may
    /// have cached.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// Returns `None` if LPIs are [not usable](Self::lpis), or not implemented.
    ///
    /// # Errors
    /// [`GicError::UnknownCpu`] or [`GicError::NoRedistributor`] if the CPU is not configured or
    /// has no redistributor; [`GicError::TimedOut`] if the redistributor does not respond;
    /// [`GicError::Lpi`] if its LPI tables cannot be set up; [`GicError::NoSystemRegisters`] if a
    /// higher exception level denies access to the CPU interface.
    pub fn cpu_on<S: SystemRegisters>(
        &self,
        cpu: Cpu,
        registers: &S,
    ) -> Result<Option<Attached>, GicError> {
        self.cpu_on_with::<S, CombinedEoi>(cpu, registers)
    }

    /// Enables interrupts on the calling CPU like [`cpu_on`](Self::cpu_on), but in EOI mode `E`.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// Any error of [`cpu_on`](Self::cpu_on).
    pub fn cpu_on_with<S: SystemRegisters, E: EoiMode>(
        &self,
        cpu: Cpu,
        registers: &S,
    ) -> Result<Option<Attached>, GicError> {
        let redistributor = self.redistributor_frames(cpu)?;
        redistributor.wake(&*self.platform)?;
        redistributor.evict_vpe(&*self.platform)?;
        let view = self.distributor.view();
        redistributor.init(&*self.platform, PrivateConfig::new(self.priorities.wired, view))?;
        let attached = self.attach_lpis(redistributor).inspect_err(|_| {
            // Ignore a failure to put the redistributor back to sleep, because the first error is
            // returned.
            let _ = redistributor.sleep(&*self.platform);
        })?;
        self.enable_interface::<S, E>(registers)?;
        let is_first = !self.cpus.iter().any(|cpu| cpu.on.load(Ordering::SeqCst));
        if is_first && !registers.read(icc::CTLR).ext_range() {
            self.without_extended.store(true, Ordering::SeqCst);
        }
        self.set_on(cpu, true);
        Ok(attached)
    }

    /// Disables interrupts at the calling CPU and puts its redistributor to sleep. Shared
    /// interrupts that are still routed to it stay pending until they are rerouted. LPIs that
    /// target the CPU must already have been moved to other CPUs.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`GicError::UnknownCpu`] or [`GicError::NoRedistributor`] if the CPU is not configured or
    /// has no redistributor; [`GicError::TimedOut`] if the redistributor does not go to sleep.
    pub fn cpu_off<S: SystemRegisters>(&self, cpu: Cpu, registers: &S) -> Result<(), GicError> {
        let redistributor = self.redistributor_frames(cpu)?;
        self.set_on(cpu, false);
        self.cpu_interface(registers).disable();
        redistributor.sleep(&*self.platform)
    }

    /// Returns the calling CPU's interface. The CPU must have been turned on by
    /// [`cpu_on`](Self::cpu_on).
    ///
    /// Context: any.
    pub fn cpu_interface<S: SystemRegisters>(&self, registers: S) -> CpuInterface<S> {
        CpuInterface::new(registers).limited_by(self.distributor.typer())
    }

    /// Returns the calling CPU's interface. The CPU must have been turned on by
    /// [`cpu_on_with`](Self::cpu_on_with) with the same EOI mode.
    pub fn cpu_interface_with<S: SystemRegisters, E: EoiMode>(
        &self,
        registers: S,
    ) -> CpuInterface<S, E> {
        CpuInterface::new(registers).limited_by(self.distributor.typer())
    }

    /// Returns this GIC's errata. Each [`Erratum`] states whether the driver or the kernel must
    /// work around it.
    pub fn errata(&self) -> impl Iterator<Item = &'static ErratumEntry> {
        self.errata.iter()
    }

    /// Calls [`CpuInterface::end`] with the workarounds for this GIC's errata. Must be called on
    /// the interface's CPU.
    ///
    /// Context: any.
    pub fn end<S: SystemRegisters, E: EoiMode>(
        &self,
        interface: &CpuInterface<S, E>,
        interrupt: Acknowledged,
    ) -> E::Ended {
        let intid = interrupt.intid();
        let ended = interface.end(interrupt);
        if !E::SPLIT && self.wakes_another_cpu(intid) {
            // Wait until the deactivation at the CPU interface has taken effect.
            barrier::complete();
            self.deactivate_at_distributor(intid);
        }
        ended
    }

    /// Calls [`CpuInterface::deactivate`] with the workarounds for this GIC's errata. Must be
    /// called on the interface's CPU.
    ///
    /// Context: any.
    pub fn deactivate<S: SystemRegisters>(
        &self,
        interface: &CpuInterface<S, SplitEoi>,
        interrupt: Active,
    ) {
        let intid = interrupt.intid();
        if self.wakes_another_cpu(intid) {
            self.deactivate_at_distributor(interrupt.hand_over());
        } else {
            interface.deactivate(interrupt);
        }
    }

    /// Returns a handle to an SPI or extended SPI, or to a private interrupt of the calling CPU.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`GicError::NoSuchInterrupt`] if the interrupt is not implemented; [`GicError::UnknownCpu`]
    /// or [`GicError::NoRedistributor`] if the interrupt is private and the caller's CPU has no
    /// redistributor.
    pub fn interrupt(&self, intid: IntId) -> Result<Interrupt<'_, P::Mmio>, GicError> {
        if intid.is_private() {
            self.redistributor_frames(self.platform.cpu())?.interrupt(intid)
        } else {
            self.distributor.interrupt(intid)
        }
    }

    /// Returns a CPU's redistributor, which holds the state of its SGIs and PPIs. The handle may be
    /// used on any CPU.
    ///
    /// # Errors
    /// [`GicError::UnknownCpu`] if the CPU is not configured; [`GicError::NoRedistributor`] if it
    /// has no redistributor.
    pub fn redistributor_frames(&self, cpu: Cpu) -> Result<&Redistributor<P::Mmio>, GicError> {
        let per_cpu = self.cpus.get(cpu.index()).ok_or(GicError::UnknownCpu(cpu))?;
        per_cpu.redistributor.as_ref().ok_or(GicError::NoRedistributor(per_cpu.affinity))
    }

    /// Returns errors for redistributor regions that can't be walked to the end, because firmware
    /// describes them incorrectly or their cluster is absent. A CPU whose redistributor lies beyond
    /// such an error counts as having no redistributor. Context: any.
    pub fn bad_regions(&self) -> &[GicError] {
        &self.bad_regions
    }

    /// Returns all CPUs of the configuration.
    pub fn cpus(&self) -> impl Iterator<Item = Cpu> + use<P> {
        (0..u32::try_from(self.cpus.len()).unwrap_or(u32::MAX)).map(Cpu::new)
    }

    /// Returns a CPU's affinity as the GIC sees it, or `None` if the CPU is not part of the
    /// configuration.
    pub fn affinity(&self, cpu: Cpu) -> Option<Affinity> {
        self.cpus.get(cpu.index()).map(|per_cpu| per_cpu.affinity)
    }

    /// Returns `true` if the CPU has been turned on and not turned off since.
    pub fn is_on(&self, cpu: Cpu) -> bool {
        self.cpus.get(cpu.index()).is_some_and(|per_cpu| per_cpu.on.load(Ordering::SeqCst))
    }

    /// Returns the LPIs of this GIC.
    ///
    /// # Errors
    /// Returns the reason why LPIs cannot be used.
    pub fn lpis(&self) -> Result<&Lpis<P>, LpiError> {
        self.lpis.as_ref().map_err(|error| *error)
    }

    /// Returns the distributor.
    pub fn distributor(&self) -> &Distributor<P::Mmio> {
        &self.distributor
    }

    /// Returns the platform.
    pub fn platform(&self) -> &Arc<P> {
        &self.platform
    }

    /// Returns a handle to an interrupt in the block that holds its state: the distributor, or the
    /// calling CPU's redistributor.
    fn wired(&self, hwirq: HwIrq) -> Result<Interrupt<'_, P::Mmio>, MsiError> {
        let intid = IntId::from(hwirq);
        // A CPU interface without `ICC_CTLR_EL1.ExtRange` must never see an extended INTID (IHI
        // 0069 §12.2).
        let extended = matches!(intid.class(), IntIdClass::ExtendedPpi | IntIdClass::ExtendedSpi);
        if extended && self.without_extended.load(Ordering::SeqCst) {
            return Err(MsiError::UnknownVector(hwirq));
        }
        self.interrupt(intid).map_err(|_| MsiError::UnknownVector(hwirq))
    }

    fn attach_lpis(
        &self,
        redistributor: &Redistributor<P::Mmio>,
    ) -> Result<Option<Attached>, GicError> {
        match &self.lpis {
            Ok(lpis) if redistributor.typer().plpis() => lpis.attach(redistributor).map(Some),
            _ => Ok(None),
        }
    }

    fn enable_interface<S: SystemRegisters, E: EoiMode>(
        &self,
        registers: &S,
    ) -> Result<(), GicError> {
        let config = CpuInterfaceConfig::default().with_mask(self.priorities.mask);
        CpuInterface::<&S, E>::enable(registers, config).map(|_| ())
    }

    /// Returns `true` if Arm erratum 2941627 applies: the SPI is routed to a CPU other than the one
    /// that ends it. A GIC without errata costs a load and a branch per interrupt.
    #[inline]
    fn wakes_another_cpu(&self, intid: IntId) -> bool {
        !self.errata.is_empty() && self.loses_wake_of(intid)
    }

    #[cold]
    fn loses_wake_of(&self, intid: IntId) -> bool {
        self.errata.has(Erratum::SpiWakeLostOnDeactivation)
            && intid.is_shared()
            && self.affinity(self.platform.cpu()).map(Route::To)
                != self.distributor.route(intid).ok()
    }

    fn deactivate_at_distributor(&self, intid: IntId) {
        if let Ok(interrupt) = self.distributor.interrupt(intid) {
            interrupt.deactivate();
        }
    }

    fn set_on(&self, cpu: Cpu, on: bool) {
        if let Some(per_cpu) = self.cpus.get(cpu.index()) {
            per_cpu.on.store(on, Ordering::SeqCst);
        }
    }
}

/// A shared reference to a GIC that has LPIs.
pub(crate) struct GicWithLpis<P: GicPlatform>(Arc<Gic<P>>);

impl<P: GicPlatform> GicWithLpis<P> {
    /// Wraps a GIC after checking that it has usable LPIs.
    ///
    /// # Errors
    /// Returns the reason why the GIC has no LPIs.
    pub(crate) fn new(gic: Arc<Gic<P>>) -> Result<Self, LpiError> {
        gic.lpis()?;
        Ok(Self(gic))
    }

    pub(crate) fn lpis(&self) -> &Lpis<P> {
        let Ok(lpis) = &self.0.lpis else {
            unreachable!("`new` checked that the GIC has LPIs, and they do not change")
        };
        lpis
    }
}

impl<P: GicPlatform> Clone for GicWithLpis<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: GicPlatform> fmt::Debug for GicWithLpis<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GIC of the distributor@{:x}", self.0.distributor.address())
    }
}

impl<P: GicPlatform> Deref for GicWithLpis<P> {
    type Target = Arc<Gic<P>>;

    fn deref(&self) -> &Arc<Gic<P>> {
        &self.0
    }
}

/// Checks that firmware's frame size is not too small for a GICv3 distributor.
fn check_frame(base: u64, stated: Option<u64>) -> Result<(), GicError> {
    match stated {
        Some(bytes) if bytes < gicd::FRAME_SIZE => {
            Err(GicError::FrameTooSmall { block: Block::Distributor(base), bytes })
        }
        _ => Ok(()),
    }
}

/// Per-CPU state with redistributors, and errors for regions.
type Opened<M> = (Vec<PerCpu<M>>, Vec<GicError>);

/// Finds each CPU's redistributor, if it exists, and skips the redistributors of PEs that are not
/// configured. An error only ends the walk of the region in which it occurs: a region whose cluster
/// is fused off must not make the whole GIC unusable.
fn open_redistributors<P: GicPlatform>(
    platform: &P,
    block: Block,
    regions: &[RedistributorRegion],
    cpus: impl Iterator<Item = Affinity>,
) -> Result<Opened<P::Mmio>, GicError> {
    let per_cpu = |affinity| PerCpu { affinity, redistributor: None, on: AtomicBool::new(false) };
    let mut found = try_collect(cpus.map(per_cpu)).map_err(|_| GicError::NoMemory(block))?;
    let mut bad_regions = Vec::new();
    for region in regions {
        for redistributor in walk_redistributors(platform, *region) {
            let redistributor = match redistributor {
                Ok(redistributor) => redistributor,
                Err(error) => {
                    bad_regions.try_reserve(1).map_err(|_| GicError::NoMemory(block))?;
                    bad_regions.push(error);
                    break;
                }
            };
            // Evict vPEs before any table is allocated, even at redistributors of unused CPUs. If
            // an eviction fails, `cpu_on` reports the error.
            let _ = redistributor.evict_vpe(platform);
            let affinity = redistributor.affinity();
            let cpu = found
                .iter_mut()
                .find(|cpu| cpu.affinity == affinity && cpu.redistributor.is_none());
            if let Some(cpu) = cpu {
                cpu.redistributor = Some(redistributor);
            }
        }
    }
    match bad_regions.first() {
        Some(error) if found.iter().all(|cpu| cpu.redistributor.is_none()) => Err(*error),
        _ => Ok((found, bad_regions)),
    }
}
