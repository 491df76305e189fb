//! Test of `irq-routing`: the route latch.

use crate::case::Argument::Number;
use crate::case::Does::Calls;
use crate::case::{Argument, Case, Word, call, object, shared};
use crate::compile::Target;

const LATCH: &[Argument] = &[object("latch")];

/// The version selects the even copy, which holds a message. Two changes only affect bits 3 and 2.
const VERSION: Word = Word { constant: !0b1100, ..shared("version", call("version", LATCH), 2) };

/// The tests.
pub(super) const CASES: &[Case] = &[Case {
    name: "route-latch",
    package: "irq-routing",
    retries: 0,
    quick: &[],
    slow: &[Target::Lse],
    words: &[
        VERSION,
        shared("address0", call("even_address", LATCH), 1),
        shared("rest0", call("even_rest", LATCH), 1),
        shared("address1", call("odd_address", LATCH), 0),
        shared("rest1", call("odd_rest", LATCH), 0),
    ],
    threads: &[
        &[
            Calls(call("store_route", &[object("latch"), Number(2)]), ""),
            Calls(call("store_route", &[object("latch"), Number(3)]), ""),
        ],
        &[Calls(call("load_route", LATCH), "got")],
    ],
    forbidden: "(1:got=0x10003 \\/ 1:got=0x30001 \\/ 1:got=0x20000 \\/ 1:got=2)",
    possible: "1:got=0x20002",
}];
