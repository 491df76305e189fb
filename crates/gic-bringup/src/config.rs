//! Bring-up options and driver types, and the conversion of firmware's description into driver
//! configurations. This module does not access hardware. Each driver is built only if its feature
//! is enabled.

use crate::error::{BringUpError, ControllerError};
use alloc::collections::TryReserveError;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::convert::Infallible;
use core::marker::PhantomData;
use core::num::NonZeroU16;
use core::ops::Deref;
use doorbell_fallible::try_collect;
use gic_arch::Affinity;
#[cfg(feature = "direct-lpi")]
use gic_driver::direct_lpi::ResendObserver;
use gic_driver::its::{IdMap, IdRange, IfEnabled};
use gic_driver::mbi::MbiConfig;
use gic_driver::{
    BridgeKind, BridgeMsi, BridgeMsiConfig, Coherence, DirectLpi, GicConfig, GicV2, GicV2Config,
    Its, ItsConfig, Mbi, Mip, MipConfig, PhysicalRegion, Priorities, RedistributorRegion, SpiRange,
    TableAccess, V2m, V2mFrame,
};
use gic_firmware::{
    Controller, ControllerIndex, ControllerKind, Description, Fact, Gic, GicVersion, IntIdSpan,
    PciHost,
};
use irq_domain::AffinityPolicy;
use msi_types::pci::{PciSpace, PciWindow};
use msi_types::{Cpu, Surroundings};

/// Maximum number of CPUs with a GICv3. The interrupt core and ITSes use 16-bit CPU numbers, and an
/// ITS has no collection for CPU 65535.
const MAX_CPUS: usize = 0xffff;
/// Maximum number of CPUs with a GICv2, which has eight CPU interfaces.
const MAX_CPUS_V2: usize = 8;

/// Configuration for the root controller's driver.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RootConfig {
    /// GICv3 or later.
    V3(GicConfig),
    /// GICv2.
    V2(GicV2Config),
}

impl RootConfig {
    /// Derives the configuration from the description. CPUs keep the description's order.
    ///
    /// # Errors
    /// Any [`BringUpError`] except [`BringUpError::Gic`] and [`BringUpError::UnknownBootCpu`].
    pub fn new(description: &Description, options: &Options<'_>) -> Result<Self, BringUpError> {
        Self::with_cpus(description, options, cpus(description, options, None)?)
    }

    /// Derives the configuration for CPUs with these affinities. `cpus` must not be empty.
    ///
    /// # Errors
    /// [`BringUpError::NoGic`], [`BringUpError::NoCpuInterface`], [`BringUpError::NoMemory`].
    pub fn with_cpus(
        description: &Description,
        options: &Options<'_>,
        cpus: Vec<Affinity>,
    ) -> Result<Self, BringUpError> {
        let gic = enabled_gic(description)?;
        match gic.version.value {
            GicVersion::V2 if !cfg!(feature = "gicv2") => Err(BringUpError::NotBuilt),
            GicVersion::V2 => v2(gic, cpus.len(), options.priorities).map(Self::V2),
            _ => Ok(Self::V3(v3(description, gic, cpus, options)?)),
        }
    }

    /// Returns the number of CPUs.
    pub fn cpus(&self) -> NonZeroU16 {
        let count = match self {
            Self::V3(config) => config.cpus().len(),
            Self::V2(config) => config.cpus(),
        };
        u16::try_from(count).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN)
    }
}

