//! A hostile guest at its ITS writes anything into the command queue and the registers. The model
//! neither panics nor hangs nor writes outside of the pending tables. No interrupt arrives that was
//! not sent.
#![no_main]

use doorbell_fuzz::guest::{Guest, Shape, Step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Shape, Vec<Step>)| {
    let (shape, steps) = input;
    let mut guest = Guest::start(shape);
    for step in steps {
        guest.take(step);
    }
    guest.finish();
});
