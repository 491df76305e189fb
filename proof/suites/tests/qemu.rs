//! Runs the drivers on bare metal, on QEMU's machines with PCI devices: the test bench on each
//! machine, the smallest kernels, and the cost of an interrupt.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use doorbell_harness::qemu::Version;
use doorbell_harness::qemu::cost::LIMIT;
use doorbell_harness::suite::{self, Case};
use doorbell_suites::fetched::PREPARATION;
use doorbell_suites::qemu::bench::{self, Bench};
use doorbell_suites::qemu::{cost, imx8mp, installed, minimal, virt};

fn main() -> ExitCode {
    let mut all = Version::in_turn(cases);
    let limit = PREPARATION + imx8mp::LIMIT;
    all.push(Case::new("chained on QEMU's i.MX 8M Plus", limit, imx8mp::judge));
    all.push(Case::new("what a chained interrupt costs", limit, imx8mp::judge_cost));
    all.push(on(&virt::IMX8MP, imx8mp::VERSION));
    all.push(Case::new("beside an installed QEMU", PREPARATION, installed::judge));
    suite::main(all)
}

/// Returns the case that runs the test bench on a machine.
fn on(machine: &'static virt::Machine, version: Version) -> Case {
    let name = format!("{} on {version:?}'s QEMU", machine.name);
    let bench = Bench { machine, version, load: machine.load };
    Case::new(name, PREPARATION + bench::LIMIT, move || bench.judge())
}

fn cases(version: Version) -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(virt::ALL.iter().map(|machine| on(machine, version)));
    for kernel in &minimal::KERNELS {
        for &machine in kernel.machines {
            let name = format!("{} on {} of {version:?}'s QEMU", kernel.name, machine.join(" "));
            let judge = move || kernel.judge(machine, version);
            cases.push(Case::new(name, PREPARATION + minimal::LIMIT, judge));
        }
    }
    let name = format!("what an interrupt costs on {version:?}'s QEMU");
    cases.push(Case::new(name, PREPARATION + LIMIT, move || cost::judge(version)));
    cases
}
