//! Measures the cost of an interrupt.

use crate::devices::handler_address;
use crate::machine::Machine;
use crate::report::{Report, check, tell};
use crate::rig::Rig;
use alloc::format;
use doorbell_facts::WatchedFact;
use image_rt::{console, cpu};

/// Number of interrupts whose instructions QEMU logs, and time limit in milliseconds for the runner
/// to turn the log on.
const WATCHED: usize = 16;
const WATCHER_PATIENCE: u64 = 60_000;

/// Reads from a disk; each read causes one interrupt. No other test runs, and the runner makes QEMU
/// log every instruction after this test has reported that it is ready.
pub(super) fn watched(machine: &'static Machine, report: &mut Report) {
    report.case("reads, with somebody watching", || {
        let rig = Rig::of(machine, "nvme")?;
        tell(WatchedFact::Ready { handler: format!("{:x}", handler_address()).into() });
        check!(
            cpu::wait_until(WATCHER_PATIENCE, || console::read().is_some()),
            "the runner did not start watching"
        );
        for _ in 0..WATCHED {
            rig.fire(1, rig.handles[1].effective_affinity())?;
        }
        tell(WatchedFact::Done);
        rig.tear_down()
    });
}
