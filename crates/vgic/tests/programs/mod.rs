//! Programs on machines with CPU interfaces of each kind, judged by an abstract GIC.

use super::model::half::{ExitPolicy, Half};
use doorbell_test_support::guest::program::{Draw, Program, Shape, Way, dice, kept};
use doorbell_test_support::guest::{Interface, Kicks};
use doorbell_test_support::suites::{MACHINES, PROGRAMS, STEPS};
use gic_arch::icc::SysRegEncoding;
use msi_types::{DeviceId, MsiMessage};
use std::sync::Arc;
use vgic::{Paused, Sleep, Vcpu};

/// A vCPU with `COUNT` list registers. It leaves its guest when it is kicked, and after each access
/// of the guest if it `EXITS`.
pub(crate) struct Listed<const COUNT: u8, const EXITS: bool = false>(pub(crate) Half);

impl<const COUNT: u8, const EXITS: bool> Interface for Listed<COUNT, EXITS> {
    fn of(vcpu: Vcpu, kicks: &Arc<Kicks>) -> Self {
        let exits = if EXITS { ExitPolicy::Always } else { ExitPolicy::Needed };
        let kicked = kicks.flag(vcpu.cpu().index());
        Self(Half::lists(vcpu, COUNT, exits, kicked))
    }

    fn read(&mut self, register: SysRegEncoding) -> u64 {
        self.0.read_sysreg(register).unwrap()
    }

    fn write(&mut self, register: SysRegEncoding, value: u64) {
        self.0.write_sysreg(register, value).unwrap();
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

    fn is_signaled(&mut self) -> bool {
        self.0.inputs().any()
    }

    fn attend(&mut self) {
        self.0.attend();
    }

    fn list_message(&mut self, from: DeviceId, message: MsiMessage) -> bool {
        self.0.list_message(from, message)
    }
}

/// A kind of vCPU, and its judgment of a program.
type Kind = (&'static str, fn(Way, &Program) -> Result<(), String>);

const KINDS: [Kind; 4] = [
    ("software", Way::judge::<Vcpu>),
    ("16 list registers", Way::judge::<Listed<16>>),
    ("1 list register", Way::judge::<Listed<1>>),
    ("4 list registers, with an exit after each access", Way::judge::<Listed<4, true>>),
];

fn machines() -> impl Iterator<Item = (Kind, Way)> + Clone {
    KINDS.into_iter().flat_map(|kind| Way::ALL.map(|way| (kind, way)))
}

#[test]
fn machines_carry_out_kept_programs_as_an_abstract_gic_allows() {
    for (name, program) in kept() {
        for ((kind, judge), way) in machines() {
            assert_eq!(judge(way, &program), Ok(()), "{name}, {kind}, {way:?}");
        }
        assert_eq!(program.to_string().parse(), Ok(program));
    }
}

#[test]
fn machines_carry_out_random_programs_as_an_abstract_gic_allows() {
    assert_eq!(machines().count(), MACHINES);
    for (seed, ((kind, judge), way)) in (0..PROGRAMS).zip(machines().cycle()) {
        let shape = Shape { cpus: 3, lpis: 64, is_direct: seed % 5 == 0 };
        let draw = Draw { shape, shares_lpis: seed % 5 == 1 };
        let mut program = draw.program(STEPS, &mut dice(seed));
        if let Err(problem) = judge(way, &program) {
            program.shrink(|program| judge(way, program).is_err());
            panic!("{kind}, {way:?}, {seed}: {problem}; the shortest program:\n{program}");
        }
    }
}
