//! Programs on machines with CPU interfaces of each kind, judged by an abstract GIC.

use doorbell_test_support::guest::program::{Draw, Ends, Kind, Program, Shape, Way, Wired};
use doorbell_test_support::guest::program::{dice, kept};
use doorbell_test_support::suites::{MACHINES, PROGRAMS, STEPS, WIRED_PROGRAMS};

#[test]
fn machines_run_stored_programs_as_an_abstract_gic_allows() {
    for (name, program) in kept() {
        for (kind, way) in Kind::machines().filter(|(kind, way)| kind.suits(*way, &program)) {
            assert_eq!(way.judge(kind, &program), Ok(()), "{name}, {}, {way:?}", kind.name);
        }
        assert_eq!(program.to_string().parse(), Ok(program));
    }
}

#[test]
fn machines_run_random_programs_as_an_abstract_gic_allows() {
    assert_eq!(Kind::machines().count(), MACHINES);
    for (seed, (kind, way)) in (0..PROGRAMS).zip(Kind::machines().cycle()) {
        let shape = Shape { cpus: 3, lpis: 64, is_direct: seed % 5 == 0, wired: None };
        let draw = Draw { shape, shares_lpis: seed % 5 == 1 };
        let program = draw.program(STEPS, &mut dice(seed));
        check(kind, way, seed, program);
    }
}

#[test]
fn machines_run_random_wired_programs_as_an_abstract_gic_allows() {
    // A restore after each step takes long, and list registers are empty while a vCPU sleeps, so
    // most programs run on vCPUs that never sleep.
    let all = Kind::machines().filter(|(kind, way)| kind.has_wired(*way));
    let is_usual = |(kind, way): &(Kind, Way)| {
        *way == Way::Awake || (kind.ends == Ends::Any && *way == Way::Plain)
    };
    let others = all.clone().filter(is_usual).cycle();
    for (seed, (kind, way)) in (0..WIRED_PROGRAMS).zip(all.chain(others)) {
        let (below, ends) = (&mut dice(seed), kind.ends);
        let is_non_secure = ends == Ends::Any && below(2) == 0;
        let bits = if is_non_secure || ends > Ends::Any { 5 + below(4) } else { 4 + below(5) };
        let bits = u8::try_from(bits).unwrap();
        let lpis = 3 * below(2) as usize;
        let wired = Some(Wired { is_non_secure, bits, one_of_n: below(2) == 0, ends });
        let shape = Shape { cpus: 3, lpis, is_direct: lpis > 0, wired };
        let program = Draw { shape, shares_lpis: false }.program(STEPS, below);
        check(kind, way, seed, program);
    }
}

/// Carries out a random program. If it fails, shrinks it and panics with the shortest one.
fn check(kind: Kind, way: Way, seed: u64, mut program: Program) {
    if let Err(problem) = way.judge(kind, &program) {
        program.shrink(|program| way.judge(kind, program).is_err());
        let machine = kind.name;
        panic!("{machine}, {way:?}, {seed}: {problem}; the shortest program:\n{program}");
    }
}
