//! The steps of `cargo xtask test`, their tiers, their results, and their summary.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use doorbell_harness::workspace::Workspace;

use crate::suites::{Part, Suite};
use crate::tally::{self, Row, Tally};
use crate::{forwarded, lint, package, programs, rust};

/// The commands that run a step, each with all steps of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// `cargo xtask test`: for newcomers, takes minutes.
    First,
    /// `--all`, which CI runs: everything that has found a fault of the product.
    All,
    /// `--long`: hours, an idle machine, or faults that are planted in proofs.
    Long,
}

/// All steps, in their order. A command runs the steps of [`Tier::First`] first, and then the
/// others.
const STEPS: &[Step] = &[
    task("test", "unit, property, integration and doc tests, and examples", programs::run_all)
        .first(),
    suite("newcomer", "programs made from the packages' READMEs alone").first(),
    suite("machine", "cargo run --release, and the guide's monitor").first(),
    suite("exhaustive", "every state of small machines, against an abstract GIC")
        .begun(&["one-event"]),
    suite("qemu", "the drivers on bare metal, on QEMU's machines with PCI devices")
        .begun(&["gicv3-8-cpus"]),
    suite("hypervisor", "Linux as a guest of the hypervisor, in QEMU")
        .begun(&["a newcomer's program on 1", "Stable's kernel on 2 vCPUs of 2 CPUs with Mbi on"]),
    suite("differential", "the model against QEMU's GIC and ITS, on the same random scripts")
        .begun(&["Backports's QEMU, CPUs that take interrupts"]),
    task("format", "rustfmt's check", rust::check_format),
    task("lint", "house lints (see the table in CONTRIBUTING.md)", lint::run),
    task("clippy", "clippy on the host and for aarch64-unknown-none", rust::clippy),
    task("docs", "every package's documentation, warnings are errors", rust::docs),
    suite("interleavings", "lock-free code under a scheduler"),
    suite("direct-injection", "every state of the protocol of GICv4's direct injection, by spin"),
    suite("boards", "the command on real boards' and QEMU's devicetrees"),
    suite("acpi", "ACPI tables of QEMU and of this project, by iasl, devicetrees and Linux"),
    suite("page", "the report and the browser inspector in Chromium, against the command"),
    suite("bindings", "our additions to the kernel's GICv3 binding, by dtschema"),
    suite("instructions", "instructions and locked operations of the hot paths, within budgets"),
    suite("size", "the text of kernels with one kind of MSI controller, within budgets"),
    suite("kvm", "nested KVM: the judge of the model, and Alioth with and without our routes"),
    suite("soak", "random programs on real threads against the model, 20,000 messages"),
    suite("fuzz", "each fuzz target for two seconds"),
    suite("arceos", "ArceOS, a foreign kernel, with its own interrupt drivers and ours"),
    suite("deny", "cargo-deny: licenses, bans, sources, advisories"),
    task("test-slow", "tests that simulate whole machines for long", programs::run_slow).long(),
    suite("interleavings-faults", "faults in lock-free code that its schedules must find").long(),
    suite("exhaustive-faults", "faults in the model and the proof that the states must show")
        .long(),
    longer("interleavings-long", "ten times as many schedules", "interleavings"),
    longer("exhaustive-long", "every state of two events that are masked and moved", "exhaustive"),
    longer("fuzz-long", "each fuzz target for five minutes", "fuzz"),
    longer("soak-long", "2 million messages", "soak"),
    longer("differential-long", "100,000 scripts", "differential"),
    longer(
        "boards-long",
        "all devicetrees of Debian's kernels, their sources, and overlays",
        "boards",
    ),
    longer("qemu-long", "each machine and kernel on each QEMU", "qemu"),
    longer(
        "live",
        "the command in Debian's kernels with faulty firmware, by Linux's interrupts",
        "live",
    ),
    longer(
        "kvm-long",
        "60 plans that migrate between each KVM and the model, and Alioth on x86",
        "kvm",
    ),
    longer("hypervisor-long", "100,000 interrupts, and more vCPUs by MBI", "long"),
    longer("arceos-long", "the same, optimized, and the cost of an interrupt", "arceos"),
    suite("msrv", "each package, built by the oldest compiler that it supports").long(),
    task(
        "package",
        "each package, from its archive alone, with each of its features",
        package::run,
    )
    .long(),
    task("figures", "the figures of docs/measurements.md", forwarded::figures).long(),
];

/// A part of `cargo xtask test` that can also be run alone.
#[derive(Debug)]
pub(crate) struct Step {
    name: &'static str,
    about: &'static str,
    tier: Tier,
    /// The cases that the first tier runs, by parts of their names; this step's tier runs the
    /// others.
    begun: &'static [&'static str],
    work: Work,
}

/// Function that runs a step.
type Task = fn(&Workspace, &mut Tally) -> Result<()>;

#[derive(Debug)]
enum Work {
    Task(Task),
    Suite(Suite),
}

