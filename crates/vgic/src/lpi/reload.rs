//! Rereads the configurations of all of a redistributor's events, for INVALL and `GICR_INVALLR`.
//! The events of a device usually have the same collection and consecutive LPIs, so we determine
//! the route once per collection, and read the configurations in blocks.

use super::command_state::Route;
use super::control::Control;
use super::entry_allocator::Owner;
use super::entry_table::EntryIndex;
use super::redistributor_lpis::BLOCK;
use super::shared::Location;
use super::sweep::{Pause, Settings};
use gic_arch::Lpi;
use gic_arch::lpi::Config;

/// Results that a sweep has already looked up. Valid for one piece of the sweep, because commands
/// may change routes and tables after that.
#[derive(Default)]
pub(super) struct ReadAhead {
    found: Option<Found>,
}

struct Found {
    owner: Owner,
    route: Route,
    /// Index of the block's first LPI.
    first: u32,
    bytes: [u8; BLOCK as usize],
    /// `true` if the redistributor has entries for its own LPIs of this block.
    has_own: bool,
}

impl Found {
    const fn first_of(lpi_index: u32) -> u32 {
        lpi_index & !(BLOCK - 1)
    }

    fn config(&self, lpi_index: u32) -> Config {
        Config::from_bits(self.bytes[(lpi_index % BLOCK) as usize])
    }
}

impl ReadAhead {
    /// Refreshes an event's entry with its LPI's configuration from memory, if the event targets
    /// this vCPU. If the entry would not change, only sets the ready bit of a pending LPI.
    pub(super) fn reload_event(
        &mut self,
        control: &mut Control,
        vcpu: u32,
        index: EntryIndex,
        owner: Owner,
    ) -> Result<(), Pause> {
        let event = Location::Event(index);
        let now = control.shared.load(event);
        if now.target() != vcpu {
            return Ok(());
        }
        let lpi_index = now.lpi_index();
        let first = Found::first_of(lpi_index);
        let is_there = |found: &Found| found.first == first && found.owner == owner;
        if !self.found.as_ref().is_some_and(is_there) {
            self.found = read_ahead(control, vcpu, index, owner, now.lpi());
        }
        // `refresh_event` handles everything else, such as a configuration that can't be read.
        let Some(found) = &self.found else {
            return control.refresh_event(index, Settings::Reload);
        };
        let config = found.config(lpi_index);
        if control.is_current(now, found.route, config)
            && !(found.has_own && control.is_own_left(event))
        {
            if now.is_pending() {
                control.set_ready_bit(now, index.position());
            }
            return Ok(());
        }
        control.refresh_event(index, Settings::Read(config))
    }
}

/// Looks up the route of an event, and reads the block of configurations that contains its
/// LPI's. Returns `None` if the event isn't routed to the vCPU, or if the block is not entirely
/// within the vCPU's tables or can't be read.
#[inline(never)]
fn read_ahead(
    control: &Control,
    vcpu: u32,
    index: EntryIndex,
    owner: Owner,
    lpi: Lpi,
) -> Option<Found> {
    let event = Location::Event(index);
    let route = control.route_of(event, control.shared.load(event))?;
    let first = Found::first_of(lpi.index());
    let last = Lpi::from_index(first + (BLOCK - 1))?;
    let tables = control.enabled.get(vcpu).filter(|tables| tables.covers(last))?;
    let mut bytes = [0; BLOCK as usize];
    tables.read_configs(first, &mut bytes, &*control.memory).ok()?;
    let has_own = control.shared.own(vcpu).is_some_and(|own| own.has(first));
    (route.target() == vcpu).then_some(Found { owner, route, first, bytes, has_own })
}
