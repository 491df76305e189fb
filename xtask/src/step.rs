//! The steps of `cargo xtask test`, their results, and their summary.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::tally::{self, Tally};
use crate::{forwarded, lint, package, programs, rust, suites};
use doorbell_harness::workspace::Workspace;

/// All steps, starting with cheap and informative ones.
const STEPS: &[Step] = &[
    task("format", "rustfmt's check", rust::check_format),
    task("lint", "house lints (see the table in CONTRIBUTING.md)", lint::run),
    task("clippy", "clippy on the host and for aarch64-unknown-none", rust::clippy),
    task("docs", "every package's documentation, warnings are errors", rust::docs),
    task("test", "unit, property, integration and doc tests, and examples", programs::run_all),
    suite("interleavings", "lock-free code under a scheduler, and faults that must be found"),
    suite(
        "exhaustive",
        "every state of small machines, against an abstract GIC, and planted faults",
    ),
    suite("direct-injection", "every state of the protocol of GICv4's direct injection, by spin"),
    suite("newcomer", "programs made from the packages' READMEs alone"),
    suite("machine", "cargo run --release, and a comparison of controllers' costs"),
    suite("boards", "the command on real boards' and QEMU's devicetrees"),
    suite("acpi", "ACPI tables of QEMU and of this project, by iasl, devicetrees and Linux"),
    suite("page", "the report and the browser inspector in Chromium, against the command"),
    suite("bindings", "our additions to the kernel's GICv3 binding, by dtschema"),
    suite("qemu", "the drivers on bare metal, on QEMU's machines with PCI devices"),
    suite("size", "the text of kernels with one kind of MSI controller, within budgets"),
    suite("instructions", "instructions and locked operations of the hot paths, within budgets"),
    suite("differential", "the model against QEMU's GIC and ITS, on the same random scripts"),
    suite("kvm", "nested KVM: the judge of the model, and Alioth with and without our routes"),
    suite("hypervisor", "Linux as a guest of the hypervisor, in QEMU"),
    suite("soak", "random programs on real threads against the model, 20,000 messages"),
    suite("deny", "cargo-deny: licenses, bans, sources, advisories"),
];

/// Steps that take hours or need an idle machine. These steps run only with `--long`, or by name.
const LONG: &[Step] = &[
    task("test-slow", "tests that simulate whole machines for long", programs::run_slow),
    long("interleavings-long", "the same, with ten times as many schedules", "interleavings"),
    long("exhaustive-long", "every state of two events that are masked and moved", "exhaustive"),
    long("fuzz", "each fuzz target for ten minutes", "fuzz"),
    long("soak-long", "2 million messages", "soak"),
    long("differential-long", "100,000 scripts", "differential"),
    long(
        "boards-long",
        "all devicetrees of Debian's kernels, their sources, and overlays",
        "boards",
    ),
    long("qemu-long", "each machine and kernel on each QEMU", "qemu"),
    long(
        "live",
        "the command in Debian's kernels with faulty firmware, by Linux's interrupts",
        "live",
    ),
    long(
        "kvm-long",
        "60 plans that migrate between each KVM and the model, and Alioth on x86",
        "kvm",
    ),
    long("hypervisor-long", "100,000 interrupts, and more vCPUs by MBI", "long"),
    long("arceos", "ArceOS, a foreign kernel, with its own interrupt drivers and ours", "arceos"),
    long("msrv", "each package, built by the oldest compiler that it supports", "msrv"),
    task(
        "package",
        "each package, from its archive alone, with each of its features",
        package::run,
    ),
    task("figures", "the figures of docs/measurements.md", forwarded::figures),
];

/// A part of `cargo xtask test` that can also be run alone.
#[derive(Debug)]
pub(crate) struct Step {
    name: &'static str,
    about: &'static str,
    work: Work,
}

/// Function that runs a step.
type Task = fn(&Workspace, &mut Tally) -> Result<()>;

#[derive(Debug)]
enum Work {
    Task(Task),
    Suite(suites::Suite),
}

const fn task(name: &'static str, about: &'static str, task: Task) -> Step {
    Step { name, about, work: Work::Task(task) }
}

const fn suite(name: &'static str, about: &'static str) -> Step {
    Step { name, about, work: Work::Suite(suites::Suite::Ordinary(name)) }
}

const fn long(name: &'static str, about: &'static str, suite: &'static str) -> Step {
    Step { name, about, work: Work::Suite(suites::Suite::Long(suite)) }
}

/// Returns all steps, including the long ones if `long` is set.
pub(crate) fn all(long: bool) -> Vec<&'static Step> {
    STEPS.iter().chain(if long { LONG } else { &[] }).collect()
}

/// Returns the steps with these names, in the steps' own order.
pub(crate) fn chosen<S: AsRef<str>>(names: &[S]) -> Result<Vec<&'static Step>> {
    let mut steps = all(true);
    for name in names.iter().map(AsRef::as_ref) {
        let known = steps.iter().any(|step| step.name == name);
        known.then_some(()).with_context(|| {
            format!("unknown step `{name}`; `cargo xtask test --list` lists the steps")
        })?;
    }
    steps.retain(|step| names.iter().any(|name| name.as_ref() == step.name));
    Ok(steps)
}

/// Prints every step's name and purpose.
pub(crate) fn list() {
    for step in all(true) {
        let long = if LONG.iter().any(|other| other.name == step.name) { " (--long)" } else { "" };
        println!("{:17} {}{long}", step.name, step.about);
    }
}

/// Runs `steps`, then prints the summary and, alone on the last line, the total.
pub(crate) fn run(workspace: &Workspace, steps: &[&Step]) -> ExitCode {
    let mut rows = Vec::new();
    for step in steps {
        println!("── {}: {}", step.name, step.about);
        let start = Instant::now();
        let mut tally = Tally::default();
        let outcome = match &step.work {
            Work::Task(task) => task(workspace, &mut tally),
            Work::Suite(suite) => suite.run(workspace, &mut tally),
        };
        if let Err(error) = outcome {
            tally.fail(format!("{error:#}"));
        }
        rows.push((step.name, tally, start.elapsed().as_secs_f32()));
    }
    tally::summarize(&rows)
}
