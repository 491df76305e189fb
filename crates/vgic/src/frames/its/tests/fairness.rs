//! Checks that LPIs with equal priority are acknowledged round-robin.

use super::rig::*;
use alloc::vec;
use alloc::vec::Vec;
use gic_arch::Priority;
use msi_types::Delivery;

/// Number of events in [`crowd`].
const EVENTS: u32 = 1 << 10;

/// Creates a device whose events are all mapped to vCPU 0, each to a separate LPI.
fn crowd() -> Rig {
    let rig = Rig::running(1);
    rig.run([mapd(1, 10)]);
    for batch in (0..EVENTS).collect::<Vec<_>>().chunks(512) {
        rig.run(batch.iter().map(|event| mapti(1, *event, 8192 + event, 0)));
    }
    rig
}

fn send(rig: &Rig, event: u32) {
    assert_eq!(rig.send(1, event), Delivery::Pending);
}

#[test]
fn a_repeatedly_signaled_lpi_does_not_starve_another() {
    let rig = crowd();
    let mut queue = rig.vcpu(0);
    for (stormy, patient) in [(0, 1), (1, 0), (0, EVENTS - 1), (EVENTS - 1, 0), (0, 64), (700, 3)] {
        send(&rig, patient);
        let taken = (0..EVENTS).map(|_| {
            send(&rig, stormy);
            take(&mut queue)
        });
        assert!({ taken }.any(|lpi| lpi == Some(8192 + patient)), "{patient} next to {stormy}");
        drain(&mut queue);
    }
}

/// Returns the maximum number of acknowledgments for which any LPI waits, if each acknowledged LPI
/// is signaled again immediately. Before each acknowledgment, the next LPI is queried `looks`
/// times.
fn longest_wait(events: &[u32], looks: usize) -> u32 {
    let rig = crowd();
    let mut queue = rig.vcpu(0);
    for event in events {
        send(&rig, *event);
    }
    let mut last = vec![0; EVENTS as usize];
    let mut longest = 0;
    for now in 1..=8 * EVENTS {
        for _ in 0..looks {
            assert!(queue.highest(Priority::IDLE).is_some());
        }
        let event = take(&mut queue).unwrap() - 8192;
        longest = longest.max(now - last[event as usize]);
        last[event as usize] = now;
        send(&rig, event);
    }
    for event in events {
        longest = longest.max(8 * EVENTS - last[*event as usize]);
    }
    longest
}

#[test]
fn an_lpi_waits_at_most_one_turn_of_all_others() {
    let every: Vec<u32> = (0..EVENTS).collect();
    let few: Vec<u32> = (0..EVENTS).step_by(37).collect();
    for looks in 0..3 {
        assert!(longest_wait(&every, looks) <= EVENTS);
        // A leaf's turn lasts for 64 acknowledgments, even if only few of its bits are set.
        assert!(longest_wait(&few, looks) <= EVENTS);
        assert!(longest_wait(&few[..2], looks) <= 2 * 64);
    }
}
