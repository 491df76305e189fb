//! Mappings, pending LPIs and enabled direct LPIs as plain data. Saves take time proportional to
//! the number of mappings and of direct LPIs.

use super::command_state::CommandState;
use super::entry::Entry;
use super::entry_allocator::Owner;
use super::mapping::ItsIndex;
use super::shared::Location;
use core::ops::Range;
use doorbell_fallible::OutOfMemory;
use gic_arch::Lpi;
use gic_arch::its::CollectionId;
use gic_arch::lpi::Config;

/// Snapshot of an LPI that is mapped by an event or pending at a redistributor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SavedLpi {
    pub(crate) lpi: Lpi,
    /// The target vCPU.
    pub(crate) target: u32,
    /// `true` if the LPI is pending at the target, or becomes pending when LPIs are enabled there.
    pub(crate) pending: bool,
    /// Configuration of the LPI, or `None` if the model doesn't hold it and it must be read from
    /// memory.
    pub(crate) configuration: Option<Config>,
}

/// Snapshot of mapped events with consecutive EventIDs and LPIs, the same pending state and the
/// same configuration. Events whose configuration must be read from memory come one by one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SavedEvents {
    /// First EventID.
    pub(crate) first: u32,
    /// Number of events.
    pub(crate) count: u32,
    /// LPI of the first event.
    pub(crate) lpi: Lpi,
    /// Collection of the first event.
    pub(crate) collection: CollectionId,
    pub(crate) pending: bool,
    /// vCPU that keeps the pending state if the collection is not mapped.
    pub(crate) stays_at: u16,
    pub(crate) configuration: Option<Config>,
}

impl SavedEvents {
    /// Returns the indices of the events' LPIs.
    pub(super) fn lpi_indices(&self) -> Range<u32> {
        let first = self.lpi.index();
        first..first.saturating_add(self.count)
    }

    /// Splits the events into the first ones, at most `count`, and the others.
    pub(super) fn split(self, count: u32) -> (Self, Self) {
        let count = count.min(self.count);
        let others = Self {
            first: self.first.saturating_add(count),
            count: self.count - count,
            lpi: Lpi::from_index(self.lpi.index().saturating_add(count)).unwrap_or(self.lpi),
            ..self
        };
        (Self { count, ..self }, others)
    }
}

/// Visits a device's mapped events in EventID order, each with its collection.
pub(crate) fn each_event(
    state: &CommandState,
    its: ItsIndex,
    device: u32,
    mut each: impl FnMut(u32, u16, SavedLpi) -> Result<(), OutOfMemory>,
) -> Result<(), OutOfMemory> {
    let translator = state.translators.get(its);
    let Some(dte) = translator.and_then(|its| its.dte(device)) else { return Ok(()) };
    let mut outcome = Ok(());
    state.device_entries.each(dte, &mut |event, index| {
        if let Owner::Event { collection, .. } = state.device_entries.allocator.owner(index)
            && outcome.is_ok()
        {
            let entry = state.shared.load(Location::Event(index));
            outcome = each(event, collection, saved(entry));
        }
    });
    outcome
}

/// Returns the LPIs that are pending at a redistributor without an event, in ascending order.
pub(crate) fn pending_by_themselves(
    state: &CommandState,
    vcpu: u32,
) -> impl Iterator<Item = SavedLpi> {
    state.own_entries(vcpu).map(saved).filter(|saved| saved.pending)
}

/// Returns the direct LPIs that are enabled at a redistributor, pending or not, with their
/// configurations and in ascending order.
pub(crate) fn enabled_direct_lpis(
    state: &CommandState,
    vcpu: u32,
) -> impl Iterator<Item = (Lpi, Config)> {
    let has_any = state.config.direct && state.enabled.get(vcpu).is_some();
    let all = has_any.then(|| state.own_entries(vcpu)).into_iter().flatten();
    let enabled = all.filter(|entry| entry.is_enabled() && entry.is_deliverable());
    enabled.map(|entry| (entry.lpi(), configuration(entry)))
}

/// Converts an entry to plain data. The entry must come from a single load, so that an LPI can't be
/// saved as pending at two targets.
fn saved(entry: Entry) -> SavedLpi {
    SavedLpi {
        lpi: entry.lpi(),
        target: entry.target(),
        pending: entry.is_pending_or_held(),
        configuration: Some(configuration(entry)),
    }
}

fn configuration(entry: Entry) -> Config {
    Config::new().with_enable(entry.is_enabled()).with_priority(entry.level().configured())
}
