//! Runs random sequences of register accesses, line changes, acknowledgments and deactivations on
//! both the model and a reference implementation of the rules. The model and the reference must
//! return the same values.

pub(crate) mod half;
mod harness;
mod one_of_n;
mod ops;
mod physical;
mod reference;
pub(crate) mod virtual_interface;

use half::ExitPolicy;
use harness::{Bench, Doorbells, VcpuKind};
use ops::ops;
use proptest::prelude::*;
use reference::View;

fn views() -> impl Strategy<Value = (View, u8)> {
    prop_oneof![
        (4u8..=8).prop_map(|bits| (View::Single, bits)),
        (5u8..=8).prop_map(|bits| (View::NonSecure, bits)),
    ]
}

fn doorbells() -> impl Strategy<Value = Doorbells> {
    prop_oneof![Just(Doorbells::Messages), Just(Doorbells::Lpis)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_model_answers_as_the_reference_does(
        (view, bits) in views(),
        doorbells in doorbells(),
        ops in proptest::collection::vec(ops(), 1..200),
    ) {
        let mut bench = Bench::new(view, bits, VcpuKind::Software, doorbells);
        bench.run(&ops);
    }

    #[test]
    fn an_enabled_model_answers_as_the_reference(
        (view, bits) in views(),
        doorbells in doorbells(),
        ops in proptest::collection::vec(ops(), 1..200),
    ) {
        let mut bench = Bench::new(view, bits, VcpuKind::Software, doorbells);
        bench.enable_everything();
        bench.run(&ops);
    }

    #[test]
    fn list_registers_answer_as_the_reference(
        bits in 5u8..=8,
        doorbells in doorbells(),
        kind in prop_oneof![
            Just(VcpuKind::Lists(16, ExitPolicy::Always)),
            Just(VcpuKind::Lists(16, ExitPolicy::Needed)),
            Just(VcpuKind::Mixed),
        ],
        enabled in any::<bool>(),
        ops in proptest::collection::vec(ops(), 1..200),
    ) {
        let mut bench = Bench::new(View::Single, bits, kind, doorbells);
        if enabled {
            bench.enable_everything();
        }
        bench.run(&ops);
    }

    #[test]
    fn few_list_registers_make_no_difference(
        bits in 5u8..=8,
        doorbells in doorbells(),
        count in 1u8..=4,
        exits in prop_oneof![Just(ExitPolicy::Always), Just(ExitPolicy::Needed)],
        split_eoi in any::<bool>(),
        ops in proptest::collection::vec(ops(), 1..200),
    ) {
        let mut bench = Bench::new(View::Single, bits, VcpuKind::Lists(count, exits), doorbells);
        if split_eoi {
            bench.split_eoi();
        }
        bench.enable_everything();
        bench.run(&ops);
    }
}
