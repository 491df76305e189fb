//! Programs on machines with CPU interfaces of each kind, judged by an abstract GIC.

use doorbell_test_support::guest::program::{Draw, Ends, Kind, Program, Shape, Way, Wired};
use doorbell_test_support::guest::program::{dice, kept};
use doorbell_test_support::suites::{MACHINES, PROGRAMS, STEPS, WIRED_PROGRAMS};
use proptest::test_runner::Config;
use std::collections::HashSet;

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
    // `cargo xtask check` lowers proptest's number of cases, and so that of these programs.
    let programs = WIRED_PROGRAMS * u64::from(Config::default().cases) / 256;
    for (seed, (kind, way)) in (0..programs).zip(all.chain(others)) {
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

/// The guest's first steps, for interrupt N.
const SETUP: &str = "wired 3 0 0 5 0 2\ngroups 1 1\nwaker 0 0\npmr 0 255\nigrpen1 0 1\n\
                     isenabler 0 N 0\nigroupr 0 N 1\nipriorityr 0 N 0\n";

/// Operations on interrupt N. The first 4 are for SPIs. In the last one, the guest handles the
/// interrupt, and its device lowers the line.
const OPERATIONS: [&str; 23] = [
    "message N 1",
    "message N 0",
    "irouter N 1",
    "irouter N 0",
    "icfgr 0 N 1",
    "icfgr 0 N 0",
    "line 0 N 1",
    "line 0 N 0",
    "icenabler 0 N 0",
    "isenabler 0 N 0",
    "igroupr 0 N 0",
    "igroupr 0 N 1",
    "ipriorityr 0 N 64",
    "ipriorityr 0 N 0",
    "link 0 N 0",
    "link 0 N 1",
    "ispendr 0 N 0",
    "icpendr 0 N 0",
    "isactiver 0 N 0",
    "icactiver 0 N 0",
    "read iar1 0",
    "end 0 1",
    "read iar1 0\nline 0 N 0\nend 0 1",
];

/// Carries out every sequence of operations on an interrupt, up to a length. Of the sequences that
/// reach the same state, only the first one is continued.
fn check_every_sequence(kind: Kind, way: Way, intid: u32, length: usize) {
    let operations = &OPERATIONS[if intid < 32 { 4 } else { 0 }..];
    let mut known = HashSet::new();
    let mut last = vec![SETUP.to_owned()];
    for _ in 0..length {
        let longer = |text: String| operations.iter().map(move |it| format!("{text}{it}\n"));
        let longer = last.into_iter().flat_map(longer);
        let is_new = |text: &String| {
            let program = text.replace('N', &intid.to_string()).parse();
            let program = program.unwrap_or_else(|line: String| panic!("no step: {line}"));
            known.insert(check(kind, way, 0, program))
        };
        last = longer.filter(is_new).collect();
    }
}

#[test]
fn machines_run_every_short_sequence_on_linked_interrupts() {
    let [software, lists, few] = [0, 1, 5].map(|number| Kind::ALL[number]);
    for (intid, length) in [(27, 5), (64, 4)] {
        check_every_sequence(software, Way::Plain, intid, length + 1);
        check_every_sequence(lists, Way::Awake, intid, length);
        check_every_sequence(few, Way::Awake, intid, length);
    }
}

/// Carries out a program, and returns the state that it leaves. If it fails, shrinks it and panics
/// with the shortest one.
fn check(kind: Kind, way: Way, seed: u64, mut program: Program) -> String {
    way.reach(kind, &program).unwrap_or_else(|problem| {
        program.shrink(|program| way.judge(kind, program).is_err());
        let machine = kind.name;
        panic!("{machine}, {way:?}, {seed}: {problem}; the shortest program:\n{program}");
    })
}
