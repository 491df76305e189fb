//! Translations for direct injection by hardware.

use super::command_state::CommandState;
use super::control::Control;
use super::entry::Entry;
use super::mapping::ItsIndex;
use super::shared::Location;
use super::sweep::Pause;
use crate::monitor::{DirectTarget, InListRegister};
use gic_arch::lpi::Config;
use msi_types::Cpu;

/// Looks up an event whose messages are delivered, according to the command state, and takes
/// its LPI's pending state. A sweep may not have updated the event's entry yet.
///
/// # Errors
/// [`InListRegister`] until the recalled vCPU has exited.
pub(crate) fn direct_target(
    control: &mut Control,
    its: ItsIndex,
    device: u32,
    event: u32,
) -> Result<Option<DirectTarget>, InListRegister> {
    let Some((event, target)) = open_event(control, its, device, event) else { return Ok(None) };
    let pending = take_pending(control, event).map_err(|_| InListRegister)?;
    Ok(Some(DirectTarget { pending, ..target }))
}

/// Takes the pending state that the event's target has for its LPI.
///
/// # Errors
/// [`Pause::Listed`] until the recalled vCPU has exited.
fn take_pending(control: &mut Control, (event, entry): (Location, Entry)) -> Result<bool, Pause> {
    let own = Location::own(entry.target(), entry.lpi());
    let (places, entries) = ([own, event], [control.shared.load(own), entry]);
    if !entries.iter().any(|entry| entry.is_pending_or_held() || entry.is_listed()) {
        return Ok(false);
    }
    for place in places {
        control.recall(control.shared.load(place));
    }
    if control.awaits(control.recalls()) {
        return Err(Pause::Listed);
    }
    let mut is_pending = false;
    for place in places {
        if control.shared.load(place).is_pending_or_held() {
            is_pending |= control.update_folded(place, Entry::emptied)?.is_pending_or_held();
        }
    }
    Ok(is_pending)
}

fn open_event(
    state: &CommandState,
    its: ItsIndex,
    device: u32,
    event: u32,
) -> Option<((Location, Entry), DirectTarget)> {
    let found = state.event(its, device, event)?;
    let location = Location::Event(found.index());
    let entry = state.shared.load(location);
    let route = state.route_of(location, entry)?;
    let (vcpu, lpi) = (route.target(), entry.lpi());
    let tables = state.enabled.get(vcpu).filter(|tables| tables.covers(lpi))?;
    let (enabled, level) = if entry.is_deliverable() && entry.target() == vcpu {
        (entry.is_enabled(), entry.level())
    } else {
        // A sweep has yet to update the entry.
        state.settings(vcpu, &tables, lpi)
    };
    let config = Config::new().with_enable(enabled).with_priority(level.configured());
    let target = DirectTarget { lpi, cpu: Cpu::new(vcpu), config, pending: false };
    route.is_open().then_some(((location, entry), target))
}
