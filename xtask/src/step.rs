//! The steps of `cargo xtask test`, their count and their summary.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{
    acpi, adopters, api, boards, differential, figures, kvm, lint, machine, newcomer, package,
    qemu, report, rust, size, suites, tests,
};

/// All steps, cheap and telling ones first.
const STEPS: &[Step] = &[
    Step { name: "format", about: "rustfmt's check", run: rust::check_format },
    Step {
        name: "lint",
        about: "house lints: layers, blocks, manifests, orphans, unsafe, orderings, length, \
                words, width",
        run: lint::run,
    },
    Step {
        name: "clippy",
        about: "clippy on the host and for aarch64-unknown-none",
        run: rust::clippy,
    },
    Step { name: "docs", about: "cargo doc, warnings are errors", run: rust::docs },
    Step {
        name: "api",
        about: "each library's public interface, as its list in docs/api says",
        run: api::run,
    },
    Step {
        name: "test",
        about: "unit, property, integration and documentation tests, and every example",
        run: tests::run,
    },
    Step {
        name: "interleavings",
        about: "lock-free code under every interleaving, and for each check a fault that it finds",
        run: |workspace, tally| suites::run(workspace, "interleavings", tally),
    },
    Step {
        name: "package",
        about: "each package, built from its archive alone, with each feature alone",
        run: package::run,
    },
    Step {
        name: "newcomer",
        about: "programs made from the packages' READMEs alone, outside of the repository",
        run: newcomer::run,
    },
    Step {
        name: "machine",
        about: "cargo run --release, and what controllers cost beside each other",
        run: machine::run,
    },
    Step {
        name: "boards",
        about: "the command on real boards' and QEMU's devicetrees",
        run: boards::run,
    },
    Step {
        name: "acpi",
        about: "ACPI tables of QEMU's and ours, by iasl, by devicetrees and by Linux",
        run: acpi::run,
    },
    Step {
        name: "report",
        about: "the page that `doorbell report` writes, in Chromium",
        run: report::run,
    },
    Step {
        name: "bindings",
        about: "the devicetree bindings, by dtschema",
        run: |workspace, tally| suites::run(workspace, "bindings", tally),
    },
    Step {
        name: "qemu",
        about: "the drivers on bare metal, on QEMU's machines with PCI devices",
        run: qemu::run,
    },
    Step {
        name: "size",
        about: "the text of kernels with one kind of MSI controller, within budgets",
        run: size::run,
    },
    Step {
        name: "differential",
        about: "the model against QEMU's GIC and ITS, on the same random scripts",
        run: differential::run,
    },
    Step {
        name: "kvm",
        about: "Linux's KVM for arm64 as the judge of the model, nested in QEMU",
        run: kvm::run,
    },
    Step {
        name: "hypervisor",
        about: "Linux as a guest of the hypervisor, on the model and the drivers, in QEMU",
        run: |workspace, tally| {
            suites::run_hypervisor(workspace, &["--lib", "--test", "hypervisor"], tally)
        },
    },
    Step {
        name: "adopters",
        about: "a foreign monitor without our routes and with them, in KVM nested in QEMU",
        run: adopters::run,
    },
    Step {
        name: "fuzz",
        about: "each fuzz target for ten seconds, one on each CPU",
        run: |workspace, tally| suites::run(workspace, "fuzz", tally),
    },
    Step {
        name: "deny",
        about: "cargo-deny: licences, bans, sources, advisories",
        run: |workspace, tally| suites::run(workspace, "deny", tally),
    },
];

