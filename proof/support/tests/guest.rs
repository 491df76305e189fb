//! What programs say about commands, wrong machines and random steps, typed by hand: a fault in the
//! guest, the generator or the abstract GIC could otherwise hide from every machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use doorbell_test_support::guest::Kicks;
use doorbell_test_support::guest::program::{
    Bench, Draw, Ends, Observation, Program, Shape, Step, Target, Wired, dice,
};
use gic_arch::its::CommandErrorReason;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

fn parse(steps: &str) -> Program {
    format!("its 2 2\n{steps}").parse().unwrap()
}

/// Commands, and their doublewords by the figures of IHI 0069 §5.3.
const ENCODINGS: [(&str, [u64; 4]); 14] = [
    ("mapd 5 3", [0x0000_0005_0000_0008, 2, 0x8000_0000_4035_0000, 0]),
    ("unmapd 5", [0x0000_0005_0000_0008, 0, 0, 0]),
    ("mapc 3 2", [0x0000_0000_0000_0009, 0, 0x8000_0000_0002_0003, 0]),
    ("unmapc 3", [0x0000_0000_0000_0009, 0, 3, 0]),
    ("mapti 5 2 8195 3", [0x0000_0005_0000_000a, 0x0000_2003_0000_0002, 3, 0]),
    ("mapi 5 8195 3", [0x0000_0005_0000_000b, 0x0000_0000_0000_2003, 3, 0]),
    ("movi 5 2 3", [0x0000_0005_0000_0001, 2, 3, 0]),
    ("discard 5 2", [0x0000_0005_0000_000f, 2, 0, 0]),
    ("clear 5 2", [0x0000_0005_0000_0004, 2, 0, 0]),
    ("int 5 2", [0x0000_0005_0000_0003, 2, 0, 0]),
    ("inv 5 2", [0x0000_0005_0000_000c, 2, 0, 0]),
    ("invall 3", [0x0000_0000_0000_000d, 0, 3, 0]),
    ("movall 1 2", [0x0000_0000_0000_000e, 0, 0x1_0000, 0x2_0000]),
    ("sync 2", [0x0000_0000_0000_0005, 0, 0x2_0000, 0]),
];

#[test]
fn a_program_line_encodes_the_command_that_it_names() {
    for (line, words) in ENCODINGS {
        let program = parse(line);
        let [Step::Command(command)] = *program.steps else { panic!("{line} is no command") };
        assert_eq!((command.encode(), program.to_string()), (words, format!("its 2 2\n{line}\n")));
    }
}

/// A machine that makes these observations.
struct Scripted(VecDeque<Observation>);

impl Target for Scripted {
    fn take(&mut self, step: Step) -> Result<Observation, String> {
        let last = if matches!(step, Step::Handle { .. }) {
            Observation::Acknowledged(None)
        } else {
            Observation::RefusedPosts(0)
        };
        Ok(self.0.pop_front().unwrap_or(last))
    }
}

/// Maps event n of device 0 to LPI 8192 + n in collection 0, and collection n to vCPU n.
const MAPPED: &str = "mapd 0 1, mapc 0 0, mapc 1 1, mapti 0 0 8192 0, mapti 0 1 8193 0";

/// Judges steps after [`MAPPED`]. A step may state its observation; otherwise a command is executed
/// and a message makes an interrupt pending.
fn judge(steps: &str) -> Result<(), String> {
    let (mut lines, mut observed) = (Vec::new(), VecDeque::new());
    for step in format!("{MAPPED}, {steps}").split(", ") {
        let (line, says) = step.split_once(" = ").unwrap_or((step, ""));
        let step = parse(line).steps[0];
        lines.push(step);
        observed.push_back(match (step, says) {
            (Step::Handle { .. }, lpi) => Observation::Acknowledged(lpi.parse().ok()),
            (Step::Send { .. }, says) => Observation::Sent(says != "dropped"),
            (Step::Command(_), "refused") => Observation::Refused(None),
            (Step::Command(_), "unmapped") => {
                Observation::Refused(Some(CommandErrorReason::UnmappedDevice))
            }
            (Step::Command(_), _) => Observation::Executed,
            _ => Observation::Nothing,
        });
    }
    Program { steps: lines, ..parse("") }.judge(&mut Scripted(observed))
}

const ALLOWED: [&str; 8] = [
    "send 0 0, send 0 1, handle 0 = 8193, handle 0 = 8192",
    "send 0 0, movi 0 0 1, handle 0 = none, handle 1 = 8192",
    "send 0 0, mapc 0 1, handle 1 = 8192",
    "int 0 0, movall 0 1, handle 1 = 8192",
    "configure 8192 160, send 0 0, handle 0 = 8192",
    "configure 8192 160, send 0 0, handle 0 = none, inv 0 0, handle 0 = none",
    "enable-its 0, send 0 0 = dropped",
    "int 1 0 = unmapped, send 0 2 = dropped",
];