const fn step(name: &'static str, about: &'static str, work: Work) -> Step {
    Step { name, about, tier: Tier::All, begun: &[], work }
}

const fn task(name: &'static str, about: &'static str, task: Task) -> Step {
    step(name, about, Work::Task(task))
}

const fn suite(name: &'static str, about: &'static str) -> Step {
    step(name, about, Work::Suite(Suite { name, is_long: false }))
}

/// Returns a step of the cases of a suite that take hours or need an idle machine.
const fn longer(name: &'static str, about: &'static str, suite: &'static str) -> Step {
    step(name, about, Work::Suite(Suite { name: suite, is_long: true })).long()
}

impl Step {
    const fn first(self) -> Self {
        Self { tier: Tier::First, ..self }
    }

    const fn begun(self, begun: &'static [&'static str]) -> Self {
        Self { begun, ..self }
    }

    const fn long(self) -> Self {
        Self { tier: Tier::Long, ..self }
    }

    fn run(&self, part: Part, workspace: &Workspace, tally: &mut Tally) -> Result<()> {
        match &self.work {
            Work::Task(task) => task(workspace, tally),
            Work::Suite(suite) => suite.run(part, workspace, tally),
        }
    }
}

/// A step, and the part of it that is run.
pub(crate) type Planned = (&'static Step, Part);

/// Returns what a command runs, in order.
pub(crate) fn of_tier(tier: Tier) -> Vec<Planned> {
    let first = STEPS.iter().filter_map(|step| match (step.tier, step.begun) {
        (Tier::First, _) => Some((step, Part::Whole)),
        (_, []) => None,
        (_, cases) => Some((step, Part::Only(cases))),
    });
    let others = STEPS.iter().filter(|step| step.tier != Tier::First && step.tier <= tier);
    first.chain(others.map(|step| (step, Part::Without(step.begun)))).collect()
}

/// Returns the steps with these names, in the steps' own order.
pub(crate) fn chosen<S: AsRef<str>>(names: &[S]) -> Result<Vec<Planned>> {
    for name in names.iter().map(AsRef::as_ref) {
        let known = STEPS.iter().any(|step| step.name == name);
        known.then_some(()).with_context(|| {
            format!("unknown step `{name}`; `cargo xtask test --list` lists the steps")
        })?;
    }
    let is_meant = |step: &&Step| names.iter().any(|name| name.as_ref() == step.name);
    Ok(STEPS.iter().filter(is_meant).map(|step| (step, Part::Whole)).collect())
}

/// Prints every step's name, purpose and tier.
pub(crate) fn list() {
    for Step { name, about, tier, begun, .. } in STEPS {
        let tier = match (tier, begun) {
            (Tier::First, _) => "",
            (Tier::All, []) => " (--all)",
            (Tier::All, _) => " (in part; --all)",
            (Tier::Long, _) => " (--long)",
        };
        println!("{name:20} {about}{tier}");
    }
}

/// Runs `steps`, then prints the summary and, alone on the last line, the total.
pub(crate) fn run(workspace: &Workspace, steps: &[Planned]) -> ExitCode {
    let rows = steps.iter().map(|(step, part)| {
        timed(step.name, step.about, |tally| step.run(*part, workspace, tally))
    });
    tally::summarize(&rows.collect::<Vec<_>>())
}

/// Runs a step, and returns its row of the summary.
pub(crate) fn timed(
    name: &'static str,
    about: &str,
    run: impl FnOnce(&mut Tally) -> Result<()>,
) -> Row {
    println!("── {name}: {about}");
    let (start, mut tally) = (Instant::now(), Tally::default());
    if let Err(error) = run(&mut tally) {
        tally.fail(format!("{error:#}"));
    }
    (name, tally, start.elapsed().as_secs_f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(planned: &[Planned]) -> Vec<&'static str> {
        planned.iter().map(|(step, _)| step.name).collect()
    }

    #[test]
    fn each_tier_begins_with_the_tier_before() {
        let [first, all, long] = [Tier::First, Tier::All, Tier::Long].map(of_tier);
        let [first, all, long] = [&first, &all, &long].map(|tier| names(tier));
        assert!(all.starts_with(&first) && all.len() > first.len());
        assert!(all.iter().all(|name| long.contains(name)) && long.len() > all.len());
    }

    #[test]
    fn the_longest_run_has_all_parts_of_each_step() {
        let planned = of_tier(Tier::Long);
        for step in STEPS {
            let parts: Vec<_> = planned.iter().filter(|(it, _)| it.name == step.name).collect();
            assert_eq!(parts.len(), 1 + usize::from(!step.begun.is_empty()), "{}", step.name);
        }
    }

    #[test]
    fn an_unknown_step_is_refused() {
        assert!(chosen(&["weather"]).is_err());
        assert_eq!(names(&chosen(&["lint", "test"]).unwrap()), ["test", "lint"]);
    }
}
