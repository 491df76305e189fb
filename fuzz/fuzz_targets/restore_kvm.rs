//! A monitor that speaks KVM's device API, with unchecked input. It creates and restores a machine
//! by attributes and by the tables in its guest's memory.
#![no_main]

use doorbell_fuzz::kvm::{Act, Make, Monitor};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<Make>, Vec<Act>)| {
    let (makes, acts) = input;
    let mut monitor = Monitor::create(&makes);
    for act in acts.into_iter().take(Monitor::MOST_ACTS) {
        monitor.take(act);
    }
    monitor.restore();
});