/// Returns the affinities of all CPUs enabled by firmware, indexed by CPU number. CPUs are numbered
/// in firmware order, except that the CPU with `boot`'s affinity keeps `boot`'s number.
///
/// # Errors
/// [`BringUpError::NoGic`], [`BringUpError::NoCpus`], [`BringUpError::NoMemory`], and
/// [`BringUpError::UnknownBootCpu`] if firmware does not enable the boot CPU of a GICv3, because
/// the driver finds the CPU's redistributor by its affinity. A GICv2 does not identify its CPUs by
/// affinity.
pub fn cpus(
    description: &Description,
    options: &Options<'_>,
    boot: Option<(Cpu, Affinity)>,
) -> Result<Vec<Affinity>, BringUpError> {
    let is_v2 = enabled_gic(description)?.version.value == GicVersion::V2;
    let most = if is_v2 { MAX_CPUS_V2 } else { MAX_CPUS };
    let mut all = try_collect(description.enabled_cpus().map(|cpu| cpu.affinity.value))?;
    if let Some((number, affinity)) = boot {
        match all.iter().position(|other| *other == affinity) {
            Some(place) => {
                all.remove(place);
                all.insert(number.index().min(all.len()), affinity);
            }
            None if is_v2 => {}
            None => return Err(BringUpError::UnknownBootCpu(affinity)),
        }
    }
    all.truncate(options.max_cpus.min(most));
    if all.is_empty() { Err(BringUpError::NoCpus) } else { Ok(all) }
}

fn enabled_gic(description: &Description) -> Result<&Gic, BringUpError> {
    let gic = description.gic.as_ref().filter(|gic| gic.status.is_enabled());
    gic.ok_or(BringUpError::NoGic)
}

fn v2(gic: &Gic, cpus: usize, priorities: Priorities) -> Result<GicV2Config, BringUpError> {
    let interface = gic.cpu_interface.as_ref().ok_or(BringUpError::NoCpuInterface)?;
    Ok(GicV2Config::new(gic.distributor.base(), interface.base(), cpus)
        .with_cpu_interface_bytes(interface.size())
        .with_priorities(priorities))
}

fn v3(
    description: &Description,
    gic: &Gic,
    cpus: Vec<Affinity>,
    options: &Options<'_>,
) -> Result<GicConfig, TryReserveError> {
    let redistributors = gic.redistributors.iter().map(|region| {
        RedistributorRegion::new(PhysicalRegion { base: region.base(), bytes: region.size() })
            .with_stride(gic.redistributor_stride.as_ref().map(|stride| stride.value))
    });
    Ok(GicConfig::new(gic.distributor.base(), try_collect(redistributors)?, cpus)
        .with_table_access(match gic.coherence.value {
            gic_firmware::Coherence::ByRegister => TableAccess::Negotiate,
            gic_firmware::Coherence::NonCoherent => TableAccess::NonCoherent,
        })
        .with_priorities(options.priorities)
        .with_lpi_id_bits(options.lpi_id_bits)
        .with_machine(machine_names(description)?))
}

/// Returns the machine names that [errata](gic_driver::errata) are matched against.
fn machine_names(description: &Description) -> Result<Vec<String>, TryReserveError> {
    let mut names = Vec::new();
    for name in description.quirk_names() {
        let mut copy = String::new();
        copy.try_reserve_exact(name.len())?;
        copy.push_str(name);
        names.try_reserve(1)?;
        names.push(copy);
    }
    Ok(names)
}

/// Returns an ITS configuration for CPUs below `cpus`. With this configuration, the driver takes
/// over an ITS that is already enabled. Because an [`Irqchip`](crate::Irqchip) contains the
/// machine's only drivers, such an ITS must have been left enabled by firmware or by a previous
/// kernel (kexec).
///
/// # Errors
/// [`ControllerError::NoRegisters`], [`ControllerError::NoMemory`].
pub fn its(
    description: &Description,
    controller: &Controller,
    cpus: NonZeroU16,
) -> Result<ItsConfig, ControllerError> {
    Ok(ItsConfig::new(base(controller)?, cpus.get().into())
        .with_coherence(match controller.coherence.value {
            gic_firmware::Coherence::ByRegister => Coherence::Coherent,
            gic_firmware::Coherence::NonCoherent => Coherence::NonCoherent,
        })
        .with_machine(machine_names(description)?)
        .with_if_enabled(IfEnabled::TakeOver)
        .with_pre_its(
            controller
                .pre_its
                .as_ref()
                .map(|window| PhysicalRegion { base: window.base(), bytes: window.size() }),
        ))
}

