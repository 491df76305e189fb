//! All tests, in the order in which they run.

mod controller;
mod cost;
mod devices;
mod discovery;
mod explain;
mod hotplug;
mod intx;
mod load;
mod lpis;
mod priorities;
mod restart;
mod sgis;
mod suspend;
mod translated;

use crate::machine::Machine;
use crate::report::Report;
use image_rt::Boot;

/// Runs all tests. If the runner requests it, restarts the bench after them: the later runs only
/// test the devices.
pub(crate) fn run(machine: &'static Machine, expected: &str, boot: Boot, report: &mut Report) {
    if has_word(expected, "cost=watched") {
        return cost::watched(machine, report);
    }
    discovery::run(machine, expected, report);
    let restarts = has_word(expected, "restarts=on");
    if restarts {
        report.case("no vPE of an earlier run is resident", || restart::no_vpe(machine));
    }
    devices::run(machine, report);
    if image_rt::restart::count() == 0 {
        run_once(machine, expected, report);
    }
    if restarts && image_rt::restart::count() < restart::RESTARTS {
        let failed = restart::restart(machine, boot, report);
        report.case("the bench restarts", || failed);
    }
}

/// Runs the tests of the first run only.
fn run_once(machine: &'static Machine, expected: &str, report: &mut Report) {
    report.cases(machine, sgis::TESTS);
    translated::run(machine, report);
    intx::run(machine, report);
    controller::run(machine, tables_of(expected), report);
    report.cases(machine, priorities::TESTS);
    report.cases(machine, lpis::TESTS);
    load::run(machine, load_of(expected), report);
    report.cases(machine, hotplug::TESTS);
    suspend::run(machine, tables_of(expected), report);
}

/// Returns the location of the ITS's mappings, as stated by the runner.
fn tables_of(arguments: &str) -> suspend::Tables {
    if has_word(arguments, "tables=inside") {
        suspend::Tables::Inside
    } else {
        suspend::Tables::InMemory
    }
}

/// Returns the number of interrupts for the load test, as requested by the runner.
fn load_of(arguments: &str) -> u64 {
    let wanted = arguments.split_whitespace().find_map(|word| word.strip_prefix("load="));
    wanted.and_then(|count| count.parse().ok()).unwrap_or(20_000)
}

fn has_word(arguments: &str, wanted: &str) -> bool {
    arguments.split_whitespace().any(|word| word == wanted)
}
