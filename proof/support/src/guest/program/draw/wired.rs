//! Random steps that concern wired interrupts, on a few interrupts of each kind.

use crate::guest::program::wired::{AFFINITIES, LINKED, PRIVATE, SHARED};
use crate::guest::program::{Ends, Field, Register, Shape, Step, Wired};
use gic_arch::icc::{Ctlr, Sgi};

/// Interrupts that half of the steps concern, so that steps meet each other.
const OFTEN: [u32; 4] = [1, 27, 33, 64];
/// Draws a number below a bound.
pub(super) type Below<'a> = &'a mut dyn FnMut(u32) -> u32;

/// INTIDs that are special, reserved or not implemented.
const NONE: [u32; 4] = [1023, 1055, 96, 8200];
/// Fields, each as often as it is written.
const FIELDS: [Field; 21] = {
    use Field::{Activate, Deactivate, Disable, Enable, Group, Pend, Priority, Trigger, Unpend};
    [
        Enable, Enable, Enable, Enable, Disable, Pend, Pend, Pend, Unpend, Activate, Activate,
        Activate, Deactivate, Deactivate, Group, Group, Priority, Priority, Priority, Trigger,
        Trigger,
    ]
};

/// Draws the first steps. Guests that end interrupts in order enable everything, as at startup, and
/// so do half of the others.
pub(super) fn setup(shape: Shape, wired: Wired, below: Below<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    if wired.ends < Ends::Nested && below(2) == 0 {
        return steps;
    }
    steps.push(Step::Groups { zero: true, one: true });
    let lpis = (8192..).take(shape.lpis).zip((1..).step_by(0x10));
    steps.extend(lpis.map(|(lpi, configuration)| Step::Configure { lpi, configuration }));
    for cpu in 0..AFFINITIES.len() {
        let write = |register, value| Step::Write { cpu, register, value };
        if below(2) == 0 {
            steps.extend([0, 1].map(|group| write(Register::Bpr(group), below(8).into())));
            steps.push(modes(cpu, below(4)));
        }
        steps.push(Step::Waker { cpu, asleep: false });
        steps.push(write(Register::Pmr, 0xff));
        steps.extend([0, 1].map(|group| write(Register::Igrpen(group), 1)));
        for (intid, index) in PRIVATE.into_iter().chain(SHARED).zip(0u8..) {
            let field = |field, value| Step::Field { cpu, field, intid, value };
            steps.push(field(Field::Enable, 0));
            steps.push(field(Field::Group, u8::from(index % 3 != 0)));
            steps.push(field(Field::Trigger, index % 2));
            steps.push(field(Field::Priority, if index % 2 == 0 { priority(below) } else { 0 }));
        }
    }
    if wired.one_of_n {
        steps.extend(SHARED.map(|intid| Step::Route { intid, target: 4 }));
    }
    steps
}

/// Draws a step.
pub(super) fn step(shape: Shape, below: Below<'_>) -> Step {
    let [cpu, target] = [0; 2].map(|_| below(3) as usize);
    let group = below(2) as usize;
    let on = below(2) == 1;
    let all = || PRIVATE.into_iter().chain(SHARED).chain(NONE);
    let intid = match below(8) {
        often @ 0..4 => OFTEN[often as usize],
        _ => all().nth(below(18) as usize).unwrap_or(NONE[0]),
    };
    let lpi = 8192 + below(3);
    let shared = SHARED[below(6) as usize];
    let write = |register, value| Step::Write { cpu, register, value };
    match below(62) {
        0..=5 => Step::Line { cpu, intid, high: on },
        6..=8 => Step::Message { intid, set: on },
        9..=12 if shape.lpis == 0 => Step::Message { intid: shared, set: on },
        9..=12 if on => Step::SetLpi { cpu, lpi },
        9..=12 => Step::ClearLpi { cpu, lpi },
        13 | 14 if shape.lpis > 0 => {
            Step::Configure { lpi, configuration: priority(below) & !3 | u8::from(on) }
        }
        13..=20 => {
            let field = FIELDS[below(21) as usize];
            Step::Field { cpu, field, intid, value: priority(below) ^ u8::from(on) }
        }
        21 | 22 => Step::Route { intid: shared, target: below(5) as usize },
        23 => Step::Groups { zero: on, one: group == 1 },
        24 => Step::Waker { cpu, asleep: on },
        25 => write(Register::Pmr, priority(below).into()),
        26..=29 => write(Register::Bpr(group), below(8).into()),
        30 | 31 => modes(cpu, below(4)),
        32 => write(Register::Igrpen(group), on.into()),
        33..=35 => {
            let number = [0, 1, 15][below(3) as usize];
            let others = Sgi::new().with_intid(number).with_all_but_self(true);
            let to = AFFINITIES.get(below(4) as usize);
            let sgi = to.map_or(others, |affinity| Sgi::to(number, *affinity));
            write(Register::Sgi(group), sgi.into_bits())
        }
        36..=41 => Step::Read { cpu, register: Register::Iar(group) },
        42..=46 => Step::End { cpu, group },
        47 => write(Register::Eoir(group), intid.into()),
        48 | 49 => write(Register::Dir, intid.into()),
        50..=57 => Step::Refire { cpu, target },
        58 => Step::Restore,
        59 => Step::Reset { cpu },
        60 => Step::Link { cpu, intid: LINKED[group], on },
        _ => Step::Decline { cpu, zero: on, one: group == 1 },
    }
}

/// Sets `CBPR` by bit 0, and `EOImode` by bit 1.
fn modes(cpu: usize, bits: u32) -> Step {
    let value = Ctlr::new().with_cbpr(bits & 1 != 0).with_eoi_mode(bits & 2 != 0).into_bits();
    Step::Write { cpu, register: Register::Ctlr, value }
}

/// Draws a priority. Half of the priorities come from a small set in which many have the same group
/// priority.
fn priority(below: Below<'_>) -> u8 {
    let any = below(256).to_le_bytes()[0];
    if below(2) == 0 { any } else { any & 0xf8 }
}
