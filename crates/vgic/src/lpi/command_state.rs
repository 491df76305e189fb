//! State that the guest's commands and registers define, and the derivation of entries from it.

use super::config::LpiConfig;
use super::device_entries::DeviceEntries;
use super::entry::{Entry, Level};
use super::entry_allocator::Owner;
use super::fault_recorder::LpiFaults;
use super::mapping::ItsIndex;
use super::redistributor_lpis::RedistributorLpis;
use super::shared::{Location, Shared};
use super::sweep::{Cause, Settings, SweepQueue};
use super::tables::{EnabledTables, LpiTables};
use super::translator::TranslatorList;
use crate::monitor::GuestMemory;
use crate::wakeup::{Recalls, VcpuWakeup};
use alloc::sync::Arc;
use doorbell_fallible::OutOfMemory;
use gic_arch::lpi::Config;
use gic_arch::{Lpi, gicr};

/// State that the guest's commands and registers define. Pending state is in the entries.
pub(crate) struct CommandState {
    pub(super) shared: Arc<Shared>,
    pub(super) memory: Arc<dyn GuestMemory>,
    pub(super) faults: LpiFaults,
    pub(super) wakeup: Arc<VcpuWakeup>,
    pub(super) config: LpiConfig,
    pub(super) device_entries: DeviceEntries,
    pub(super) enabled: EnabledTables,
    pub(super) translators: TranslatorList,
    pub(super) sweeps: SweepQueue,
}

/// An interrupt's route.
#[derive(Clone, Copy)]
pub(super) struct Route {
    /// The target vCPU.
    target: u32,
    /// `true` if the event and its collection are mapped.
    is_mapped: bool,
    /// `true` if the ITS accepts messages.
    is_open: bool,
}

impl Route {
    /// Returns the target vCPU.
    pub(super) const fn target(self) -> u32 {
        self.target
    }

    /// Returns `true` if the ITS accepts messages.
    pub(super) const fn is_open(self) -> bool {
        self.is_open
    }
}

/// An entry's next value, for which all memory has been allocated.
#[derive(Clone, Copy)]
pub(super) struct Refresh {
    route: Route,
    enabled: bool,
    level: Level,
    deliverable: bool,
    /// `true` if the LPI is within the target's tables.
    is_covered: bool,
    reloads: bool,
}

impl Refresh {
    /// Returns the target vCPU.
    pub(super) const fn target(self) -> u32 {
        self.route.target
    }

    /// Returns `true` if the configuration was read from memory.
    pub(super) const fn reloads(self) -> bool {
        self.reloads
    }

    /// Returns the next value of an entry. `brought` is `true` if the entry takes over pending
    /// state.
    pub(super) fn applied_to(self, entry: Entry, brought: bool) -> Entry {
        let Self { route, enabled, level, deliverable, is_covered, .. } = self;
        let kept = entry
            .with_target(route.target)
            .with_level(level)
            .with_enabled(enabled)
            .with_mapped(route.is_mapped)
            .with_deliverable(deliverable);
        if is_covered {
            kept.with_pending(entry.is_pending() || entry.is_held() || brought).with_held(false)
        } else if entry.awaits_fold() && !brought {
            // If folding makes the LPI pending, it isn't ready until it is enabled again.
            kept.with_enabled(false)
        } else {
            kept.cleared().with_held(entry.is_pending_or_held() || brought)
        }
    }
}

impl CommandState {
    /// Returns the guest memory, which holds the tables and commands.
    pub(crate) fn memory(&self) -> &dyn GuestMemory {
        &*self.memory
    }

    /// Returns `true` if the distributor implements this LPI.
    pub(crate) fn implements(&self, lpi: Lpi) -> bool {
        u64::from(lpi.get()) < 1 << self.config.id_bits
    }

    /// Returns all recalls requested so far.
    pub(crate) fn recalls(&self) -> Recalls {
        self.wakeup.recalls()
    }

    /// Returns `true` if one of the recalled interrupts may still be in a list register.
    pub(crate) fn awaits(&self, recalls: Recalls) -> bool {
        self.wakeup.awaits(recalls)
    }

    /// Prepares an entry's next value, or returns `None` if the entry is unmapped.
    ///
    /// # Errors
    /// There is no memory for the entry's ready bit.
    pub(super) fn prepared(
        &self,
        location: Location,
        settings: Settings,
    ) -> Result<Option<Refresh>, OutOfMemory> {
        let now = self.shared.load(location);
        let Some(route) = self.route_of(location, now) else { return Ok(None) };
        self.prepare(location, now, route, settings).map(Some)
    }

