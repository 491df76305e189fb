//! The programs that `cargo xtask` forwards to this package.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use doorbell_harness::suite::{self, Turns};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{command, process};

use crate::boards::findings;
use crate::differential::{self, Effort, LONG_CASES};
use crate::instructions::{self, Record};
use crate::qemu::terminal;
use crate::{figures, kvm, page, size, soak};

/// Program of the compared crate that needs another compiler, if it has been built.
const PEER: &str = "peers/arm-vgic/target/release/arm-vgic-peer";

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Program {
    /// Compares the model with QEMU's GIC and ITS, and plants faults that the comparison must find
    Differential {
        /// Number of cases of each family
        #[arg(long, default_value_t = LONG_CASES)]
        cases: u32,
        /// Seed of all random choices
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Measures the figures of docs/measurements.md and writes them; the machine should be idle
    Figures,
    /// Writes the numbers of findings of `doorbell lint` in Debian's devicetrees to
    /// docs/findings.txt, for review before they are committed
    Findings,
    /// Counts the instructions of the hot paths and writes their budgets in docs/measurements.md
    Instructions,
    /// Lets Linux's KVM for arm64, nested in QEMU, judge more of the model than the suite does
    Kvm {
        /// Number of plans that migrate between KVM and the model
        #[arg(long, default_value_t = kvm::LONG_PLANS)]
        plans: u32,
    },
    /// Builds target/doorbell.html, which inspects firmware in a browser without a network
    Page,
    /// Runs the bare-metal test bench on one of QEMU's machines, and prints its output
    Qemu(terminal::Wanted),
    /// Runs the random programs of `proof/soak`, built with optimization
    #[command(disable_help_flag = true)]
    Soak {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Runs the program that the second word names, with the other words as its arguments.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    let workspace = workspace::this()?;
    match Program::parse_from(words) {
        Program::Differential { cases, seed } => {
            return Ok(suite::run(
                Vec::new(),
                Turns::Parallel,
                differential::cases_of(Effort::long(cases, seed)),
            ));
        }
        Program::Figures => measure_figures(workspace)?,
        Program::Findings => findings::accept(workspace)?,
        Program::Instructions => {
            let table = Record::measure(workspace)?.markdown();
            figures::write(&figures::page(workspace), instructions::TABLE, &table)?;
        }
        Program::Kvm { plans } => kvm::judge_plans(plans)?,
        Program::Page => println!("{}", page::build(workspace)?.display()),
        Program::Qemu(wanted) => return terminal::run(&wanted),
        Program::Soak { arguments } => {
            let status = soak::program(workspace, true)?.args(arguments).status()?;
            return Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures all figures, and writes them.
fn measure_figures(workspace: &Workspace) -> Result<()> {
    let bench = bench(workspace)?;
    let size = size::markdown(workspace)?;
    let counts = Record::measure(workspace)?.markdown();
    let page = figures::page(workspace);
    figures::write(&page, "bench", &bench)?;
    figures::write(&page, instructions::TABLE, &counts)?;
    figures::write(&page, "size", &size)
}

fn bench(workspace: &Workspace) -> Result<String> {
    let command = command::build(workspace)?;
    let mut bench = process::command(&command.to_string_lossy(), &workspace.root);
    bench.args(["bench", "--markdown"]);
    let peer = workspace.root.join(PEER);
    if peer.exists() {
        bench.arg("--peer").arg(peer);
    }
    process::capture(&mut bench)
}
