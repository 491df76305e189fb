//! Machines that suspend to RAM and resume under load, losing all registers each time.

use crate::embedded;
use doorbell_machine::{
    BuildOptions, Disturbance, LpiDisabling, Report, RunOptions, build, run, simulate,
};
use std::num::NonZeroU16;

const ALONE: &[Disturbance] = &[Disturbance::Moves, Disturbance::Suspensions];

fn disturbed(name: &str, lpi_disabling: LpiDisabling, disturbances: &[Disturbance]) -> [Report; 2] {
    // Some endpoints don't support moves to another CPU, so a suspend succeeds more often if there
    // are fewer CPUs.
    let cpus = NonZeroU16::new(3);
    let options = BuildOptions { lpi_disabling, cpus, ..BuildOptions::default() };
    let run_options = RunOptions { messages: 40, seed: 3, disturbances: disturbances.into() };
    let machine = || build(&embedded(name), &options).unwrap();
    let on_threads = run(machine(), &run_options, &mut |_| {}).unwrap();
    [on_threads, simulate(machine(), &run_options).unwrap()]
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn no_interrupt_is_lost_or_spurious_across_suspensions() {
    for name in ["harbour", "lagoon", "estuary", "cove", "hyperv"] {
        for disturbances in [ALONE, &Disturbance::ALL] {
            let reports = disturbed(name, LpiDisabling::Possible, disturbances);
            let suspended = reports.iter().map(|report| report.totals.suspended).sum::<u64>();
            assert!(suspended > 0, "{name} stays awake");
            for report in reports {
                let totals = report.totals;
                assert!(totals.is_clean(), "{name}: {totals:?}");
                assert_eq!(totals.sent, totals.vectors * 40, "{name}");
            }
        }
    }
}

/// Pending LPIs are lost with the registers, and the drivers resend them, so a handler may run
/// without a message.
#[test]
fn messages_survive_suspensions_that_lose_pending_lpis() {
    for report in disturbed("harbour", LpiDisabling::Impossible, ALONE) {
        let totals = report.totals;
        assert!(totals.lost == 0 && totals.suspended > 0, "{totals:?}");
        assert_eq!(totals.sent, totals.vectors * 40);
    }
}
