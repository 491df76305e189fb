//! Runs Hermit, another project's unikernel, as a guest. It drives the GICv3 with an old version of
//! `arm-gic`, and uses the physical timer.
//!
//! Hermit sends itself an SGI for each task switch, and counts the interrupts that it takes. When
//! the program in `el2/foreign/hermit` ends, Hermit prints its counters. They must equal the
//! hypervisor's, although the guest is moved.

mod image;

use anyhow::{Context, Result, ensure};

use crate::board::{LIMIT, MOVES};
use crate::controller::Controller;
use crate::foreign::Kernel;
use crate::output::Output;

pub(crate) const KERNEL: Kernel = Kernel {
    name: "Hermit",
    image: image::flat,
    // The program's boot loader passes 56 MiB to Hermit.
    memory: 64,
    devices: &[],
    limit: LIMIT,
    ends_after: None,
    stays_alone: false,
    // Hermit 0.11 uses only the first CPU of an Arm machine.
    machines: &[(Controller::Its, 1, 1)],
    long_machines: &[(Controller::Its, 4, 2)],
    judge: |case| {
        let output = Output::within(&mut case.command()?, case.kernel.limit)?;
        judge(&output, case.vcpus)
    },
};
/// Line that the program prints when each of its four tasks has slept 200 times.
const SLEPT: &str = "guest: slept 800";
/// Minimum number of timer interrupts. One interrupt can wake several tasks.
const TIMER: u64 = 200;
/// Minimum number of SGIs: each task yields ten times after each sleep.
const SGIS: u64 = 8_000;
/// End of the only permitted fault: this version of `arm-gic` writes the registers of all possible
/// SPIs, regardless of `GICD_TYPER`.
const FAULT: &str = "no such interrupt (SPI 288)";

fn judge(output: &Output, vcpus: u8) -> Result<()> {
    let cpus = output.after("[INFO] Found ")?;
    ensure!(cpus == format!("{vcpus} cpus!"), "Hermit found {cpus}");
    ensure!(output.lines.iter().any(|line| line == SLEPT), "the program did not print `{SLEPT}`");
    output.judge(MOVES)?;
    let faults = output.faults();
    ensure!(faults.iter().all(|fault| fault.ends_with(FAULT)), "{faults:?}");
    for (name, kind, least) in [("[Timer]: ", "PPI", TIMER), ("[Reschedule]: ", "SGI", SGIS)] {
        let guest: u64 = output.after(name)?.parse().context("no count of interrupts")?;
        let hypervisor = output.taken(kind).context("the hypervisor reported no counts")?;
        ensure!(
            guest == hypervisor,
            "Hermit took {guest} {kind}s, the hypervisor counted {hypervisor}"
        );
        ensure!(guest >= least, "{guest} {kind}s, not {least}");
        eprintln!("Hermit took {guest} {kind}s");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::{MOVED, OFF, judges, output, taken};

    /// A fault that this version of Hermit causes, and one that it must not cause.
    const KNOWN: &str =
        r#"{"hypervisor":{"fault":{"guest":0,"fault":"no such interrupt (SPI 288)"}}}"#;
    const OTHER: &str =
        r#"{"hypervisor":{"fault":{"guest":0,"fault":"GICD_IROUTER40: no such PE"}}}"#;

    #[test]
    fn hermits_counters_must_equal_the_hypervisors() {
        let (timer, sgis) = (taken("PPI", 358), taken("SGI", 8808));
        let good = [
            "[0][INFO] Found 2 cpus!",
            SLEPT,
            "[0][INFO] [0][Reschedule]: 8808",
            "[0][INFO] [0][Timer]: 358",
            OFF,
            MOVED,
            &timer,
            &sgis,
        ];
        let bad = ["[0][INFO] [0][Timer]: 357", "[0][INFO] [0][Reschedule]: 8809", OTHER];
        judges(&good, &bad, |output| judge(output, 2));
        judge(&output(&[&good[..], &[KNOWN]].concat()), 2).unwrap();
    }
}
