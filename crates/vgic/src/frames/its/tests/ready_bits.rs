//! Tests for the ready bits that commands leave. A guest entry and an acknowledgment look at every
//! set bit, so a bit whose LPI is no longer pending must not stay set.

use super::rig::*;
use gic_arch::its::Command;
use msi_types::Delivery;

const EVENTS: u32 = 256;
const PRIORITIES: u32 = 4;

const fn lpi_of(event: u32) -> u32 {
    8192 + event
}

/// Creates a machine with two vCPUs, and LPIs of several priorities that are pending at the first.
fn with_all_pending() -> Rig {
    let rig = Rig::running(2);
    for event in 0..EVENTS {
        let priority = (event % PRIORITIES * 0x20).to_le_bytes()[0];
        rig.configure(lpi_of(event), true, priority);
    }
    rig.run([mapd(1, 8)]);
    rig.run((0..EVENTS).map(|event| mapti(1, event, lpi_of(event), 0)));
    rig.run((0..EVENTS).map(|event| int(1, event)));
    assert_eq!(ready_bits(&rig), [EVENTS, 0]);
    rig
}

/// Returns the numbers of the vCPUs' ready bits.
fn ready_bits(rig: &Rig) -> [u32; 2] {
    [0, 1].map(|vcpu| rig.lpis.ready_bits(cpu(vcpu)).0)
}

/// Checks that, after these commands, the vCPUs have a ready bit for each pending LPI only.
fn check(commands: impl IntoIterator<Item = Command>, expected: [u32; 2]) {
    let rig = with_all_pending();
    rig.run(commands);
    assert_eq!(ready_bits(&rig), expected);
    for vcpu in [0, 1] {
        let (bits, leaves) = rig.lpis.ready_bits(cpu(vcpu));
        assert!(leaves <= bits, "{leaves} leaves for {bits} ready bits at vCPU {vcpu}");
        let taken = drain(&mut rig.vcpu(vcpu)).len();
        assert_eq!(taken, expected[usize::from(vcpu)] as usize, "at vCPU {vcpu}");
    }
}

#[test]
fn clear_and_discard_leave_no_ready_bits() {
    check((0..EVENTS).map(|event| clear(1, event)), [0, 0]);
    check((0..EVENTS).map(|event| discard(1, event)), [0, 0]);
    check((1..EVENTS).map(|event| clear(1, event)), [1, 0]);
}

#[test]
fn mapti_and_mapd_leave_no_ready_bits() {
    check((0..EVENTS).map(|event| mapti(1, event, lpi_of(EVENTS + event), 0)), [0, 0]);
    check([unmapd(1)], [0, 0]);
    check([mapd(1, 7)], [0, 0]);
}

#[test]
fn moved_lpis_leave_no_ready_bits() {
    check((0..EVENTS).map(|event| movi(1, event, 1)), [0, EVENTS]);
    check([movall(0, 1)], [0, EVENTS]);
    check([mapc(0, 1)], [0, EVENTS]);
    check([movall(0, 1), movall(1, 0), mapc(0, 1)], [0, EVENTS]);
}

#[test]
fn reconfigured_lpis_leave_no_ready_bits() {
    for (is_enabled, left) in [(false, 0), (true, EVENTS)] {
        let rig = with_all_pending();
        (0..EVENTS).for_each(|event| rig.configure(lpi_of(event), is_enabled, 0xe0));
        rig.run([invall(0)]);
        assert_eq!(ready_bits(&rig), [left, 0]);
    }
}

#[test]
fn disabling_lpis_leaves_no_ready_bits() {
    let rig = with_all_pending();
    rig.disable_lpis(0);
    assert_eq!(ready_bits(&rig), [0, 0]);
    rig.enable_lpis(0);
    assert_eq!(ready_bits(&rig), [EVENTS, 0]);
}

/// Leaves one LPI per priority pending, the lowest priority first: otherwise, taking an LPI of a
/// lower priority would visit the empty leaves of higher ones.
#[test]
fn acknowledged_lpis_leave_one_leaf_per_priority() {
    let rig = with_all_pending();
    rig.run((0..EVENTS).map(|event| clear(1, event)));
    let mut vcpu = rig.vcpu(0);
    for priority in (0..PRIORITIES).rev() {
        let events = (priority..EVENTS).step_by(PRIORITIES as usize);
        rig.run(events.clone().map(|event| int(1, event)));
        events.skip(1).for_each(|_| assert!(take(&mut vcpu).is_some()));
    }
    assert_eq!(rig.lpis.ready_bits(cpu(0)), (PRIORITIES, PRIORITIES));
}

/// Delays each message between the stores to its entry and to its ready bit.
#[test]
fn messages_overtaken_by_a_command_leave_few_ready_bits() {
    /// Number of messages whose bits the commands remember (`lpi/control.rs`).
    const OVERTAKEN: u32 = 16;
    let commands: [fn(u32) -> Command; 3] =
        [|event| clear(1, event), |event| movi(1, event, 1), |event| discard(1, event)];
    for command in commands {
        let rig = with_all_pending();
        rig.run((0..EVENTS).map(|event| clear(1, event)));
        for event in 0..EVENTS {
            let finish = rig.lpis.begin_signal(&rig.its.device_table, (1, event));
            rig.run([command(event)]);
            finish();
        }
        let [stale, _] = ready_bits(&rig);
        assert!(stale <= OVERTAKEN, "{stale} stale ready bits");
        assert_eq!(drain(&mut rig.vcpu(0)), NO_LPIS);
    }
}

/// Makes each LPI pending again while the commands still remember its overtaken message.
#[test]
fn remembered_messages_keep_later_ready_bits() {
    let rig = with_all_pending();
    rig.run((0..EVENTS).map(|event| clear(1, event)));
    for event in 0..EVENTS {
        let finish = rig.lpis.begin_signal(&rig.its.device_table, (1, event));
        rig.run([clear(1, event)]);
        assert_eq!(rig.send(1, event), Delivery::Pending);
        finish();
    }
    assert_eq!(ready_bits(&rig), [EVENTS, 0]);
    assert_eq!(drain(&mut rig.vcpu(0)).len(), EVENTS as usize);
}
