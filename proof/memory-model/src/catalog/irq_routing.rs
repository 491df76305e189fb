//! Tests of `irq-routing`: the route latch, and the state of an MSI-X vector.

use crate::case::Argument::Number;
use crate::case::Does::{Calls, Reads, Writes};
use crate::case::{
    ALL, Argument, Call, Case, DATA, EVERY, EXCLUSIVES, Word, call, fixed, object, shared,
};
use crate::compile::Target;

const LATCH: &[Argument] = &[object("latch")];

/// The version selects the even copy, which holds a message. Two changes only affect bits 3 and 2.
const VERSION: Word = Word { constant: !0b1100, ..shared("version", call("version", LATCH), 2) };

const VECTOR: &[Argument] = &[object("vector")];
const STATE: Call = call("vector_state", VECTOR);
const ADDRESS: Call = call("vector_address", VECTOR);
const REST: Call = call("vector_rest", VECTOR);
const ENTER: Call = call("enter_vector", VECTOR);
const MESSAGE: Call = call("entered_message", VECTOR);
const OPEN_SECOND: Call = call("open_vector", &[object("vector"), Number(2)]);
const LEAVE: Call = call("leave_vector", &[object("vector"), object("idle")]);
const CLOSE: Call = call("close_vector", &[object("vector"), object("idle")]);

/// The vector is open.
const OPEN: u64 = 1;
/// The vector is open, and a sender has entered it.
const ENTERED: u64 = OPEN | 1 << 4;
/// The vector is closed, and a message is pending.
const PENDING: u64 = 1 << 1;

/// The tests.
pub(super) const CASES: &[Case] = &[
    ROUTE_LATCH,
    Case {
        name: "vector-sent",
        package: "irq-routing",
        fails: EXCLUSIVES,
        quick: &[],
        slow: ALL,
        words: &[DATA, shared("state", STATE, ENTERED)],
        threads: &[
            &[Writes("data", 1), Calls(LEAVE, "")],
            &[Calls(CLOSE, ""), Reads("data", "seen")],
        ],
        forbidden: "1:seen=0",
        possible: "1:seen=1",
    },
    Case {
        name: "vector-mask",
        package: "irq-routing",
        fails: EXCLUSIVES,
        quick: &[],
        slow: ALL,
        words: &[
            shared("state", STATE, OPEN),
            fixed("address", ADDRESS, 1),
            fixed("rest", REST, 1),
        ],
        threads: &[&[Calls(ENTER, "got")], &[Calls(CLOSE, "")]],
        forbidden: "0:got=0x10001",
        possible: "0:got=0",
    },
    Case {
        name: "vector-change",
        package: "irq-routing",
        fails: EXCLUSIVES,
        quick: &[],
        slow: ALL,
        words: &[
            shared("state", STATE, ENTERED),
            shared("address", ADDRESS, 1),
            shared("rest", REST, 1),
        ],
        threads: &[
            &[Calls(MESSAGE, "got"), Calls(LEAVE, "")],
            &[Calls(CLOSE, ""), Calls(OPEN_SECOND, "")],
        ],
        forbidden: "(0:got=0x10002 \\/ 0:got=0x20001 \\/ 0:got=0x20002)",
        possible: "0:got=0x10001",
    },
    Case {
        name: "vector-unmask",
        package: "irq-routing",
        fails: EXCLUSIVES,
        quick: EVERY,
        slow: &[Target::V8],
        words: &[shared("state", STATE, 0), shared("address", ADDRESS, 1), shared("rest", REST, 1)],
        threads: &[&[Calls(ENTER, "got")], &[Calls(OPEN_SECOND, "pending")]],
        forbidden: "(0:got=0 /\\ 1:pending=0 \\/ 0:got=0x20002 /\\ 1:pending=1 \\/ \
            0:got=0x10001 \\/ 0:got=0x10002 \\/ 0:got=0x20001)",
        possible: "0:got=0x20002 /\\ 1:pending=0",
    },
    Case {
        name: "vector-pending",
        package: "irq-routing",
        fails: EXCLUSIVES,
        quick: EVERY,
        slow: &[Target::V8],
        words: &[
            DATA,
            shared("state", STATE, PENDING),
            fixed("address", ADDRESS, 1),
            fixed("rest", REST, 1),
        ],
        threads: &[
            &[Writes("data", 1), Calls(ENTER, "got")],
            &[Calls(OPEN_SECOND, "pending"), Reads("data", "seen")],
        ],
        forbidden: "0:got=0 /\\ 1:pending=1 /\\ 1:seen=0",
        possible: "0:got=0 /\\ 1:pending=1 /\\ 1:seen=1",
    },
];

const ROUTE_LATCH: Case = Case {
    name: "route-latch",
    package: "irq-routing",
    fails: ALL,
    quick: &[],
    slow: ALL,
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
};
