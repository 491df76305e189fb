//! A guest and devices that perform arbitrary actions in any order, while the machine migrates. The
//! model must not panic, must stay within its budgets, and must only write where the guest allows
//! it.
#![no_main]

use doorbell_fuzz::machine::{Machine, Shape, Step};
use doorbell_test_support::heap_in_use;
use libfuzzer_sys::fuzz_target;

/// Limit of the heap's growth while a machine of this size runs.
const MOST_BYTES: usize = 64 << 20;

fuzz_target!(|input: (Shape, Vec<Step>)| {
    let before = heap_in_use();
    let (shape, steps) = input;
    let mut machine = Machine::start(shape);
    for step in steps {
        machine.take(step);
        let used = heap_in_use().saturating_sub(before);
        assert!(used <= MOST_BYTES, "{used} bytes after {step:?}");
    }
});
