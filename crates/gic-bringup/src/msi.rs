//! The MSI controllers, and the routing of requesters to them.

use crate::config::{
    self, BridgeMsiDriver, DirectLpiDriver, ItsDriver, MbiDriver, MipDriver, Options, RootConfig,
    V2mDriver,
};
use crate::error::{ControllerError, DriverError, NoParent};
use crate::root::RootGic;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU16;
use doorbell_fallible::lock::TaskLock;
use doorbell_fallible::try_arc;
use gic_arch::{Lpi, Priority};
use gic_driver::bridge_msi::FIRST_VECTOR;
use gic_driver::its::{IdMap, IfEnabled};
use gic_driver::{
    BridgeMsi, DirectLpi, GicPlatform, Its, ItsConfig, ItsError, ItsMsiParent, Mbi, Mip, V2m,
};
use gic_firmware::{
    Controller, ControllerIndex, ControllerKind, Description, NoRoute, PciHost, Via,
};
use irq_domain::{
    Host, Interrupts, IrqContext, IrqHandle, IrqReturn, Sharing, WiredRequest, layer,
};
use msi_types::pci::PciRequester;
use msi_types::{DeviceId, HwIrq, MsiParent, RequesterId, Surroundings, Trigger};

/// Driver for a single controller. If a feature is disabled, its variant holds
/// [`Absent`](crate::Absent), so that no value of the variant exists.
#[non_exhaustive]
pub enum MsiController<P: GicPlatform> {
    /// An ITS.
    Its(ItsDriver<P>),
    /// Direct LPIs (the redistributors' `GICR_SETLPIR`).
    DirectLpi(DirectLpiDriver<P>),
    /// Message-based SPIs.
    Mbi(MbiDriver<P>),
    /// A GICv2m frame.
    V2m(V2mDriver<P>),
    /// A controller inside a host bridge.
    BridgeMsi(BridgeMsiDriver<P>),
    /// A MIP.
    Mip(MipDriver<P>),
}

/// Resources for bringing up a controller.
pub(crate) struct Site<'a, P: GicPlatform> {
    pub(crate) description: &'a Description,
    pub(crate) gic: &'a RootGic<P>,
    pub(crate) platform: &'a Arc<P>,
    pub(crate) itses: QuietItses,
    pub(crate) interrupts: &'a Interrupts,
    pub(crate) options: &'a Options<'a>,
    pub(crate) surroundings: Surroundings,
    pub(crate) host: Arc<dyn Host>,
}

/// Configuration of each ITS, or the reason why no driver can be started for the ITS.
pub(crate) struct QuietItses(Vec<(ControllerIndex, Result<ItsConfig, ControllerError>)>);

impl QuietItses {
    /// Configures each ITS, and quiesces the ITSes that are to be taken over. Must be called before
    /// any table is allocated, because an ITS that is still enabled may write to a previous
    /// kernel's memory.
    pub(crate) fn new<P: GicPlatform>(
        platform: &Arc<P>,
        description: &Description,
        root: &RootConfig,
        options: &Options<'_>,
    ) -> Result<Self, TryReserveError> {
        let mut all = Vec::new();
        for (index, controller) in driven(description, options) {
            let is_its = cfg!(feature = "its") && controller.kind == ControllerKind::Its;
            if is_its && matches!(root, RootConfig::V3(_)) {
                all.try_reserve(1)?;
                all.push((index, quiet(platform, description, controller, (root.cpus(), options))));
            }
        }
        Ok(Self(all))
    }

    fn get(&self, index: ControllerIndex) -> Result<&ItsConfig, ControllerError> {
        let found = self.0.iter().find(|(known, _)| *known == index);
        match found.map(|(_, config)| config) {
            Some(config) => config.as_ref().map_err(|error| *error),
            None => Err(ControllerError::NeedsGicV3),
        }
    }
}

/// Returns the configuration for an ITS. If the ITS is to be taken over, quiesces it first;
/// otherwise, the driver later refuses an ITS that is still enabled.
fn quiet<P: GicPlatform>(
    platform: &Arc<P>,
    description: &Description,
    controller: &Controller,
    (cpus, options): (NonZeroU16, &Options<'_>),
) -> Result<ItsConfig, ControllerError> {
    if controller.secondary_gic.is_some() {
        return Err(ControllerError::SecondaryGic);
    }
    let config = (options.its)(controller, config::its(description, controller, cpus)?);
    if config.if_enabled() == IfEnabled::TakeOver {
        Its::quiesce_at(platform.clone(), config.base())?;
    }
    Ok(config)
}

/// Returns the MSI controllers that are enabled by firmware and allowed by the options.
fn driven<'a>(
    description: &'a Description,
    options: &'a Options<'_>,
) -> impl Iterator<Item = (ControllerIndex, &'a Controller)> {
    let enabled = description.indexed_controllers();
    enabled.filter(|(_, one)| one.status.is_enabled() && (options.drives)(one))
}

