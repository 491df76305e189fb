//! The state of LPIs and event mappings, for explanations. Each query reads at most one
//! configuration byte and two bytes of a pending table.

use super::LpiCore;
use super::command_state::CommandState;
use super::config::Priorities;
use super::device_table::DeviceTable;
use super::entry::{Level, NO_LPI};
use super::entry_table::EntryIndex;
use super::itt::Link;
use super::mapping::{ItsIndex, MappedDevice};
use super::shared::Location;
use super::tables::LpiTables;
use super::translator::Translator;
use crate::monitor::GuestMemory;
use crate::monitor::events::FaultReason;
use crate::sync::Ordering;
use gic_arch::lpi::Config;
use gic_arch::{Lpi, Priority};
use msi_types::{Cpu, DeviceId, EventId};

/// Maximum number of events that are examined per LPI.
const EVENTS_EXAMINED: usize = 64;

/// Maximum number of a device's events that are searched for one that shares an LPI.
const DEVICE_EVENTS_EXAMINED: u32 = 256;

/// The state of a device's event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EventStatus {
    /// The device is not mapped. Contains the number of mapped devices.
    UnmappedDevice(usize),
    /// The EventID exceeds the number of EventID bits with which the device is mapped.
    OutOfRange(u8),
    /// The event is not mapped.
    Unmapped,
    /// The event's collection, with this number, is not mapped.
    UnmappedCollection(u16),
    /// The event is mapped to an LPI.
    Mapped(LpiStatus),
}

/// The redistributor at which an LPI can become pending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LpiTarget {
    /// The queried redistributor, with the LPI's state there.
    Queried(LpiStatus),
    /// The redistributor of this other vCPU, which the LPI's event targets.
    Other(Cpu),
    /// No redistributor, because no event is mapped to the LPI.
    None,
}

/// The state of an LPI at its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LpiStatus {
    pub(crate) lpi: Lpi,
    /// The target vCPU.
    pub(crate) cpu: Cpu,
    /// `true` if LPIs are enabled at the target.
    pub(crate) is_enabled_there: bool,
    /// `true` if the LPI is within the target's tables.
    pub(crate) is_covered: bool,
    /// The configuration byte in memory, if it can be read.
    pub(crate) in_memory: Option<Config>,
    /// `true` if the target's pending table is in memory.
    pub(crate) has_pending_table: bool,
    pub(crate) is_pending: bool,
    pub(crate) is_listed: bool,
    /// Number of other events that are mapped to the LPI. At most [`EVENTS_EXAMINED`] are counted.
    pub(crate) sharers: u32,
    /// Another event of the same device that is mapped to the LPI, if known.
    pub(crate) sharer: Option<(DeviceId, EventId)>,
    is_enabled: bool,
    level: Level,
    priorities: Priorities,
}

impl LpiStatus {
    /// Returns the configuration byte that the redistributor has cached.
    pub(crate) const fn cached(&self) -> Config {
        Config::new().with_enable(self.is_enabled).with_priority(self.level.configured())
    }

    /// Returns the priority that a configuration byte specifies, in the view of the CPU interface.
    pub(crate) fn priority_in(&self, byte: Config) -> Priority {
        self.priorities.of(self.priorities.level(byte.priority()))
    }
}

/// Returns the state of a device's event.
pub(crate) fn event_status(
    state: &CommandState,
    its: ItsIndex,
    device: u32,
    event: u32,
) -> EventStatus {
    match mapped_event(state, its, device, event) {
        Ok(location) => {
            let status = lpi_status(state, location);
            let sharer = || other_event(state, its, (device, event), status.lpi);
            let sharer = if status.sharers == 0 { None } else { sharer() };
            EventStatus::Mapped(LpiStatus { sharer, ..status })
        }
        Err(status) => status,
    }
}

/// Finds another event of the device that is mapped to the LPI, among the first ones.
fn other_event(
    state: &CommandState,
    its: ItsIndex,
    (device, event): (u32, u32),
    lpi: Lpi,
) -> Option<(DeviceId, EventId)> {
    let others = (0..DEVICE_EVENTS_EXAMINED).filter(|other| *other != event);
    let found = others.filter_map(|other| Some((other, state.event(its, device, other)?)));
    let mut shares =
        found.filter(|(_, event)| state.device_entries.is_mapped_to(event.index(), lpi));
    shares.next().map(|(other, _)| (DeviceId::new(device), EventId::new(other)))
}

/// Returns the location of an event's entry, or the reason why the event has none.
fn mapped_event(
    state: &CommandState,
    its: ItsIndex,
    device: u32,
    event: u32,
) -> Result<Location, EventStatus> {
    let Some(MappedDevice { event_bits: bits, .. }) = state.device(its, device) else {
        return Err(EventStatus::UnmappedDevice(
            state.translators.get(its).map_or(0, Translator::device_count),
        ));
    };
    if u64::from(event) >> bits != 0 {
        return Err(EventStatus::OutOfRange(bits));
    }
    let mapped = state.event(its, device, event).ok_or(EventStatus::Unmapped)?;
    if state.collection(its, mapped.collection).is_none() {
        return Err(EventStatus::UnmappedCollection(mapped.collection));
    }
    Ok(Location::Event(mapped.index()))
}

