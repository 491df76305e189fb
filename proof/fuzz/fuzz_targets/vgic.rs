//! A guest and devices that perform arbitrary actions in any order, while the machine migrates. The
//! model must not panic, must stay within its budgets, and must only write where the guest allows
//! it.
#![no_main]

use doorbell_fuzz::machine::{Machine, Shape, Step};
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Memory limit of a machine of this size, including the guest's memory and the fuzzer's growth.
const MOST_BYTES: usize = 64 << 20;

fuzz_target!(|input: (Shape, Vec<Step>)| {
    let before = ALLOCATOR.current_usage();
    let (shape, steps) = input;
    let mut machine = Machine::start(shape);
    for step in steps {
        machine.take(step);
        let used = ALLOCATOR.current_usage().saturating_sub(before);
        assert!(used <= MOST_BYTES, "{used} bytes after {step:?}");
    }
});