/// Returns the message-based SPI configuration.
///
/// # Errors
/// [`ControllerError::NoMemory`].
pub fn mbi(
    description: &Description,
    controller: &Controller,
) -> Result<MbiConfig, ControllerError> {
    let frame = controller.registers.as_ref().map(|registers| registers.base());
    let distributor = description.gic.as_ref().map(|gic| gic.distributor.base());
    let ranges = controller.ranges.iter().filter_map(|range| spi_range(range.value));
    let alias = frame.filter(|frame| Some(*frame) != distributor);
    Ok(MbiConfig::new(try_collect(ranges)?).with_alias(alias))
}

/// Converts an INTID range, or returns `None` if it is empty.
fn spi_range(span: IntIdSpan) -> Option<SpiRange> {
    let count = NonZeroU16::new(u16::try_from(span.count()).unwrap_or(u16::MAX))?;
    Some(SpiRange { first: span.first().hwirq(), count })
}

/// Returns the configuration for a GICv2m frame.
///
/// # Errors
/// [`ControllerError::NoRegisters`].
pub fn v2m<'a>(
    description: &'a Description,
    controller: &Controller,
) -> Result<V2mFrame<'a>, ControllerError> {
    let stated = controller.ranges.first();
    Ok(V2mFrame::new(base(controller)?)
        .with_first_spi(stated.map(|range| range.first().get()))
        .with_spi_count(stated.map(|range| range.count()))
        .with_oem_id(description.oem_id.as_deref()))
}

/// Returns the configuration for the controller with this index, which is inside a host bridge.
/// Functions write to an address below 4 GiB, where they have no memory to reach.
///
/// # Errors
/// [`ControllerError::NoRegisters`], [`ControllerError::NoInterrupts`],
/// [`ControllerError::NoDoorbell`], [`ControllerError::NoMemory`].
pub fn bridge_msi(
    description: &Description,
    index: ControllerIndex,
) -> Result<BridgeMsiConfig, ControllerError> {
    let controller = description.controller(index).ok_or(ControllerError::Foreign)?;
    let kind = match controller.kind {
        ControllerKind::ImsiRx => BridgeKind::ImsiRx,
        ControllerKind::MediatekGen3 => BridgeKind::MediatekGen3,
        _ => return Err(ControllerError::Foreign),
    };
    if controller.lines.is_empty() {
        return Err(ControllerError::NoInterrupts);
    }
    let lines = try_collect(controller.lines.iter().map(|line| line.intid.hwirq()))?;
    let config = BridgeMsiConfig::new(kind, base(controller)?, lines)
        .with_shared_line(controller.has_shared_line)
        .with_gate(controller.gate.as_ref().map(|gate| gate.value));
    let host = description.hosts.iter().find(|host| host.own_controller == Some(index));
    let Some(host) = host else { return Ok(config) };
    let from_the_top = (1..=0x1000).map(|below| 0x1_0000_0000 - (below << 20));
    let mut candidates = [config.doorbell()].into_iter().chain(from_the_top);
    let doorbell = candidates.find(|at| is_unused(description, host, *at));
    Ok(config.with_doorbell(doorbell.ok_or(ControllerError::NoDoorbell)?))
}

/// Returns `true` if functions behind `host` can write a message to the PCI address `at`: neither a
/// window of the bridge nor memory is there.
fn is_unused(description: &Description, host: &PciHost, at: u64) -> bool {
    let is_forwarded =
        |window: &Fact<PciWindow>| window.space() != PciSpace::Io && window.to_cpu(at).is_some();
    let is_memory = |address| description.memory.iter().any(|region| region.contains(address));
    let reached = if host.dma_windows.is_empty() {
        Some(at)
    } else {
        host.dma_windows.iter().find_map(|window| window.to_cpu(at))
    };
    at <= u32::MAX.into()
        && !host.windows.iter().any(is_forwarded)
        && !reached.is_some_and(is_memory)
}

