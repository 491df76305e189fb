//! Tests of `irq-domain`: the handler cell and dispatch.

use crate::case::Argument::Number;
use crate::case::Does::{Calls, Reads, Writes};
use crate::case::{Argument, Case, DATA, EVERY, call, object, shared};
use crate::compile::Target;

const CELL: &[Argument] = &[object("cell")];
const DISPATCHER: &[Argument] = &[object("dispatcher")];

/// A handler of edges is installed and enabled.
const INSTALLED: u64 = 1 | 1 << 6 | 1 << 7;
/// The handler is running, and its interrupt has arrived during the run.
const MARKED: u64 = INSTALLED | 1 << 1 | 1 << 2;

/// The last run has not ended yet, and the handler is being removed.
const CLOSING: u64 = INSTALLED | 1 << 1 | 1 << 4;

/// The tests.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "handler-take",
        package: "irq-domain",
        retries: 0,
        quick: EVERY,
        slow: &[Target::V8],
        words: &[
            shared("word", call("word", CELL), CLOSING),
            shared("value", call("value", CELL), 7),
        ],
        threads: &[
            &[Calls(call("finish", &[object("cell"), Number(CLOSING)]), "got")],
            &[Calls(call("take", CELL), "taken")],
        ],
        forbidden: "0:stopped=1",
        possible: "0:got=7 /\\ 1:taken=7",
    },
    Case {
        name: "handler-mark",
        package: "irq-domain",
        retries: 0,
        quick: &[Target::Rcpc],
        slow: &[],
        words: &[DATA, shared("word", call("word", CELL), MARKED)],
        threads: &[
            &[
                Calls(call("end_run", &[object("cell"), Number(MARKED)]), "resent"),
                Reads("data", "seen"),
            ],
            &[Writes("data", 1), Calls(call("arrive", CELL), "found")],
        ],
        forbidden: "0:resent=1 /\\ 0:seen=0 /\\ 1:found=2",
        possible: "0:resent=1 /\\ 0:seen=1 /\\ 1:found=2",
    },
    Case {
        name: "dispatch",
        package: "irq-domain",
        retries: 0,
        quick: &[Target::Rcpc],
        slow: &[],
        words: &[DATA, shared("word", call("dispatched_word", DISPATCHER), MARKED)],
        threads: &[
            &[
                Calls(call("end_dispatched", &[object("dispatcher"), Number(MARKED)]), "resent"),
                Reads("data", "seen"),
            ],
            &[Writes("data", 1), Calls(call("dispatch", DISPATCHER), "found")],
        ],
        forbidden: "0:resent=1 /\\ 0:seen=0 /\\ 1:found=2",
        possible: "0:resent=1 /\\ 0:seen=1 /\\ 1:found=2",
    },
];
