//! A saved state that was damaged on its way. Whatever is in it, the model neither panics nor
//! hangs. The state is refused without any effect, or is one that the model can be in.
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
