//! Scenarios in which a register access defers work while vCPUs go to sleep.

use super::event_lpis::spawn;
use super::explore;
use super::machine::machine;

/// Both vCPUs go to sleep unless they find deferred work.
fn left_over_while_they_fall_asleep() {
    let (machine, _commands) = machine();
    let access = spawn(&machine, |machine| machine.leaves_work());
    let vcpus =
        [0, 1].map(|vcpu| spawn(&machine, move |machine| machine.vcpu(vcpu).leave_unless_work()));
    access.join().unwrap();
    let asleep = vcpus.map(|vcpu| vcpu.join().unwrap());
    let kicks = machine.kicks(0) + machine.kicks(1);
    assert!(asleep != [true; 2] || kicks == 1, "all vCPUs sleep although work is left");
}

#[test]
fn deferred_work_keeps_one_vcpu_awake_or_wakes_it() {
    explore(left_over_while_they_fall_asleep);
}
