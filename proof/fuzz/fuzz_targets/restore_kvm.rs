//! A VMM that uses KVM's device API with unchecked input. It restores a machine from attributes and
//! from tables in the guest's memory.
#![no_main]

use doorbell_fuzz::kvm::{Act, Machine, Monitor};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Machine, Vec<Act>)| {
    let (machine, acts) = input;
    let mut monitor = Monitor::new(machine);
    for act in acts.into_iter().take(Monitor::MOST_ACTS) {
        monitor.take(act);
    }
    monitor.restore();
});