/// All enabled controllers, indexed as in the description.
pub(crate) struct MsiControllerSet<P: GicPlatform> {
    drivers: Vec<(ControllerIndex, Result<MsiController<P>, ControllerError>)>,
    buses: Vec<Bus>,
    /// Lines of the controllers inside host bridges that a device uses. They are requested when the
    /// first device asks for its parent, because no CPU can take them during bring-up.
    lines: TaskLock<Vec<IrqHandle>>,
    platform: Arc<P>,
    interrupts: Interrupts,
    surroundings: Surroundings,
    host: Arc<dyn Host>,
}

/// A host bridge paired with a controller that receives its messages. All functions behind the
/// bridge share one parent.
struct Bus {
    host: usize,
    controller: ControllerIndex,
    parent: Arc<dyn MsiParent>,
}

impl<P: GicPlatform + 'static> MsiController<P> {
    fn new(
        site: &Site<'_, P>,
        index: ControllerIndex,
        controller: &Controller,
        first_vector: HwIrq,
    ) -> Result<Self, ControllerError> {
        if controller.secondary_gic.is_some() {
            return Err(ControllerError::SecondaryGic);
        }
        match controller.kind {
            #[cfg(feature = "its")]
            ControllerKind::Its => {
                let gic = site.gic.v3().ok_or(ControllerError::NeedsGicV3)?;
                Ok(Self::Its(try_arc(Its::new(gic.clone(), site.itses.get(index)?)?)?))
            }
            #[cfg(feature = "direct-lpi")]
            ControllerKind::DirectLpi => {
                let gic = site.gic.v3().ok_or(ControllerError::NeedsGicV3)?;
                let driver = DirectLpi::new(gic.clone())?;
                Ok(Self::DirectLpi(try_arc(match &site.options.resend_observer {
                    Some(observer) => driver.with_observer(observer.clone()),
                    None => driver,
                })?))
            }
            #[cfg(feature = "mbi")]
            ControllerKind::Mbi => {
                let gic = site.gic.v3().ok_or(ControllerError::NeedsGicV3)?;
                let config = config::mbi(site.description, controller)?;
                Ok(Self::Mbi(try_arc(Mbi::new(gic, config)?)?))
            }
            #[cfg(feature = "v2m")]
            ControllerKind::V2m => {
                let frame = config::v2m(site.description, controller)?;
                let driver = V2m::new(site.platform.clone(), site.gic.wired(), &[frame])?;
                Ok(Self::V2m(try_arc(driver)?))
            }
            #[cfg(feature = "bridge-msi")]
            ControllerKind::ImsiRx | ControllerKind::MediatekGen3 => {
                let config = config::bridge_msi(site.description, index)?;
                let config = config.with_first(first_vector);
                let driver = BridgeMsi::new(site.platform.clone(), site.gic.wired(), config)?;
                Ok(Self::BridgeMsi(try_arc(driver)?))
            }
            #[cfg(feature = "mip")]
            ControllerKind::Mip => {
                let config = config::mip(controller)?;
                let driver = Mip::new(site.platform.clone(), site.gic.wired(), &config)?;
                Ok(Self::Mip(try_arc(driver)?))
            }
            ControllerKind::Other(_) => Err(ControllerError::Foreign),
            _ => {
                // Silence warnings about unused fields in builds whose drivers need none of these.
                let _ = (site.gic, site.platform, site.itses.get(index), first_vector);
                Err(ControllerError::NotBuilt)
            }
        }
    }

    /// Returns the MSI parent for the devices whose DeviceIDs are in `map`. If the controller does
    /// not use DeviceIDs, the controller itself is the parent, and `map` is not called.
    fn parent(&self, map: impl FnOnce() -> IdMap) -> Result<Arc<dyn MsiParent>, TryReserveError> {
        Ok(match self {
            Self::Its(its) => try_arc(ItsMsiParent::new(Arc::clone(its), map()))?,
            Self::DirectLpi(direct_lpi) => Arc::<DirectLpi<P>>::clone(direct_lpi),
            Self::Mbi(mbi) => Arc::<Mbi<P>>::clone(mbi),
            Self::V2m(v2m) => Arc::<V2m<P>>::clone(v2m),
            Self::BridgeMsi(bridge) => Arc::<BridgeMsi<P>>::clone(bridge),
            Self::Mip(mip) => Arc::<Mip<P>>::clone(mip),
        })
    }
}

