//! Checks that `GICR_INVLPIR` reaches the LPI's event wherever it is mapped, in time that doesn't
//! depend on the number of other mappings.

use super::rig::*;
use crate::frames::its::ItsConfig;
use crate::lpi::LpiConfig;
use alloc::vec::Vec;
use doorbell_test_support::guest;
use gic_arch::Lpi;
use gic_arch::its::Command;
use msi_types::{Delivery, DeviceId, EventId};

/// Number of EventID bits per device.
const BITS: u8 = 10;

/// Maps this many events at vCPU 0, each to a separate LPI.
fn mapped(events: u32) -> Rig {
    let rig = Rig::sized(LpiConfig::new(2), ItsConfig::new(BASE));
    rig.enable_lpis(0);
    rig.enable_lpis(1);
    rig.provide_tables();
    rig.set_enabled(true);
    rig.run([mapc(0, 0), mapc(1, 1)]);
    for first in (0..events).step_by(1 << BITS) {
        let device = first >> BITS;
        rig.run([mapd(device, BITS)]);
        let last = events.min(first + (1 << BITS));
        rig.run((first..last).map(|number| mapti(device, number - first, 8192 + number, 0)));
    }
    rig
}

fn invalidate(rig: &Rig, vcpu: u16, number: u32) -> u64 {
    let work = || rig.lpis.with_kicks_deferred(|control| control.work());
    let before = work();
    rig.lpis.invalidate(cpu(vcpu), Lpi::try_from(number).unwrap()).unwrap();
    rig.finish_sweeps();
    work() - before
}

/// Returns `true` if an invalidation at `vcpu` reaches the event, which must be mapped to this LPI
/// and be neither pending nor enabled.
fn is_reached(rig: &Rig, vcpu: u16, (device, event): (u32, u32), number: u32) -> bool {
    assert_eq!(rig.send(device, event), Delivery::Pending);
    rig.configure(number, true, 0xa0);
    invalidate(rig, vcpu, number);
    let reached = take(&mut rig.vcpu(vcpu)) == Some(number);
    rig.configure(number, false, 0xa0);
    rig.run([inv(device, event), clear(device, event)]);
    reached
}

#[test]
fn the_cost_of_an_invalidation_is_independent_of_mappings() {
    let work = [1 << 10, 57_344].map(|events| {
        let rig = mapped(events);
        let costs = (0..events).step_by(1023).map(|event| invalidate(&rig, 0, 8192 + event));
        costs.max().unwrap()
    });
    assert!(work[0] == work[1] && work[1] < 8, "{work:?} words were visited");
}

#[test]
fn an_invalidation_reaches_an_event_that_was_mapped_anew() {
    let remap: [&[Command]; 6] = [
        &[],
        &[discard(0, 7), mapti(0, 7, 8199, 0)],
        &[mapti(0, 7, 8500, 0), mapti(0, 7, 8199, 0)],
        &[mapd(0, BITS), mapti(0, 7, 8199, 0)],
        &[unmapd(0), mapd(0, BITS), mapti(0, 7, 8199, 0)],
        &[movi(0, 7, 1), movi(0, 7, 0)],
    ];
    for commands in remap {
        let rig = mapped(16);
        rig.run(commands.iter().copied());
        assert!(is_reached(&rig, 0, (0, 7), 8199), "{commands:?}");
        assert!(invalidate(&rig, 0, 8199) < 8, "{commands:?}");
    }
}

#[test]
fn an_invalidation_reaches_every_event_of_an_lpi() {
    let rig = mapped(16);
    rig.run([mapd(5, 5)]);
    let twice: Vec<_> = [(0, 7), (5, 1), (5, 2)].into();
    rig.run([mapti(5, 1, 8199, 0), mapti(5, 2, 8199, 0)]);
    for event in &twice {
        assert!(is_reached(&rig, 0, *event, 8199), "{event:?} of three");
    }
    rig.run([discard(5, 1)]);
    for event in [(0, 7), (5, 2)] {
        assert!(is_reached(&rig, 0, event, 8199), "{event:?} of two");
    }
    rig.run([unmapd(0)]);
    assert!(is_reached(&rig, 0, (5, 2), 8199), "the remaining event");
    assert!(invalidate(&rig, 0, 8199) < 8, "one event must be found immediately");
}

#[test]
fn an_invalidation_visits_only_the_events_of_its_lpi() {
    let rig = mapped(4096);
    rig.run([mapd(60, 5)]);
    rig.run((0..3).map(|event| mapti(60, event, 8199, 0)));

    let work = invalidate(&rig, 0, 8199);

    assert!(work < 12, "{work} entries were visited for four events");
}

