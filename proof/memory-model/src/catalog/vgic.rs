//! Tests of `vgic`: injection, acknowledgment and the wake-up protocol.

use crate::case::Does::{Calls, Reads, Requires, Writes};
use crate::case::{ALL, Argument, Call, Case, DATA, EVERY, Word, call, fixed, object, shared};
use crate::compile::Target;

const MODEL: &[Argument] = &[object("model")];
const WAKEUP: &[Argument] = &[object("wakeup")];
const LEAVES: &[Argument] = &[object("wakeup"), object("bitmap")];
const BITMAP: &[Argument] = &[object("bitmap")];
const PRUNES: &[Argument] = &[object("bitmap"), object("turns")];

const INTERRUPT: &[Argument] = &[object("interrupt")];
const CANDIDATES: &[Argument] = &[object("candidates")];
const FIRES: &[Argument] = &[object("interrupt"), object("candidates")];

const FOLDS: &[Argument] = &[object("consumer"), object("model")];

const LEAF: Call = call("leaf_is_empty", BITMAP);
const SUMMARY: Call = call("summary_is_empty", BITMAP);
const TOP: Call = call("top_is_empty", BITMAP);
const MASK: Call = call("bitmap_is_empty", BITMAP);

const ENTRY: Call = call("entry_is_pending", MODEL);
const OWN: Call = call("own_is_pending", MODEL);
const MODEL_LEAF: Call = call("shared_leaf_is_empty", MODEL);

/// Position of the first direct LPI: not that of the event's entry.
const FIRST_OWN: Word = fixed("first_own", call("first_own", MODEL), 32);
const MODEL_SUMMARY: Word = fixed("summary", call("shared_summary_is_empty", MODEL), 1);
const MODEL_TOP: Word = fixed("top", call("shared_top_is_empty", MODEL), 1);
const MODEL_MASK: Word = fixed("mask", call("shared_bitmap_is_empty", MODEL), 1);

/// An entry of generation 1 that is mapped, deliverable and enabled.
const IDLE: u64 = 1 | 1 << 22 | 1 << 58 | 1 << 62;
const PENDING: u64 = IDLE | 1 << 63;
const LISTED: u64 = IDLE | 1 << 61;
/// A direct LPI's entry has no bits below the level, and D above the flags.
const OWN_PENDING: u64 = PENDING >> 52 | 1 << 15;

/// The event's entry, whose translation does not change.
const fn entry(value: u64) -> Word {
    Word { constant: (1 << 58) - 1, ..shared("entry", ENTRY, value) }
}

/// An idle entry whose ready bit is still set.
const READY: &[Word] =
    &[FIRST_OWN, entry(IDLE), shared("leaf", MODEL_LEAF, 1), MODEL_SUMMARY, MODEL_TOP, MODEL_MASK];

/// A listed entry whose ready bit is clear.
const FOLDED: &[Word] = &[
    FIRST_OWN,
    entry(LISTED),
    shared("leaf", MODEL_LEAF, 0),
    MODEL_SUMMARY,
    MODEL_TOP,
    MODEL_MASK,
];

