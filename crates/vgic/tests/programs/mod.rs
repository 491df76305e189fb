//! Programs on machines with CPU interfaces of each kind, judged by an abstract GIC.

use super::model::half::{ExitPolicy, Half};
use doorbell_test_support::guest::program::{Draw, Ends, Program, Shape, Way, Wired, dice, kept};
use doorbell_test_support::guest::{Interface, Kicks};
use doorbell_test_support::suites::{MACHINES, PROGRAMS, STEPS, WIRED_PROGRAMS};
use gic_arch::icc::SysRegEncoding;
use msi_types::{DeviceId, MsiMessage};
use std::sync::Arc;
use vgic::{Inputs, Paused, Sleep, Undefined, Vcpu};

/// A vCPU with `COUNT` list registers. It leaves its guest when it is kicked, and after each access
/// of the guest if it `EXITS`. If `COUNT` is 0, vCPU 0 has none, and each other one has 16.
pub(crate) struct Listed<const COUNT: u8, const EXITS: bool = false>(pub(crate) Half);

impl<const COUNT: u8, const EXITS: bool> Interface for Listed<COUNT, EXITS> {
    fn of(vcpu: Vcpu, kicks: &Arc<Kicks>) -> Self {
        let exits = if EXITS { ExitPolicy::Always } else { ExitPolicy::Needed };
        let kicked = kicks.flag(vcpu.cpu().index());
        Self(match (COUNT, vcpu.cpu().index()) {
            (0, 0) => Half::Software(vcpu),
            (0, _) => Half::lists(vcpu, 16, exits, kicked),
            (count, _) => Half::lists(vcpu, count, exits, kicked),
        })
    }

    fn read(&mut self, register: SysRegEncoding) -> Result<u64, Undefined> {
        self.0.read_sysreg(register)
    }

    fn write(&mut self, register: SysRegEncoding, value: u64) -> Result<(), Undefined> {
        self.0.write_sysreg(register, value)
    }

    fn pause(&mut self) -> Paused<'_> {
        self.0.pause()
    }

    fn prepare_to_sleep(&mut self) -> Sleep {
        self.0.prepare_to_sleep()
    }

    fn returned(&mut self) {
        self.0.returned();
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn inputs(&mut self) -> Inputs {
        self.0.inputs()
    }

    fn attend(&mut self) {
        self.0.attend();
    }

    fn leave_guest(&mut self) {
        self.0.leave_guest();
    }

    fn list_message(&mut self, from: DeviceId, message: MsiMessage) -> bool {
        self.0.list_message(from, message)
    }

    fn take_deactivated(&mut self) -> Vec<u32> {
        self.0.take_deactivated()
    }
}

/// A kind of vCPU, its judgment of a program, and the order in which its guest must end interrupts.
type Kind = (&'static str, fn(Way, &Program) -> Result<(), String>, Ends);

const KINDS: [Kind; 7] = [
    ("software", Way::judge::<Vcpu>, Ends::Any),
    ("16 list registers", Way::judge::<Listed<16>>, Ends::Own),
    (
        "16 list registers, with an exit after each access",
        Way::judge::<Listed<16, true>>,
        Ends::Own,
    ),
    ("16 list registers, except for vCPU 0", Way::judge::<Listed<0>>, Ends::Own),
    ("1 list register", Way::judge::<Listed<1>>, Ends::Nested),
    ("3 list registers", Way::judge::<Listed<3>>, Ends::Nested),
    (
        "4 list registers, with an exit after each access",
        Way::judge::<Listed<4, true>>,
        Ends::Nested,
    ),
];

fn machines() -> impl Iterator<Item = (Kind, Way)> + Clone {
    KINDS.into_iter().flat_map(|kind| Way::ALL.map(|way| (kind, way)))
}

/// Returns `true` if the way continues from a saved state after each step.
fn is_restored(way: Way) -> bool {
    matches!(way, Way::Restored | Way::Moved)
}

/// Returns `true` if a machine can carry out programs with wired interrupts. A saved state does not
/// record in which order a guest must end its interrupts once it has activated others.
fn has_wired(((_, _, ends), way): &(Kind, Way)) -> bool {
    *ends < Ends::Nested || !is_restored(*way)
}

#[test]
fn machines_carry_out_kept_programs_as_an_abstract_gic_allows() {
    for (name, program) in kept() {
        let wired = program.shape.wired;
        // List registers don't support two security states.
        let is_possible = |machine: &(Kind, Way)| {
            let ((.., ends), _) = *machine;
            let fits = |it: Wired| it.ends >= ends && (ends == Ends::Any || !it.is_non_secure);
            wired.is_none_or(|wired| has_wired(machine) && fits(wired))
        };
        for ((kind, judge, _), way) in machines().filter(is_possible) {
            assert_eq!(judge(way, &program), Ok(()), "{name}, {kind}, {way:?}");
        }
        assert_eq!(program.to_string().parse(), Ok(program));
    }
}

#[test]
fn machines_carry_out_random_programs_as_an_abstract_gic_allows() {
    assert_eq!(machines().count(), MACHINES);
    for (seed, ((kind, judge, _), way)) in (0..PROGRAMS).zip(machines().cycle()) {
        let shape = Shape { cpus: 3, lpis: 64, is_direct: seed % 5 == 0, wired: None };
        let draw = Draw { shape, shares_lpis: seed % 5 == 1 };
        let program = draw.program(STEPS, &mut dice(seed));
        check(&format!("{kind}, {way:?}, {seed}"), program, |program| judge(way, program));
    }
}

#[test]
fn machines_carry_out_random_wired_programs_by_the_rules() {
    // A restore after each step takes long, and list registers are empty while a vCPU sleeps, so
    // most programs run on vCPUs that never sleep.
    let all = machines().filter(has_wired);
    let is_usual = |((.., ends), way): &(Kind, Way)| {
        *way == Way::Awake || (*ends == Ends::Any && *way == Way::Plain)
    };
    let others = all.clone().filter(is_usual).cycle();
    for (seed, ((kind, judge, ends), way)) in (0..WIRED_PROGRAMS).zip(all.chain(others)) {
        let below = &mut dice(seed);
        let is_non_secure = ends == Ends::Any && below(2) == 0;
        let bits = if is_non_secure || ends > Ends::Any { 5 + below(4) } else { 4 + below(5) };
        let bits = u8::try_from(bits).unwrap();
        let lpis = 3 * below(2) as usize;
        let wired = Some(Wired { is_non_secure, bits, one_of_n: below(2) == 0, ends });
        let shape = Shape { cpus: 3, lpis, is_direct: lpis > 0, wired };
        let program = Draw { shape, shares_lpis: false }.program(STEPS, below);
        check(&format!("{kind}, {way:?}, {seed}"), program, |program| judge(way, program));
    }
}

/// Carries out a random program, and panics with the shortest program that fails.
fn check(machine: &str, mut program: Program, judge: impl Fn(&Program) -> Result<(), String>) {
    if let Err(problem) = judge(&program) {
        program.shrink(|program| judge(program).is_err());
        panic!("{machine}: {problem}; the shortest program:\n{program}");
    }
}