impl<P: GicPlatform> MsiController<P> {
    /// Returns the number of SPIs that the controller can signal, or of the vectors of a controller
    /// inside a host bridge. Returns `None` if it signals LPIs.
    pub fn spis(&self) -> Option<u32> {
        let ranges = match self {
            Self::Its(_) | Self::DirectLpi(_) => return None,
            Self::BridgeMsi(bridge) => return Some(bridge.vectors()),
            Self::Mip(mip) => mip.ranges(),
            Self::Mbi(mbi) => mbi.ranges(),
            Self::V2m(v2m) => v2m.ranges(),
        };
        Some(ranges.iter().map(|range| u32::from(range.count.get())).sum())
    }
}

impl<P: GicPlatform + 'static> MsiControllerSet<P> {
    /// Starts a driver for each controller that is enabled by firmware and allowed by the options.
    pub(crate) fn new(site: &Site<'_, P>) -> Result<Self, TryReserveError> {
        let description = site.description;
        let mut drivers = Vec::new();
        let mut vector = FIRST_VECTOR;
        for (index, controller) in description.indexed_controllers() {
            if !controller.status.is_enabled() {
                continue;
            }
            let driver = if (site.options.drives)(controller) {
                MsiController::new(site, index, controller, HwIrq::new(vector))
            } else {
                Err(ControllerError::LeftOut)
            };
            if let Ok(MsiController::BridgeMsi(bridge)) = &driver {
                vector = vector.saturating_add(bridge.vectors());
            }
            drivers.try_reserve(1)?;
            drivers.push((index, driver));
        }
        let mut new = Self {
            drivers,
            buses: Vec::new(),
            lines: TaskLock::new(Vec::new()),
            platform: site.platform.clone(),
            interrupts: site.interrupts.clone(),
            surroundings: site.surroundings,
            host: site.host.clone(),
        };
        for (host_index, host) in description.hosts.iter().enumerate() {
            new.add_buses(description, host_index, host)?;
        }
        Ok(new)
    }

    /// Returns a driver as the parent that devices use.
    fn parent(
        &self,
        driver: &MsiController<P>,
        map: impl FnOnce() -> IdMap,
    ) -> Result<Arc<dyn MsiParent>, TryReserveError> {
        layer::surrounded(driver.parent(map)?, self.surroundings, &self.host)
    }

    fn add_buses(
        &mut self,
        description: &Description,
        host_index: usize,
        host: &PciHost,
    ) -> Result<(), TryReserveError> {
        for (index, driver) in &self.drivers {
            let (Ok(driver), Some(map)) = (driver, config::id_map(description, host, *index)?)
            else {
                continue;
            };
            let parent = self.parent(driver, || map)?;
            self.buses.try_reserve(1)?;
            self.buses.push(Bus { host: host_index, controller: *index, parent });
        }
        Ok(())
    }

    pub(crate) fn driver(&self, index: ControllerIndex) -> Result<&MsiController<P>, NoParent> {
        let found = self.drivers.iter().find(|(driven, _)| *driven == index);
        match found.map(|(_, driver)| driver) {
            Some(Ok(driver)) => Ok(driver),
            Some(Err(error)) => Err(NoParent::NotInUse(index, *error)),
            None => Err(NoParent::NoRoute(NoRoute::Disabled(index))),
        }
    }

    /// Returns a driver for a device that will use it. Requests the lines of a controller inside a
    /// host bridge, whose handlers dispatch the vectors that arrived.
    fn in_use(
        &self,
        description: &Description,
        index: ControllerIndex,
    ) -> Result<&MsiController<P>, NoParent> {
        let driver = self.driver(index)?;
        if let MsiController::BridgeMsi(bridge) = driver
            && let Some(controller) = description.controller(index)
        {
            let requested = self.request_lines(controller, bridge);
            requested.map_err(|error| NoParent::NotInUse(index, error))?;
            // The kernel may have enumerated the bus since bring-up.
            bridge.open();
        }
        Ok(driver)
    }

    fn request_lines(
        &self,
        controller: &Controller,
        bridge: &Arc<BridgeMsi<P>>,
    ) -> Result<(), ControllerError> {
        let mut requested = self.lines.lock(&*self.platform);
        if requested.iter().any(|line| bridge.lines().contains(&line.hwirq())) {
            return Ok(());
        }
        requested.try_reserve(bridge.lines().len())?;
        let before = requested.len();
        for (index, line) in controller.lines.iter().enumerate() {
            let request =
                WiredRequest::new(line.intid.hwirq(), line.trigger, controller.id.as_str());
            let bridge = Arc::clone(bridge);
            // An edge can come from a message that the run before it has found.
            let is_edge = line.trigger == Trigger::Edge;
            // Interrupt pins raise the line of MediaTek's bridges, too. Edges cannot be shared.
            let sharing = match controller.kind {
                ControllerKind::MediatekGen3 if !is_edge => Sharing::Shared,
                _ => Sharing::Exclusive,
            };
            let handler = move |context: &IrqContext<'_>| {
                let found = bridge.handle(index, |vector| {
                    context.dispatch(vector);
                });
                if found || is_edge { IrqReturn::Handled } else { IrqReturn::None }
            };
            match self.interrupts.request_wired(request.with_sharing(sharing), handler) {
                Ok(handle) => requested.push(handle),
                Err(error) => {
                    requested.truncate(before);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    pub(crate) fn refused(&self) -> impl Iterator<Item = (ControllerIndex, ControllerError)> {
        self.drivers.iter().filter_map(|(index, driver)| Some((*index, *driver.as_ref().err()?)))
    }

    pub(crate) fn of_pci(
        &self,
        description: &Description,
        host: &PciHost,
        requester: PciRequester,
    ) -> Result<Arc<dyn MsiParent>, NoParent> {
        let PciRequester { function, alias } = requester;
        let route = description.route(host, requester.at_host())?;
        if alias.is_some() {
            let driver = self.in_use(description, route.controller)?;
            return Ok(self.parent(driver, || IdMap::shared(route.device_id))?);
        }
        // For a requester that firmware's map does not contain, the map's mask does not apply.
        if matches!(route.via, Via::ParentAfterMap(_)) {
            return self.of_device(description, route.controller, function, route.device_id);
        }
        let driver = self.in_use(description, route.controller)?;
        let is_host =
            |bus: &&Bus| description.hosts.get(bus.host).is_some_and(|known| known.id == host.id);
        let bus = self.buses.iter().filter(is_host).find(|bus| bus.controller == route.controller);
        match bus {
            Some(bus) => Ok(bus.parent.clone()),
            None => Ok(self.parent(driver, IdMap::identity)?),
        }
    }

    pub(crate) fn of_device(
        &self,
        description: &Description,
        controller: ControllerIndex,
        requester: RequesterId,
        device: DeviceId,
    ) -> Result<Arc<dyn MsiParent>, NoParent> {
        let driver = self.in_use(description, controller)?;
        Ok(self.parent(driver, || IdMap::single(requester, device))?)
    }
}

impl<P: GicPlatform> MsiControllerSet<P> {
    /// Changes the priority of an LPI that one of these controllers maps.
    pub(crate) fn set_priority(&self, lpi: Lpi, priority: Priority) -> Result<(), DriverError> {
        for its in self.itses() {
            match its.set_priority(lpi, priority) {
                Err(ItsError::NotMapped(_)) => {}
                answer => return Ok(answer?),
            }
        }
        let direct_lpi = self.direct_lpi().ok_or(DriverError::NotMapped(lpi))?;
        direct_lpi.set_priority(lpi.intid().hwirq(), priority).map_err(DriverError::DirectLpi)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ControllerIndex, &MsiController<P>)> {
        self.drivers.iter().filter_map(|(index, driver)| Some((*index, driver.as_ref().ok()?)))
    }

    pub(crate) fn itses(&self) -> impl Iterator<Item = &Arc<Its<P>>> {
        self.iter().filter_map(|(_, driver)| {
            let MsiController::Its(its) = driver else { return None };
            Some::<&Arc<Its<P>>>(its)
        })
    }

    pub(crate) fn direct_lpi(&self) -> Option<&Arc<DirectLpi<P>>> {
        self.iter().find_map(|(_, driver)| {
            let MsiController::DirectLpi(direct_lpi) = driver else { return None };
            Some::<&Arc<DirectLpi<P>>>(direct_lpi)
        })
    }
}

impl<P: GicPlatform> fmt::Debug for MsiController<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Its(its) => its.fmt(f),
            Self::DirectLpi(direct_lpi) => direct_lpi.fmt(f),
            Self::Mbi(mbi) => mbi.fmt(f),
            Self::V2m(v2m) => v2m.fmt(f),
            Self::BridgeMsi(bridge) => bridge.fmt(f),
            Self::Mip(mip) => mip.fmt(f),
        }
    }
}

/// Lists the controllers in use, and the reasons why other controllers were refused.
impl<P: GicPlatform> fmt::Debug for MsiControllerSet<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for (_, driver) in &self.drivers {
            match driver {
                Ok(driver) => list.entry(driver),
                Err(refused) => list.entry(&format_args!("refused: {refused}")),
            };
        }
        list.finish()
    }
}
