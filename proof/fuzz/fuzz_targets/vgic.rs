//! Guest and devices do anything in any order, and the machine moves meanwhile. The model does not
//! panic, works within its budgets, and writes only where the guest lets it.
#![no_main]

use doorbell_fuzz::machine::{Machine, Shape, Step};
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Memory limit of a machine of this size, the guest's memory and the fuzzer's growth included.
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