    /// Prepares an entry's next value, based on `now` and routed along `route`.
    ///
    /// # Errors
    /// There is no memory for the entry's ready bit.
    pub(super) fn prepare(
        &self,
        location: Location,
        now: Entry,
        route: Route,
        settings: Settings,
    ) -> Result<Refresh, OutOfMemory> {
        let Route { target, is_open, .. } = route;
        let covering = self.enabled.get(target).filter(|tables| tables.covers(now.lpi()));
        let deliverable = is_open && covering.is_some();
        let (enabled, level) = match (covering, settings) {
            (Some(tables), Settings::Reload) => self.settings(target, &tables, now.lpi()),
            (Some(tables), Settings::Keep) if deliverable && !now.is_deliverable() => {
                self.settings(target, &tables, now.lpi())
            }
            (Some(_), Settings::Read(config)) => self.settings_of(config),
            _ => (now.is_enabled(), now.level()),
        };
        if enabled {
            self.shared.ensure_ready_bit(target, level, self.shared.position(location))?;
        }
        let reloads = matches!(settings, Settings::Reload | Settings::Read(_));
        Ok(Refresh { route, enabled, level, deliverable, is_covered: covering.is_some(), reloads })
    }

    /// Returns `true` if refreshing an entry within its target's tables would not change it.
    pub(super) fn is_current(&self, now: Entry, route: Route, config: Config) -> bool {
        let Route { target, is_mapped, is_open } = route;
        let (enabled, level) = self.settings_of(config);
        let next = now.with_target(target).with_level(level).with_enabled(enabled);
        now == next.with_mapped(is_mapped).with_deliverable(is_open).with_held(false)
    }

    /// Returns the route for an entry's interrupt, or `None` if the entry is unmapped.
    pub(super) fn route_of(&self, location: Location, now: Entry) -> Option<Route> {
        let index = match location {
            Location::Own { vcpu, index } => {
                let has_entry = self.shared.own(vcpu)?.has(index);
                return has_entry.then_some(Route { target: vcpu, is_mapped: true, is_open: true });
            }
            Location::Event(index) => index,
        };
        let Owner::Event { its, collection } = self.device_entries.allocator.owner(index) else {
            return None;
        };
        self.route_of_event(ItsIndex::new(its), collection, now)
    }

    /// Returns the route for an event in this collection. If the collection isn't mapped, the
    /// interrupt's target doesn't change, because the interrupt may be pending there.
    pub(super) fn route_of_event(
        &self,
        its: ItsIndex,
        collection: u16,
        now: Entry,
    ) -> Option<Route> {
        let translator = self.translators.get(its)?;
        let vcpu = translator.collection(collection);
        let is_going = self.sweeps.contains(Cause::Teardown(its));
        let is_mapped = vcpu.is_some() && !is_going;
        Some(Route {
            target: vcpu.map_or(now.target(), u32::from),
            is_mapped,
            is_open: is_mapped && translator.enabled,
        })
    }

    /// Reads an LPI's enable bit and level from a vCPU's configuration table. If the byte can't be
    /// read, the LPI is disabled.
    #[inline]
    pub(super) fn settings(&self, vcpu: u32, tables: &LpiTables, lpi: Lpi) -> (bool, Level) {
        match tables.config(lpi, &*self.memory) {
            Ok(config) => self.settings_of(config),
            Err(fault) => {
                self.faults.unreadable(vcpu, gicr::PROPBASER.offset(), fault);
                (false, self.config.priorities.level(gic_arch::Priority::IDLE))
            }
        }
    }

    /// Returns the enable bit and the level from a configuration byte.
    pub(super) fn settings_of(&self, config: Config) -> (bool, Level) {
        (config.enable(), self.config.priorities.level(config.priority()))
    }

    /// Returns `true` if an event's entry has not taken over its LPI's own entry, because the LPI
    /// was in a list register.
    pub(super) fn is_own_left(&self, event: Location) -> bool {
        self.shared.load(self.own_lpi_of(event)).is_pending_or_held()
    }

    /// Returns the location of the LPI's own entry at the redistributor that an event targets.
    pub(super) fn own_lpi_of(&self, event: Location) -> Location {
        let entry = self.shared.load(event);
        Location::own(entry.target(), entry.lpi())
    }

    /// Returns the entries of the redistributor's own LPIs, in LPI order.
    pub(super) fn own_entries(&self, vcpu: u32) -> impl Iterator<Item = Entry> {
        self.shared.own(vcpu).into_iter().flat_map(RedistributorLpis::entries)
    }

    /// Returns `true` if `EnableLPIs` was set, but is not yet in effect for every LPI.
    pub(crate) fn is_enabling(&self, vcpu: u32) -> bool {
        self.sweeps.contains(Cause::Enable(vcpu))
    }
}
