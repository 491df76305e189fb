//! A saved state that has been corrupted in transit. For any contents, the model must not panic or
//! hang, and must either reject the state without any effect or restore a valid state.
#![no_main]

use doorbell_fuzz::guest::{Damage, Guest, Shape, Step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Shape, Vec<Step>, Vec<Damage>)| {
    let (shape, steps, damages) = input;
    let mut guest = Guest::start(shape);
    for step in steps {
        guest.take(step);
    }
    guest.restore_damaged(&damages);
});
