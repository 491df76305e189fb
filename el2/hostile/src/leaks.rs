//! Checks for leaks through system registers: one guest writes every register, and another guest on
//! the same CPU reads them. The second guest must not see values that the first guest wrote.

use crate::exceptions;
use crate::random::Random;
use crate::turns::Turns;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt::{self, Display, Formatter};
use core::ops::Range;
use doorbell_facts::{Fact, HostileFact};
use image_rt::{cpu, power, println};

/// All encodings of Op0 (2 or 3), Op1, CRn, CRm and Op2, as in bits 20:5 of MRS and MSR.
const ENCODINGS: Range<u32> = 2 << 14..4 << 14;
/// Milliseconds between two readings. In the meantime, the other guest writes registers during its
/// time slice of 2 ms.
const READING: u64 = 5;
/// Milliseconds between two rounds of writes.
const WRITING: u64 = 1;

/// Returns `true` if the writing guest must keep the register's value. The registers are, in this
/// order: SCTLR, CPACR; TTBR0, TTBR1, TCR; MAIR; VBAR; TPIDR, which has the CPU's number; SPSel,
/// PAN and other fields of PSTATE; and `ICC_BPR<n>_EL1`, for which QEMU 10.0 fails an assertion
/// (`attacks::system_registers`).
fn is_needed(encoding: u32) -> bool {
    matches!(
        Fields::of(encoding),
        Fields(3, 0, 1, 0, 0 | 2)
            | Fields(3, 0, 2, 0, 0..=2)
            | Fields(3, 0, 10, 2, 0)
            | Fields(3, 0, 12, 0, 0)
            | Fields(3, 0, 13, 0, 4)
            | Fields(3, 0, 4, 2 | 3, _)
            | Fields(3, 3, 4, 2, _)
            | Fields(3, 0, 12, 8 | 12, 3)
    )
}

/// Writes a value to every register that accepts it, with a different value in each turn.
pub(crate) fn stain(turns: &mut Turns) {
    let mut random = Random::here();
    let mut writable: Vec<_> = ENCODINGS.filter(|encoding| !is_needed(*encoding)).collect();
    while turns.next() {
        let value = random.next();
        writable.retain(|encoding| {
            let before = exceptions::taken();
            exceptions::system_register(*encoding, value, false);
            exceptions::taken() == before
        });
        wait(WRITING);
    }
}

/// Reads every register `times` times, and prints the registers whose values changed.
pub(crate) fn scan(times: u64) -> ! {
    cpu::irq_save();
    exceptions::install();
    let mut registers: Vec<_> =
        ENCODINGS.filter_map(|encoding| Some((encoding, read(encoding)?))).collect();
    println!("{}", Fact::from(HostileFact::Readable { registers: registers.len() }));
    for _ in 1..times {
        wait(READING);
        registers.retain(|&(encoding, first)| {
            let now = read(encoding);
            if now != Some(first) {
                let register = Fields::of(encoding).to_string().into();
                println!("{}", Fact::from(HostileFact::Changed { register, first, now }));
            }
            now == Some(first)
        });
    }
    println!("{}", Fact::from(HostileFact::Unchanged { registers: registers.len() }));
    power::system_off()
}

pub(crate) fn wait(milliseconds: u64) {
    let end = cpu::ticks() + milliseconds * cpu::ticks_per_millisecond();
    while cpu::ticks() < end {}
}

pub(crate) fn read(encoding: u32) -> Option<u64> {
    let before = exceptions::taken();
    let value = exceptions::system_register(encoding, 0, true);
    (exceptions::taken() == before).then_some(value)
}

/// Op0, Op1, CRn, CRm and Op2.
struct Fields(u32, u32, u32, u32, u32);

impl Fields {
    fn of(encoding: u32) -> Self {
        let field = |shift: u32, bits: u32| encoding >> shift & ((1 << bits) - 1);
        Self(field(14, 2), field(11, 3), field(7, 4), field(3, 4), field(0, 3))
    }
}

impl Display for Fields {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(op0, op1, crn, crm, op2) = self;
        write!(f, "S{op0}_{op1}_C{crn}_C{crm}_{op2}")
    }
}
