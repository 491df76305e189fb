//! Tests for the memory that a restore reserves in advance.

use super::rig::*;
use crate::frames::its::ItsConfig;
use crate::lpi::{LpiConfig, Reservation, Room, SavedEvents};
use gic_arch::Lpi;
use gic_arch::its::CollectionId;
use gic_arch::lpi::Config;

/// Returns how many pages of ready bits are visited for this many events with the same priority.
fn work_for(events: u32) -> u64 {
    let rig = Rig::sized(LpiConfig::new(1), ItsConfig::new(BASE));
    let mut room = Room::default();
    (0..events >> 10).for_each(|_| room.add_device(10, core::iter::once(0..=(1 << 10) - 1)));
    rig.lpis.with_kicks_deferred(|control| {
        let before = control.work();
        let mut reservation = Reservation::new(control, &room).unwrap();
        for number in 0..events {
            let lpi = Lpi::try_from(8192 + number).unwrap();
            let configuration = Some(Config::from_bits(0xa1));
            let collection = CollectionId::new(0);
            let (first, count, pending, stays_at) = (number, 1, false, 0);
            let events =
                SavedEvents { first, count, lpi, collection, pending, stays_at, configuration };
            let (all, target) = (core::iter::once((collection, 1)), |_| Some(0));
            reservation.events(events, all, target, |_| None).unwrap();
        }
        control.work() - before
    })
}

#[test]
fn reservation_time_is_proportional_to_the_number_of_events() {
    let [few, many] = [1 << 12, 1 << 15].map(work_for);
    assert!(few > 0 && many <= 8 * few, "{few} pages, then {many}");
}