/// Steps of which only the last one is wrong.
const WRONG: [&str; 27] = [
    "handle 0 = 8192",
    "send 0 0, handle 0 = none",
    "send 0 0, handle 1 = 8192",
    "send 0 0, handle 0 = 8192, handle 0 = 8192",
    "send 0 0, handle 0 = 8193",
    "send 0 0 = dropped",
    "send 0 2",
    "enable-its 0, send 0 0",
    "int 0 0, handle 0 = none",
    "int 0 2",
    "int 0 0 = refused",
    "int 0 2 = unmapped",
    "send 0 0, clear 0 0, handle 0 = 8192",
    "send 0 0, discard 0 0, handle 0 = 8192",
    "send 0 0, movi 0 0 1, handle 0 = 8192",
    "send 0 0, movi 0 0 1, handle 1 = none",
    "send 0 0, mapc 0 1, handle 0 = 8192",
    "send 0 0, movall 0 1, handle 0 = 8192",
    "send 0 0, movall 0 1, handle 1 = none",
    "configure 8192 160, inv 0 0, send 0 0, handle 0 = 8192",
    "configure 8192 160, invall 0, send 0 0, handle 0 = 8192",
    "configure 8192 160, invallr 0, send 0 0, handle 0 = 8192",
    "configure 8192 160, invlpir 0 8192, configure 8192 161, inv 0 0, send 0 0, handle 0 = none",
    "configure 8193 65, inv 0 1, send 0 0, send 0 1, handle 0 = 8192",
    "send 0 0, enable-lpis 0 0, handle 0 = 8192",
    "enable-lpis 0 0, send 0 0",
    "enable-lpis 0 0, enable-lpis 0 1, send 0 0, handle 0 = none",
];

#[test]
fn a_wrong_result_is_reported_at_its_step() {
    for steps in ALLOWED {
        assert_eq!(judge(steps), Ok(()), "{steps}");
    }
    for steps in WRONG {
        let last = format!("step {},", MAPPED.split(", ").chain(steps.split(", ")).count());
        let problem = judge(steps).expect_err(steps);
        assert!(problem.starts_with(&last), "{steps}: {problem}");
    }
}

#[test]
fn a_step_that_signals_an_interrupt_kicks_its_sleeping_vcpu() {
    let program = parse("mapd 0 1\nmapc 1 1\nmapti 0 0 8192 1\nsend 0 0");
    for is_kicked in [true, false] {
        let mut bench = Bench::new(program.shape);
        let results = program.steps.iter().map(|step| {
            if !is_kicked {
                bench.machine.kicks = Arc::new(Kicks::new(2));
            }
            bench.take(*step).is_ok()
        });
        assert_eq!(results.collect::<Vec<_>>(), [true, true, true, is_kicked]);
        assert_eq!([0, 1].map(|cpu| bench.machine.kicks.of(cpu)), [0, is_kicked.into()]);
    }
}

/// A machine that changes one of its answers.
struct Liar {
    bench: Bench,
    answers: usize,
    lie: usize,
    /// Changes a value that was read.
    change: fn(u32) -> u32,
}

impl Target for Liar {
    fn take(&mut self, step: Step) -> Result<Observation, String> {
        let observed = self.bench.take(step)?;
        self.answers += 1;
        if self.answers != self.lie {
            return Ok(observed);
        }
        Ok(match observed {
            Observation::Read(value) => Observation::Read((self.change)(value)),
            Observation::Sent(is_pending) => Observation::Sent(!is_pending),
            _ => Observation::Undefined,
        })
    }
}

/// Another interrupt or input, and no interrupt instead of any.
const LIES: [fn(u32) -> u32; 3] =
    [|value| value ^ 1, |value| value ^ 2, |value| if value == 1023 { 33 } else { 1023 }];

/// vCPU 1 takes the edge-triggered SPI 32 before SPI 33, and is preempted by the former while it
/// handles the latter. It deactivates them by their INTIDs.
const TAKEN: &str = "wired 3 0 0 5 0 0\nwaker 0 0\nwaker 1 0\ngroups 0 1\nigrpen1 0 1\n\
                     igrpen1 1 1\npmr 0 248\nctlr 1 2\nigroupr 0 32 1\nigroupr 0 33 1\n\
                     icfgr 0 32 1\nipriorityr 0 33 16\nirouter 32 1\nirouter 33 1\n\
                     isenabler 0 32 0\nisenabler 0 33 0\nline 0 33 1\nmessage 32 1\npmr 1 248\n\
                     read iar1 1\nend 1 1\ndir 1 32\nread iar1 1\nmessage 32 1\nread iar1 1\n\
                     end 1 1\ndir 1 32\nend 1 1\ndir 1 33";

