//! Comparison of an ITS's tables with the commands in its queue.

use super::rule::{Report, Rule};
use crate::snapshot::machine::{Machine, Origin};
use anyhow::{Result, ensure};
use gic_arch::IntId;
use gic_arch::gits::{self, Creadr, Cwriter};
use gic_arch::its::CollectionId;
use msi_types::{DeviceId, EventId};
use std::collections::{BTreeMap, BTreeSet};
use vgic::saved_state::{CollectionState, ItsState};
use vgic::{AccessWidth, Progress, Vcpu};

/// Maximum number of pieces of deferred work, enough for 32,768 commands of the usual kinds.
const MOST_PIECES: u32 = 1 << 10;

/// A mapped object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Collection(CollectionId),
    Device(DeviceId),
    Event(DeviceId, EventId),
}

/// Values of mapped objects: the affinity of a collection's target, a device's number of EventID
/// bits, or an event's INTID and collection.
type Mappings = BTreeMap<Key, (u32, u16)>;

/// Executes the commands below `GITS_CREADR` once more. This must not change the mappings, because
/// the ITS has executed these commands in the same order, and no other commands since. Returns the
/// LPIs whose mappings change. Skips states of the model, which contain no queue.
pub(super) fn check(machine: &Machine, report: &mut Report<'_>) -> BTreeSet<IntId> {
    let mut changed = BTreeSet::new();
    // A state that cannot be restored has a finding of its own. A guest can queue commands that
    // take too long.
    let replayed = Some(machine).filter(|machine| machine.origin == Origin::Kvm).map(replayed);
    let replayed = replayed.and_then(Result::ok).unwrap_or_default();
    for (its, replayed) in machine.state.its.iter().zip(&replayed) {
        let (saved, replayed) = (mappings(its), mappings(replayed));
        let keys: BTreeSet<_> = saved.keys().chain(replayed.keys()).collect();
        for key in keys.into_iter().filter(|key| saved.get(key) != replayed.get(key)) {
            let (old, new) = (saved.get(key), replayed.get(key));
            let object = match key {
                Key::Collection(collection) => format!("collection {collection}"),
                Key::Device(device) => format!("device {device}"),
                Key::Event(device, event) => {
                    changed
                        .extend([old, new].into_iter().flatten().map(|(lpi, _)| IntId::new(*lpi)));
                    format!("device {device} event {event}")
                }
            };
            let difference = match (old, new) {
                (None, _) => "maps it, but the tables do not",
                (_, None) => "unmaps it, but the tables map it",
                _ => "maps it in another way than the tables",
            };
            let message = format!("the command queue below GITS_CREADR {difference}");
            let in_device = |device| saved.contains_key(&Key::Device(device));
            // Another rule covers an ITS without mappings, and a missing device implies its events.
            if !saved.is_empty() && !matches!(key, Key::Event(device, _) if !in_device(*device)) {
                report(Rule::SavedWhileRunning, format!("its@{:x}, {object}", its.base), message);
            }
        }
    }
    changed
}

fn mappings(its: &ItsState) -> Mappings {
    let collections = its.collections.iter();
    let target =
        |state: &CollectionState| (Key::Collection(state.collection), (state.target.packed(), 0));
    let mut mappings: Mappings = collections.map(target).collect();
    for device in &its.devices {
        let of = device.device;
        mappings.insert(Key::Device(of), (device.event_bits.into(), 0));
        let events = device.events.iter();
        let events = events.map(|event| {
            (Key::Event(of, event.event), (event.intid.get(), event.collection.get()))
        });
        mappings.extend(events);
    }
    mappings
}

/// Restores the state into the model with an empty queue, lets each ITS execute its commands up to
/// `GITS_CREADR`, and returns the ITSes' states.
fn replayed(machine: &Machine) -> Result<Vec<ItsState>> {
    let mut state = machine.state.clone();
    for its in &mut state.its {
        (its.creadr, its.cwriter) = (0, 0);
    }
    let (gic, mut vcpus) = machine.restored(&state)?;
    for its in &machine.state.its {
        let end = Cwriter::at_offset(Creadr::from_bits(its.creadr).offset());
        let register = its.base + u64::from(gits::CWRITER.offset());
        gic.write_until_done(register, AccessWidth::Double, end.into_bits())?;
    }
    let is_done = (0..MOST_PIECES).any(|_| gic.poll() == Progress::Done);
    ensure!(is_done, "the commands take too long");
    let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
    Ok(gic.save()?.its)
}
