//! Every state of small machines with an ITS or with direct LPIs. A machine of the model takes each
//! possible step from each state that it can reach, and restores that state before each step. An
//! abstract GIC must allow the results: the acknowledged interrupts, the failed commands and the
//! dropped messages. A step that signals an interrupt to a sleeping vCPU must wake it. After each
//! step, the machine also continues without a restore, and the vCPUs take all interrupts.
//!
//! All scopes have two vCPUs. An ITS has one device with one or two events, and two collections, of
//! which each may be unmapped or mapped to either vCPU. The steps of these scopes are all commands
//! except MAPI, each followed by SYNC, and messages and acknowledgments. In two scopes, the guest
//! also changes the LPIs' configurations in memory, and INV and INVALL make the changes effective.
//! Direct LPIs are set, cleared, masked and invalidated at either redistributor.
//!
//! | scope | LPIs | LPIs are masked |
//! |---|---|---|
//! | `one-event` | 1, by an ITS | yes |
//! | `two-events` | 2, by an ITS | no |
//! | `two-masked-events` | 2, by an ITS | yes |
//! | `direct-lpis` | 2, at each redistributor | yes |
//!
//! A complete exploration proves that no sequence of these steps, of any length, has a result that
//! the abstract GIC forbids if the machine is saved and restored after each step. Without restores,
//! a sequence is only covered for its last step and for the interrupts that are then taken. Nothing
//! is shown about more vCPUs, devices or LPIs, about priorities, list registers or disabled LPIs,
//! nor about concurrency.
//!
//! States are not reduced by symmetry, because a fault may treat vCPUs or events unequally.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a machine that can't be programmed is a fault")]

mod explore;
mod machine;
mod scope;

use doorbell_test_support::guest::program::{Kind, Program, Step, Way};
use explore::Exploration;
use scope::Scope;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs};

/// Explores the scope that the first argument names, for at most as many minutes as the second
/// argument says.
fn main() -> ExitCode {
    let mut arguments = env::args().skip(1).peekable();
    if arguments.next_if_eq("replay").is_some() {
        return replay(&arguments.next().unwrap_or_default());
    }
    let scope = arguments.next().and_then(|name| Scope::named(&name));
    let minutes = arguments.next().map_or(Ok(60), |minutes| minutes.parse());
    let (Some(scope), Ok(minutes)) = (scope, minutes) else {
        let names = Scope::ALL.map(|(name, _)| name).join("|");
        eprintln!("usage: doorbell-exhaustive {names} [MINUTES]");
        eprintln!("       doorbell-exhaustive replay FILE");
        return ExitCode::from(2);
    };
    let start = Instant::now();
    let mut exploration = Exploration::new(scope);
    let finding = exploration.run(Duration::from_mins(minutes));
    println!("{} ({} s)", exploration.summary(), start.elapsed().as_secs());
    if let Some(finding) = finding {
        // The model was restored before each step, but not before those of the probe.
        let restored = finding.steps.into_iter().flat_map(|step| [Step::Restore, step]);
        let steps = restored.chain(scope.probe()).collect();
        let mut program = Program { shape: scope.shape(), steps };
        // Machines in software must still show the fault in two ways.
        let is_software = |(kind, ..): &(Kind, Way, String)| kind.name == Kind::SOFTWARE.name;
        program.shrink(|program| find(program).filter(is_software).nth(1).is_some());
        println!("not allowed: {}\n{program}", finding.problem);
        return ExitCode::FAILURE;
    }
    if exploration.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns the problems that other machines have with a program.
fn find(program: &Program) -> impl Iterator<Item = (Kind, Way, String)> {
    let machines = Kind::machines().filter(|(kind, way)| kind.suits(*way, program));
    machines.filter_map(|(kind, way)| Some((kind, way, way.judge(kind, program).err()?)))
}

/// Replays a finding, and names the machines that also have the fault.
fn replay(file: &str) -> ExitCode {
    let program = fs::read_to_string(file).unwrap().parse().unwrap();
    let print = |(kind, way, problem): &(Kind, Way, String)| {
        println!("found by {way:?} with {}: {problem}", kind.name);
    };
    if find(&program).inspect(print).count() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
