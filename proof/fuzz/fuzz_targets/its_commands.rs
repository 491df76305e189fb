//! A hostile guest that writes arbitrary values to the ITS command queue and registers. The model
//! must not panic, hang or write outside the pending tables, and no interrupt may arrive that was
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