/// Returns the configuration for a MIP.
///
/// # Errors
/// [`ControllerError::NoRegisters`], [`ControllerError::NoInterrupts`].
pub fn mip(controller: &Controller) -> Result<MipConfig, ControllerError> {
    let spis = controller.ranges.first().and_then(|range| spi_range(range.value));
    let stated = spis.zip(controller.message.as_ref()).ok_or(ControllerError::NoInterrupts);
    let (spis, message) = stated?;
    let config = MipConfig::new(base(controller)?, spis, message.address);
    Ok(config.with_first_data(message.data))
}

fn base(controller: &Controller) -> Result<u64, ControllerError> {
    controller
        .registers
        .as_ref()
        .map(|registers| registers.base())
        .ok_or(ControllerError::NoRegisters)
}

/// Maps a host bridge's requesters to their DeviceIDs at one controller. Returns `None` if firmware
/// routes no messages from the bridge to the controller.
///
/// # Errors
/// Fails if memory for the ranges cannot be allocated.
pub fn id_map(
    description: &Description,
    host: &PciHost,
    controller: ControllerIndex,
) -> Result<Option<IdMap>, TryReserveError> {
    let spans = description.host_spans(host).filter(|span| span.controller == controller);
    let ranges = try_collect(spans.map(|span| IdRange {
        first_requester: span.rid_base,
        length: span.length,
        first_device: span.device_id_base,
    }))?;
    if ranges.is_empty() {
        return Ok(None);
    }
    let map = IdMap::new(ranges);
    Ok(Some(match &host.msi.mask {
        Some(mask) if host.msi.map.is_some() => map.with_mask(mask.value),
        _ => map,
    }))
}

/// Bring-up options chosen by the kernel.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options<'a> {
    pub(crate) max_cpus: usize,
    pub(crate) lpi_id_bits: Option<u8>,
    pub(crate) drives: &'a dyn Fn(&Controller) -> bool,
    pub(crate) its: &'a dyn Fn(&Controller, ItsConfig) -> ItsConfig,
    pub(crate) priorities: Priorities,
    pub(crate) policy: Option<Arc<dyn AffinityPolicy>>,
    pub(crate) surroundings: Surroundings,
    #[cfg(feature = "direct-lpi")]
    pub(crate) resend_observer: Option<Arc<dyn ResendObserver>>,
}

impl<'a> Options<'a> {
    msi_types::setters! {
        /// Sets the maximum number of CPUs. If firmware enables more CPUs, only the first CPUs are
        /// used.
        with_max_cpus: max_cpus: usize,
        /// Sets the maximum INTID bits for LPIs; `None` selects [the driver's
        /// default](gic_driver::lpi::DEFAULT_ID_BITS).
        with_lpi_id_bits: lpi_id_bits: Option<u8>,
        /// Sets the filter for controllers that firmware enables: returns `true` if the controller
        /// should be driven.
        with_drives: drives: &'a dyn Fn(&Controller) -> bool,
        /// Sets the hook that adjusts an ITS configuration: NUMA node, targets, DeviceID bits and
        /// command queue size. The default configuration is derived from firmware's description and
        /// [takes over](gic_driver::its::IfEnabled::TakeOver) an ITS that is already enabled.
        with_its: its: &'a dyn Fn(&Controller, ItsConfig) -> ItsConfig,
        /// Sets the interrupt priorities and the priority mask. A GICv2 uses only the wired
        /// priorities and the mask. [`Irqchip::set_priority`](crate::Irqchip::set_priority) changes
        /// the priority of a single interrupt.
        with_priorities: priorities: Priorities,
        /// Sets the policy for choosing target CPUs; `None` selects
        /// [`RoundRobin`](irq_domain::RoundRobin).
        with_policy: policy: Option<Arc<dyn AffinityPolicy>>,
        /// Sets whether the kernel runs on bare metal or in a guest. The default is a guest whose
        /// hypervisor only traps: devices that store messages in memory of their own (IMS,
        /// platform devices) are refused. [Firmware's explicit
        /// sign](gic_firmware::Description::hypervisor) of a hypervisor overrules a stated bare
        /// metal ([`Irqchip::surroundings`](crate::Irqchip::surroundings)).
        with_surroundings: surroundings: Surroundings,
    }

