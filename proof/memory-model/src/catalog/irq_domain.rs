//! Tests of `irq-domain`: the handler cell and dispatch.

use crate::case::Argument::Number;
use crate::case::Does::{Calls, Reads, Writes};
use crate::case::{ALL, Argument, Call, Case, DATA, EVERY, EXCLUSIVES, call, object, shared};
use crate::compile::Target;

const CELL: &[Argument] = &[object("cell")];
const DISPATCHER: &[Argument] = &[object("dispatcher")];

/// A handler of edges is installed and enabled.
const INSTALLED: u64 = 1 | 1 << 6 | 1 << 7;
/// The handler is running, and its interrupt has arrived during the run.
const MARKED: u64 = INSTALLED | 1 << 1 | 1 << 2;

/// The last run has not ended yet, and the handler is being removed.
const CLOSING: u64 = INSTALLED | 1 << 1 | 1 << 4;
/// The handler is being removed.
const CLOSED: u64 = INSTALLED | 1 << 4;
/// Arrivals do not run the handler.
const DISABLED: u64 = 1 << 3;
/// Arrivals are marked for a handler that will be installed.
const AWAITED: u64 = 1 << 8;

/// The cell had a handler before, and another is being installed.
const CHANGING: u64 = 1 << 5 | 1 << 7;

const ENABLE: Call = call("enable", CELL);
const PUBLISH: Call = call("publish", &[object("cell"), Number(8)]);
const INSTALL: Call = call("install", &[object("cell"), Number(8)]);

/// The tests.
pub(super) const CASES: &[Case] = &[
    Case {
        name: "handler-take",
        package: "irq-domain",
        fails: ALL,
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
        name: "handler-install",
        package: "irq-domain",
        fails: EXCLUSIVES,
        quick: EVERY,
        slow: &[Target::V8],
        words: &[
            shared("word", call("word", CELL), CHANGING),
            shared("value", call("value", CELL), 0),
        ],
        threads: &[&[Calls(PUBLISH, "")], &[Calls(ENABLE, ""), Calls(call("value", CELL), "got")]],
        forbidden: "word=0xc1 /\\ 1:stopped=1",
        possible: "word=0xc1 /\\ 1:got=8",
    },
    Case {
        name: "handler-await",
        package: "irq-domain",
        fails: EXCLUSIVES,
        quick: EVERY,
        slow: &[Target::V8],
        words: &[shared("word", call("word", CELL), CHANGING | AWAITED)],
        threads: &[&[Calls(call("arrive", CELL), "found")], &[Calls(PUBLISH, "")]],
        forbidden: "0:found=3 /\\ word=0xc9",
        possible: "0:found=3 /\\ word=0xcd",
    },
    Case {
        name: "handler-enable",
        package: "irq-domain",
        fails: EXCLUSIVES,
        quick: &[],
        slow: ALL,
        words: &[DATA, shared("word", call("word", CELL), INSTALLED | DISABLED)],
        threads: &[
            &[Writes("data", 1), Calls(call("arrive", CELL), "found")],
            &[Calls(ENABLE, "resent"), Reads("data", "seen")],
        ],
        forbidden: "0:found=3 /\\ (1:resent=0 \\/ 1:seen=0)",
        possible: "0:found=3 /\\ 1:resent=1 /\\ 1:seen=1",
    },
    Case {
        name: "handler-replace",
        package: "irq-domain",
        fails: EXCLUSIVES,
        quick: &[],
        slow: ALL,
        words: &[
            shared("word", call("word", CELL), CLOSED),
            shared("value", call("value", CELL), 7),
        ],
        threads: &[&[Calls(call("take", CELL), "taken")], &[Calls(INSTALL, "installed")]],
        forbidden: "1:installed=1 /\\ (0:taken=8 \\/ 0:taken=0 \\/ value=0)",
        possible: "1:installed=1 /\\ 0:taken=7 /\\ value=8",
    },
    Case {
        name: "handler-mark",
        package: "irq-domain",
        fails: EXCLUSIVES,
        quick: &[Target::Rcpc],
        slow: &[Target::V8, Target::Lse],
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
        fails: EXCLUSIVES,
        quick: &[Target::Rcpc],
        slow: &[Target::V8, Target::Lse],
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
