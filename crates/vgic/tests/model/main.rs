//! Random sequences of register accesses, line changes, acknowledgements and deactivations, on the model and on a
//! reference interpreter of the rules: every answer must be the same.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;
mod reference;

use harness::{Bench, ops};
use proptest::prelude::*;
use reference::View;

fn views() -> impl Strategy<Value = (View, u8)> {
    prop_oneof![
        (4u8..=8).prop_map(|bits| (View::Single, bits)),
        (5u8..=8).prop_map(|bits| (View::NonSecure, bits)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn the_model_answers_as_the_reference_does(
        (view, bits) in views(),
        ops in proptest::collection::vec(ops(), 1..200),
    ) {
        let mut bench = Bench::new(view, bits);
        for op in ops {
            bench.apply(&op);
            bench.compare_signals(&op);
        }
        bench.compare_registers();
    }

    #[test]
    fn the_model_answers_as_the_reference_does_once_everything_is_enabled(
        (view, bits) in views(),
        ops in proptest::collection::vec(ops(), 1..200),
    ) {
        let mut bench = Bench::new(view, bits);
        bench.enable_everything();
        for op in ops {
            bench.apply(&op);
            bench.compare_signals(&op);
        }
        bench.compare_registers();
    }
}