    /// Returns the default options for a kernel that states bare metal.
    pub fn bare_metal() -> Self {
        Self::default().with_surroundings(Surroundings::BareMetal)
    }

    /// Returns the options with this observer.
    #[cfg(feature = "direct-lpi")]
    #[doc(hidden)]
    pub fn with_resend_observer(self, resend_observer: Option<Arc<dyn ResendObserver>>) -> Self {
        Self { resend_observer, ..self }
    }
}

impl Default for Options<'_> {
    /// Selects every CPU and every controller, and the behavior of a guest.
    fn default() -> Self {
        Self {
            max_cpus: usize::MAX,
            lpi_id_bits: None,
            drives: &|_| true,
            its: &|_, config| config,
            priorities: Priorities::default(),
            policy: None,
            surroundings: Surroundings::default(),
            #[cfg(feature = "direct-lpi")]
            resend_observer: None,
        }
    }
}

msi_types::debug_by!(
    Options<'_> as "Options",
    |it| {max_cpus: it.max_cpus, lpi_id_bits: it.lpi_id_bits, priorities: it.priorities}
);

/// Placeholder for a driver whose feature is disabled. The type has no values, so the compiler
/// removes any code that would use one.
#[derive(Debug)]
pub struct Absent<D>(Infallible, PhantomData<fn() -> D>);

impl<D> Deref for Absent<D> {
    type Target = D;

    fn deref(&self) -> &D {
        match self.0 {}
    }
}

/// Driver for a controller inside a host bridge.
#[cfg(feature = "bridge-msi")]
pub type BridgeMsiDriver<P> = Arc<BridgeMsi<P>>;
/// Driver for a controller inside a host bridge (not part of this build).
#[cfg(not(feature = "bridge-msi"))]
pub type BridgeMsiDriver<P> = Absent<Arc<BridgeMsi<P>>>;

/// Driver for an ITS.
#[cfg(feature = "its")]
pub type ItsDriver<P> = Arc<Its<P>>;
/// Driver for an ITS (not part of this build).
#[cfg(not(feature = "its"))]
pub type ItsDriver<P> = Absent<Arc<Its<P>>>;

/// Driver for direct LPIs.
#[cfg(feature = "direct-lpi")]
pub type DirectLpiDriver<P> = Arc<DirectLpi<P>>;
/// Driver for direct LPIs (not part of this build).
#[cfg(not(feature = "direct-lpi"))]
pub type DirectLpiDriver<P> = Absent<Arc<DirectLpi<P>>>;

/// Driver for message-based SPIs.
#[cfg(feature = "mbi")]
pub type MbiDriver<P> = Arc<Mbi<P>>;
/// Driver for message-based SPIs (not part of this build).
#[cfg(not(feature = "mbi"))]
pub type MbiDriver<P> = Absent<Arc<Mbi<P>>>;

/// Driver for a MIP.
#[cfg(feature = "mip")]
pub type MipDriver<P> = Arc<Mip<P>>;
/// Driver for a MIP (not part of this build).
#[cfg(not(feature = "mip"))]
pub type MipDriver<P> = Absent<Arc<Mip<P>>>;

/// Driver for a GICv2m frame.
#[cfg(feature = "v2m")]
pub type V2mDriver<P> = Arc<V2m<P>>;
/// Driver for a GICv2m frame (not part of this build).
#[cfg(not(feature = "v2m"))]
pub type V2mDriver<P> = Absent<Arc<V2m<P>>>;

/// Driver for a GICv2.
#[cfg(feature = "gicv2")]
pub type GicV2Driver<P> = Arc<GicV2<Arc<P>>>;
/// Driver for a GICv2 (not part of this build).
#[cfg(not(feature = "gicv2"))]
pub type GicV2Driver<P> = Absent<Arc<GicV2<Arc<P>>>>;
