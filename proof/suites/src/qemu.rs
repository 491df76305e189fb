//! Runs the bare-metal images on QEMU's machines with PCI devices, so that the drivers are tested
//! against another project's GIC and devices: the test bench on each machine, the smallest kernels,
//! and the cost of an interrupt.

mod bench;
mod board;
mod cost;
pub(crate) mod imx8mp;
mod installed;
mod minimal;
pub(crate) mod terminal;
mod virt;

use doorbell_harness::qemu::Version;
use doorbell_harness::suite::Case;

use self::bench::Bench;

pub(crate) fn cases() -> Vec<Case> {
    let mut all = Version::in_turn(cases_on);
    all.push(Case::of("what a chained interrupt costs", imx8mp::judge_cost));
    all.push(on(&virt::IMX8MP, imx8mp::VERSION));
    all.push(Case::of("beside an installed QEMU", installed::judge));
    all
}

/// Returns the case that runs the test bench on a machine.
fn on(machine: &'static virt::Machine, version: Version) -> Case {
    let name = format!("{} on {version:?}'s QEMU", machine.name);
    let bench = Bench { machine, version, load: machine.load };
    Case::of(name, move || bench.judge())
}

fn cases_on(version: Version) -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(virt::ALL.iter().map(|machine| on(machine, version)));
    for kernel in &minimal::KERNELS {
        for &machine in kernel.machines {
            let name = format!("{} on {} of {version:?}'s QEMU", kernel.name, machine.join(" "));
            let judge = move || kernel.judge(machine, version);
            cases.push(Case::of(name, judge));
        }
    }
    let name = format!("what an interrupt costs on {version:?}'s QEMU");
    cases.push(Case::of(name, move || cost::judge(version)));
    cases
}