/// Maps events 0 to 3 of device 5 to the LPI of event 7 of device 0, and makes them pending.
/// Executes `command` after an invalidation that enables these events has visited `visited`
/// entries. Returns the number of signaled events.
fn signaled_after(visited: u64, command: Command) -> usize {
    let rig = mapped(16);
    rig.run([mapd(5, 5)]);
    rig.run((0..4).map(|event| mapti(5, event, 8199, 0)));
    for (device, event) in [(0, 7), (5, 0), (5, 1), (5, 2), (5, 3)] {
        assert_eq!(rig.send(device, event), Delivery::Pending);
    }
    rig.configure(8199, true, 0xa0);
    rig.lpis.invalidate(cpu(0), Lpi::try_from(8199).unwrap()).unwrap();
    for _ in 0..visited {
        rig.lpis.with_kicks_deferred(|control| control.advance_registers(control.work() + 1));
    }
    rig.run([command]);
    rig.finish_sweeps();
    let mut vcpu = rig.vcpu(0);
    core::iter::from_fn(|| take(&mut vcpu)).filter(|number| *number == 8199).count()
}

#[test]
fn an_invalidation_completes_despite_changes_of_its_events() {
    for visited in 0..=5 {
        assert_eq!(signaled_after(visited, sync(0)), 5, "after {visited}");
        for event in 0..4 {
            for command in [discard(5, event), mapti(5, event, 8300, 0), movi(5, event, 1)] {
                assert_eq!(signaled_after(visited, command), 4, "{command:?} after {visited}");
            }
        }
        assert_eq!(signaled_after(visited, mapti(5, 1, 8199, 0)), 5, "mapped again");
        assert_eq!(signaled_after(visited, unmapd(5)), 1, "one event is left");
    }
}

#[test]
fn an_invalidation_reaches_only_its_own_redistributor() {
    let rig = mapped(16);
    rig.run([movi(0, 7, 1)]);
    assert!(!is_reached(&rig, 0, (0, 7), 8199));
    assert!(is_reached(&rig, 1, (0, 7), 8199));
}

/// Events with LPI 8199: two at vCPU 0, and one at vCPU 1.
const SHARED: [(u32, u32); 3] = [(0, 7), (5, 1), (5, 2)];

fn shared() -> Rig {
    let rig = mapped(16);
    rig.run([mapd(5, 5), mapti(5, 1, 8199, 0), mapti(5, 2, 8199, 1)]);
    rig
}

/// Makes all events of LPI 8199 pending, and returns the number of them that are pending at each
/// vCPU after a command.
fn pending_after(rig: &Rig, commands: &[Command]) -> [usize; 2] {
    for (device, event) in SHARED {
        assert_eq!(rig.send(device, event), Delivery::Pending);
    }
    rig.configure(8199, true, 0xa0);
    rig.run(commands.iter().copied());
    [0, 1].map(|vcpu| drain(&mut rig.vcpu(vcpu)).len())
}

#[test]
fn events_of_one_lpi_have_one_configuration() {
    let changes: [(&[Command], _); 9] = [
        (&[inv(0, 7)], [2, 1]),
        (&[inv(5, 1)], [2, 1]),
        (&[inv(5, 2)], [2, 1]),
        (&[mapti(5, 3, 8199, 1)], [2, 1]),
        (&[movi(0, 7, 1)], [1, 2]),
        (&[movi(5, 2, 0)], [3, 0]),
        (&[mapc(1, 0)], [3, 0]),
        (&[unmapc(1), mapc(1, 1)], [2, 1]),
        (&[invall(0), invall(1)], [2, 1]),
    ];
    for (commands, pending) in changes {
        assert_eq!(pending_after(&shared(), commands), pending, "{commands:?}");
    }
}

#[test]
fn clear_clears_all_events_at_a_redistributor() {
    for cleared in [(0, 7), (5, 1)].map(|(device, event)| clear(device, event)) {
        assert_eq!(pending_after(&shared(), &[inv(0, 7), cleared]), [0, 1], "{cleared:?}");
    }
    assert_eq!(pending_after(&shared(), &[inv(0, 7), clear(5, 2)]), [2, 0]);
}

#[test]
fn the_same_mapping_keeps_pending_lpis() {
    let mapi = |collection| Command::Mapi {
        device: DeviceId::new(0),
        event: EventId::new(8200),
        collection: icid(collection),
    };
    let replayed = [mapc(0, 0), mapd(0, 14), mapti(0, 1, 8199, 0), mapi(0)];
    let kept = |commands: &[Command]| {
        let rig = Rig::running(2);
        rig.run(replayed);
        assert_eq!([1, 8200].map(|event| rig.send(0, event)), [Delivery::Pending; 2]);
        rig.run(commands.iter().copied());
        rig.pending(0)
    };
    for command in replayed {
        assert_eq!(kept(&[command]), [8199, 8200], "{command:?}");
    }
    assert_eq!(kept(&replayed), [8199, 8200]);
    for (command, left) in [
        (mapti(0, 1, 8199, 1), &[8200][..]),
        (mapti(0, 1, 8201, 0), &[8200]),
        (mapi(1), &[8199]),
        (mapd(0, 13), &[]),
        (guest::mapd(0, 14, RAM + 0x100), &[]),
    ] {
        assert_eq!(kept(&[command]), left, "{command:?}");
    }
}