#[test]
fn any_false_answer_about_a_wired_interrupt_is_refused() {
    let program: Program = TAKEN.parse().unwrap();
    let judge = |lie, change| {
        let mut liar = Liar { bench: Bench::new(program.shape), answers: 0, lie, change };
        (program.judge(&mut liar), liar.answers)
    };
    let (result, answers) = judge(0, LIES[0]);
    assert_eq!(result, Ok(()));
    for (lie, change) in (1..=answers).flat_map(|lie| LIES.map(|change| (lie, change))) {
        assert!(judge(lie, change).0.is_err(), "answer {lie}");
    }
}

/// The steps of random programs. A step's line also has its vCPUs, INTIDs or registers, or the
/// results of the command (without `OutOfRange`).
const DRAWN: [&str; 56] = [
    "bpr0 0 1 2",
    "bpr1 0 1 2",
    "clear Device Event Ok UnmappedCollection UnmappedDevice UnmappedInterrupt",
    "clrlpir 0 1 2",
    "configure",
    "ctlr 0 1 2",
    "decline 0 1 2",
    "dir 0 1 2",
    "discard Device Event Ok UnmappedDevice UnmappedInterrupt",
    "enable-its 0 1",
    "enable-lpis 0 1 2",
    "end 0 1 2",
    "eoir0 0 1 2",
    "eoir1 0 1 2",
    "groups 0 1",
    "handle 0 1 2",
    "icactiver 0 1 2",
    "icenabler 0 1 2",
    "icfgr 0 1 2",
    "icpendr 0 1 2",
    "igroupr 0 1 2",
    "igrpen0 0 1 2",
    "igrpen1 0 1 2",
    "int Device Event Ok UnmappedCollection UnmappedDevice UnmappedInterrupt",
    "inv Device Event Ok UnmappedCollection UnmappedDevice UnmappedInterrupt",
    "invall Collection Ok UnmappedCollection",
    "invallr 0 1 2",
    "invlpir 0 1 2",
    "ipriorityr 0 1 2",
    "irouter 32 33 4096 4127 64 95",
    "isactiver 0 1 2",
    "isenabler 0 1 2",
    "ispendr 0 1 2",
    "line 0 1 2",
    "link 0 1 2",
    "mapc Collection Ok ProcessorNumber",
    "mapd Device IttSize Ok",
    "mapi Event Ok",
    "mapti Collection Device Event Ok PhysicalId UnmappedDevice",
    "message 0 1 1023 1055 1056 1087 15 16 27 31 32 33 4096 4127 64 8200 95 96",
    "movall Ok ProcessorNumber",
    "movi Collection Device Event Ok UnmappedCollection UnmappedDevice UnmappedInterrupt",
    "pmr 0 1 2",
    "post unknown",
    "read iar0 iar1",
    "refire 0 1 2",
    "reset 0 1 2",
    "restore",
    "send",
    "setlpir 0 1 2",
    "sgi0r 0 1 2",
    "sgi1r 0 1 2",
    "sync Ok ProcessorNumber",
    "unmapc Ok",
    "unmapd Ok",
    "waker 0 1 2",
];

#[test]
fn random_programs_contain_every_step_and_result() {
    let mut drawn: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for seed in 0..120 {
        let is_direct = seed % 5 == 0;
        let wired = Wired { is_non_secure: false, bits: 5, one_of_n: true, ends: Ends::Any };
        let wired = (seed >= 60).then_some(wired);
        let lpis = if wired.is_none() { 64 } else { 3 * usize::from(is_direct) };
        let shape = Shape { cpus: 3, lpis, is_direct, wired };
        let draw = Draw { shape, shares_lpis: seed % 5 == 1 };
        let mut gic = shape.reference();
        for step in draw.program(120, &mut dice(seed)).steps {
            let line = step.to_string();
            let result = match step {
                Step::Command(command) => match gic.execute(command) {
                    Ok(()) => "Ok".into(),
                    Err(reason) => format!("{reason:?}").replace("OutOfRange", ""),
                },
                Step::Post(_) | Step::Send { .. } | Step::Configure { .. } => String::new(),
                _ => line.split(' ').nth(1).unwrap_or_default().to_owned(),
            };
            let name = line.split(' ').next().unwrap_or_default().to_owned();
            drawn.entry(name).or_default().insert(result);
        }
    }
    let lines = drawn.into_iter().map(|(name, results)| {
        let all = results.into_iter().filter(|result| !result.is_empty());
        all.fold(name, |line, result| format!("{line} {result}"))
    });
    assert_eq!(lines.collect::<Vec<_>>(), DRAWN);
}