/// The tests.
pub(super) const CASES: &[Case] = &[
    WAKE_UP,
    Case {
        name: "candidate",
        package: "vgic",
        fails: ALL,
        quick: EVERY,
        slow: &[Target::V8],
        words: &[
            shared("interrupt", call("interrupt_is_pending", INTERRUPT), 0),
            shared("leaf", call("candidate_leaf_is_empty", CANDIDATES), 1),
            fixed("summary", call("candidates_are_empty", CANDIDATES), 1),
        ],
        threads: &[
            &[Calls(call("fire", FIRES), "")],
            &[Calls(call("forget_candidate", FIRES), "")],
        ],
        forbidden: "interrupt=1 /\\ leaf=0",
        possible: "interrupt=1 /\\ leaf=1",
    },
    Case {
        name: "leaf-and-summary",
        package: "vgic",
        fails: ALL,
        quick: EVERY,
        slow: &[Target::V8],
        words: &[
            fixed("turn", call("prune_leaf", PRUNES), 0xffff_ffff),
            shared("leaf", LEAF, 0),
            shared("summary", SUMMARY, 1),
            fixed("top", TOP, 1),
            fixed("mask", MASK, 1),
        ],
        threads: &[
            &[Calls(call("set_ready", BITMAP), "")],
            &[Calls(call("prune_leaf", PRUNES), "")],
        ],
        forbidden: "leaf=1 /\\ summary=0",
        possible: "leaf=1 /\\ summary=1",
    },
    Case {
        name: "summary-and-top",
        package: "vgic",
        fails: ALL,
        quick: &[],
        slow: ALL,
        words: &[
            fixed("leaf", LEAF, 0),
            shared("summary", SUMMARY, 0),
            shared("top", TOP, 1),
            fixed("mask", MASK, 1),
        ],
        threads: &[
            &[Calls(call("set_ready", BITMAP), "")],
            &[Calls(call("prune_summary", PRUNES), "")],
        ],
        forbidden: "summary=1 /\\ top=0",
        possible: "summary=1 /\\ top=1",
    },
    Case {
        name: "top-and-mask",
        package: "vgic",
        fails: ALL,
        quick: &[],
        slow: ALL,
        words: &[
            fixed("leaf", LEAF, 0),
            fixed("summary", SUMMARY, 0),
            shared("top", TOP, 0),
            shared("mask", MASK, 1),
        ],
        threads: &[
            &[Calls(call("set_ready", BITMAP), "")],
            &[Calls(call("clear_level", BITMAP), "")],
        ],
        forbidden: "top=1 /\\ mask=0",
        possible: "top=1 /\\ mask=1",
    },
    Case {
        name: "entry-and-leaf-acknowledge",
        package: "vgic",
        fails: ALL,
        quick: &[],
        slow: ALL,
        words: READY,
        threads: &[&[Calls(call("send", MODEL), "")], &[Calls(call("take", MODEL), "")]],
        forbidden: "entry=0xc400000000400001 /\\ leaf=0",
        possible: "entry=0xc400000000400001 /\\ leaf=1",
    },
    Case {
        name: "entry-and-leaf-sleep",
        package: "vgic",
        fails: ALL,
        quick: &[],
        slow: ALL,
        words: READY,
        threads: &[&[Calls(call("send", MODEL), "")], &[Calls(call("peek", MODEL), "")]],
        forbidden: "entry=0xc400000000400001 /\\ leaf=0",
        possible: "entry=0xc400000000400001 /\\ leaf=1",
    },
    Case {
        name: "entry-and-leaf-fold",
        package: "vgic",
        fails: ALL,
        quick: &[],
        slow: ALL,
        words: FOLDED,
        threads: &[&[Calls(call("send", MODEL), "")], &[Calls(call("fold", FOLDS), "")]],
        forbidden: "entry=0xc400000000400001 /\\ leaf=0",
        possible: "entry=0xc400000000400001 /\\ leaf=1",
    },
    Case {
        name: "entry-and-leaf-fold-acknowledge",
        package: "vgic",
        fails: ALL,
        quick: &[],
        slow: ALL,
        words: FOLDED,
        threads: &[
            &[Calls(call("send", MODEL), "")],
            &[Calls(call("fold", FOLDS), ""), Calls(call("take", MODEL), "taken")],
        ],
        forbidden: "entry=0xc400000000400001 /\\ leaf=0",
        possible: "entry=0x4400000000400001 /\\ leaf=1 /\\ 1:taken=1",
    },
    Case {
        name: "folded-message",
        package: "vgic",
        fails: ALL,
        quick: &[],
        slow: ALL,
        words: &[
            FIRST_OWN,
            DATA,
            entry(LISTED),
            fixed("leaf", MODEL_LEAF, 1),
            MODEL_SUMMARY,
            MODEL_TOP,
            MODEL_MASK,
        ],
        threads: &[
            &[Writes("data", 1), Calls(call("set_pending", MODEL), "")],
            &[
                Calls(call("fold", FOLDS), "folded"),
                Requires("folded"),
                Calls(call("take", MODEL), "taken"),
                Reads("data", "seen"),
            ],
        ],
        forbidden: "1:folded=1 /\\ (1:taken=0 \\/ 1:seen=0)",
        possible: "1:folded=1 /\\ 1:taken=1 /\\ 1:seen=1",
    },
    Case {
        name: "coalesced-message",
        package: "vgic",
        fails: ALL,
        quick: &[],
        slow: ALL,
        words: &[FIRST_OWN, DATA, entry(PENDING), fixed("leaf", MODEL_LEAF, 1)],
        threads: &[
            &[Writes("data", 1), Calls(call("set_pending", MODEL), "sent")],
            &[Calls(call("take", MODEL), "taken"), Reads("data", "seen")],
        ],
        forbidden: "0:sent=2 /\\ 1:taken=1 /\\ 1:seen=0",
        possible: "0:sent=2 /\\ 1:taken=1 /\\ 1:seen=1",
    },
    Case {
        name: "coalesced-direct-lpi",
        package: "vgic",
        fails: ALL,
        quick: &[],
        slow: ALL,
        words: &[FIRST_OWN, DATA, shared("entry", OWN, OWN_PENDING), fixed("leaf", MODEL_LEAF, 1)],
        threads: &[
            &[Writes("data", 1), Calls(call("set_own_pending", MODEL), "sent")],
            &[Calls(call("take_own", MODEL), "taken"), Reads("data", "seen")],
        ],
        forbidden: "0:sent=2 /\\ 1:taken=1 /\\ 1:seen=0",
        possible: "0:sent=2 /\\ 1:taken=1 /\\ 1:seen=1",
    },
];

/// A producer sets a ready bit and kicks; the vCPU sleeps unless a bit is set.
const WAKE_UP: Case = Case {
    name: "wake-up",
    package: "vgic",
    fails: ALL,
    // A weaker load compiles to another instruction only with RCpc.
    quick: &[Target::Rcpc],
    slow: &[Target::V8, Target::Lse],
    words: &[
        shared("mask", MASK, 0),
        shared("word", call("needs_kick", WAKEUP), 0),
        fixed("leaf", LEAF, 0),
        fixed("summary", SUMMARY, 0),
        fixed("top", TOP, 0),
    ],
    threads: &[
        &[Calls(call("set_ready", BITMAP), ""), Calls(call("kick", WAKEUP), "")],
        &[Calls(call("leave_unless_ready", LEAVES), "left")],
    ],
    forbidden: "word=1 /\\ 1:left=1",
    possible: "word=0 /\\ 1:left=1",
};
