//! The kernel that the project's README shows, at work on this machine.

use crate::check;
use crate::devices::Kind;
use crate::machine::Machine;
use crate::report::{Outcome, Report, Verdict};
use crate::skip;
use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

pub(super) fn run(machine: &'static Machine, report: &mut Report) {
    report.case("the README's kernel serves a disk's admin queue", || serve(machine));
}

fn serve(machine: &'static Machine) -> Outcome {
    if machine.smmu.is_some() {
        skip!("an SMMU stands before the ITS");
    }
    let Some(kernel) = machine.readme.as_ref() else { skip!("no ITS") };
    let found = machine.functions.iter().find_map(|function| {
        let kind = Kind::of(function).filter(|kind| kind.name == "nvme")?;
        Some((function, kind.drive(function)))
    });
    let Some((function, disk)) = found else { skip!("no NVMe disk") };
    let runs = Arc::new(AtomicU64::new(0));
    let (handled, counted) = (disk.clone(), runs.clone());
    let (store, _) = function.store()?;
    let nvme = kernel.probe(function.requester, store, move |_| {
        handled.handle(0);
        counted.fetch_add(1, Ordering::Release);
    });
    let nvme = nvme.map_err(|error| Verdict::Failed(format!("{error}")))?;
    disk.start()?;
    let started = runs.load(Ordering::Acquire);
    check!(started > 0, "its queues were made without an interrupt");
    check!(disk.fire(0)?, "no command");
    check!(runs.load(Ordering::Acquire) > started, "no handler ran for a command");
    drop(nvme.admin);
    Ok(nvme.device.tear_down()?)
}