/// Finds the redistributor at which an LPI can become pending. If several events are mapped to
/// the LPI, prefers events that target `cpu`, and among these a pending one.
pub(crate) fn lpi_target(state: &CommandState, cpu: Cpu, lpi: Lpi) -> LpiTarget {
    let own = Location::own(cpu.get(), lpi);
    let mut found = None;
    for event in events_of(state, lpi) {
        let entry = state.shared.load(event);
        let is_here = entry.target() == cpu.get();
        let rank = (is_here, is_here && entry.is_pending_anywhere());
        if found.is_none_or(|(best, _)| rank > best) {
            found = Some((rank, event));
        }
    }
    let is_own = state.config.direct || state.shared.load(own).is_pending_or_held();
    match found {
        Some(((true, _), event)) => LpiTarget::Queried(lpi_status(state, event)),
        _ if is_own => LpiTarget::Queried(lpi_status(state, own)),
        Some((_, event)) => LpiTarget::Other(Cpu::new(state.shared.load(event).target())),
        None => LpiTarget::None,
    }
}

/// Returns the entries of the events that are mapped to an LPI, at most [`EVENTS_EXAMINED`].
fn events_of(state: &CommandState, lpi: Lpi) -> impl Iterator<Item = Location> {
    let after = |index: &EntryIndex| state.device_entries.by_lpi.after(*index);
    let events = core::iter::successors(state.device_entries.by_lpi.first(lpi.index()), after);
    events.take(EVENTS_EXAMINED).map(Location::Event)
}

fn lpi_status(state: &CommandState, location: Location) -> LpiStatus {
    let (entry, memory) = (state.shared.load(location), &*state.memory);
    let tables = state.enabled.get(entry.target());
    let is_enabled_there = tables.is_some() && !state.is_enabling(entry.target());
    let covering = tables.filter(|tables| tables.covers(entry.lpi()));
    LpiStatus {
        lpi: entry.lpi(),
        cpu: Cpu::new(entry.target()),
        is_enabled_there,
        is_covered: covering.is_some(),
        in_memory: covering.and_then(|tables| tables.config(entry.lpi(), memory).ok()),
        has_pending_table: tables.is_some_and(|tables| is_in_memory(&tables, memory)),
        is_pending: entry.is_pending_anywhere(),
        is_listed: entry.is_listed() && !entry.is_pending(),
        sharers: events_of(state, entry.lpi())
            .fold(0, |count, of| count + u32::from(of != location)),
        sharer: None,
        is_enabled: entry.is_enabled(),
        level: entry.level(),
        priorities: state.config.priorities,
    }
}

/// Returns the reason why a message for a device's event was dropped. If the reason no longer
/// applies, returns [`FaultReason::DisabledMessage`]. Lock-free.
///
/// Context: any.
pub(crate) fn why_dropped(
    core: &LpiCore,
    device_table: &DeviceTable,
    device: u32,
    event: u32,
) -> FaultReason {
    if device_table.accepts.get() == 0 {
        return FaultReason::ItsDisabled;
    }
    let dte = device_table.get_flat(device).or_else(|| device_table.get(device));
    let link = dte.map_or(Link::NONE, |dte| Link::from_bits(dte.load(Ordering::SeqCst)));
    let Some(dte) = dte.filter(|_| link != Link::NONE) else {
        return FaultReason::UnmappedDevice;
    };
    if event >> link.event_bits() != 0 {
        return FaultReason::EventOutOfRange;
    }
    let shared = core.shared();
    let found = shared.nodes.translate(dte, event);
    let entry = found.map(|found| (shared.entries.load(found.position), found.generation()));
    let Some((entry, _)) = entry.filter(|(entry, generation)| {
        entry.generation() == *generation && entry.lpi_index() != NO_LPI
    }) else {
        return FaultReason::UnmappedEvent;
    };
    if !entry.is_mapped() {
        return FaultReason::UnmappedCollection;
    }
    match shared.own(entry.target()).map_or(0, |own| own.end.get()) {
        0 => FaultReason::LpisDisabled,
        1 => FaultReason::NoConfigurationTable,
        end if u64::from(entry.lpi().get()) >= end => FaultReason::LpiOutOfRange,
        _ => FaultReason::DisabledMessage,
    }
}

/// Returns `true` if the first and the last byte of the pending table are in memory.
fn is_in_memory(tables: &LpiTables, memory: &dyn GuestMemory) -> bool {
    let range = tables.pending_range();
    let bytes = [range.start, range.end.saturating_sub(1).max(range.start)];
    bytes.iter().all(|byte| memory.read(*byte, &mut [0]).is_ok())
}