/// Steps that take hours, or an idle machine: only with `--long`, or by name.
const LONG: &[Step] = &[
    Step {
        name: "interleavings-long",
        about: "lock-free code under every interleaving, and every fault that this must find",
        run: |workspace, tally| suites::run_long(workspace, "interleavings", tally),
    },
    Step {
        name: "fuzz-long",
        about: "each fuzz target for ten minutes",
        run: |workspace, tally| suites::run_long(workspace, "fuzz", tally),
    },
    Step {
        name: "differential-long",
        about: "the model against QEMU's GIC and ITS, 100,000 scripts",
        run: differential::run_long,
    },
    Step {
        name: "kvm-long",
        about: "Linux's KVM as the judge, with 60 plans that move between it and the model",
        run: kvm::run_long,
    },
    Step {
        name: "hypervisor-long",
        about: "Linux as a guest of the hypervisor, with 100,000 interrupts, and more vCPUs by MBI",
        run: |workspace, tally| suites::run_hypervisor(workspace, &["--test", "long"], tally),
    },
    Step {
        name: "installer",
        about: "Debian's installer as the hypervisor's guest, up to its first question",
        run: |workspace, tally| suites::run_hypervisor(workspace, &["--test", "installer"], tally),
    },
    Step {
        name: "msrv",
        about: "each package, built by the oldest compiler that it states",
        run: |workspace, tally| suites::run_long(workspace, "msrv", tally),
    },
    Step {
        name: "package-long",
        about: "cargo package: each archive built apart from the others",
        run: package::run_long,
    },
    Step {
        name: "figures",
        about: "the figures of docs/measurements.md, measured and written",
        run: figures::run,
    },
];

/// A part of `cargo xtask test` that can also be run alone.
#[derive(Debug)]
pub(crate) struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Workspace, &mut Tally) -> Result<()>,
}

/// Results of a step's cases: passed, failed and skipped, with the reasons.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Tally {
    pub(crate) fn pass(&mut self, count: usize) {
        self.passed += count;
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        self.failed.push(what.into());
    }

    /// A case that could not be tried here; `why` says what is absent.
    pub(crate) fn skip(&mut self, why: impl Into<String>) {
        self.skipped.push(why.into());
    }

    /// Counts one case by its outcome.
    pub(crate) fn case(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.pass(1),
            Err(error) => self.fail(format!("{name}: {error:#}")),
        }
    }

    /// Adds what another one counted.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }

    pub(crate) fn failures(&self) -> usize {
        self.failed.len()
    }
}

/// All steps, the long ones where they are wanted.
pub(crate) fn all(long: bool) -> Vec<&'static Step> {
    STEPS.iter().chain(if long { LONG } else { &[] }).collect()
}

/// The steps of these names, in their own order.
pub(crate) fn chosen<S: AsRef<str>>(names: &[S]) -> Result<Vec<&'static Step>> {
    let mut steps = all(true);
    for name in names.iter().map(AsRef::as_ref) {
        let known = steps.iter().any(|step| step.name == name);
        known
            .then_some(())
            .with_context(|| format!("no step `{name}`; cargo xtask test --list names them"))?;
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

/// Runs `steps`, prints the summary and, alone on the last line, the total.
pub(crate) fn run(workspace: &Workspace, steps: &[&Step]) -> ExitCode {
    let mut rows = Vec::new();
    for step in steps {
        println!("── {}: {}", step.name, step.about);
        let start = Instant::now();
        let mut tally = Tally::default();
        if let Err(error) = (step.run)(workspace, &mut tally) {
            tally.fail(format!("{error:#}"));
        }
        rows.push((step.name, tally, start.elapsed().as_secs_f32()));
    }
    summarize(&rows)
}

/// Prints the rows of a summary, the skipped and failed checks, and the total.
pub(crate) fn summarize(rows: &[(&str, Tally, f32)]) -> ExitCode {
    println!("\n{:17} {:>7} {:>7} {:>7} {:>8}", "step", "passed", "failed", "skipped", "seconds");
    for (name, tally, seconds) in rows {
        let (passed, failed, skipped) = (tally.passed, tally.failed.len(), tally.skipped.len());
        println!("{name:17} {passed:7} {failed:7} {skipped:7} {seconds:8.1}");
    }
    for (name, tally, _) in rows {
        tally.skipped.iter().for_each(|why| println!("skipped: {name}: {why}"));
        tally.failed.iter().for_each(|what| println!("FAILED: {name}: {what}"));
    }
    let sum =
        |count: fn(&Tally) -> usize| rows.iter().map(|(_, tally, _)| count(tally)).sum::<usize>();
    let failed = sum(|tally| tally.failed.len());
    let (passed, skipped) = (sum(|tally| tally.passed), sum(|tally| tally.skipped.len()));
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
