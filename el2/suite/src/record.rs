//! Limits the exits of a guest's operations, which the hypervisor prints (`--exits`).

use anyhow::Result;
use doorbell_facts::Fact;
use doorbell_harness::process;
use doorbell_harness::suite::{Case, Shared};

use crate::board::{LIMIT, Record};
use crate::built;
use crate::costs::Costs;
use crate::microbench::{self, EACH};

/// Number of operations of each kind that `el2/microbench` performs.
pub(crate) const TURNS: u64 = 201;
/// Maximum number of exits of an operation. An SGI causes one exit when it is sent, and one when
/// the other vCPU is kicked. An LPI from an INT command causes a write of `GITS_CWRITER` and a read
/// of `GITS_CREADR`. A device's MSI and the timer each cause one exit, for the physical interrupt.
const EXITS: &[(&str, u64)] =
    &[("hypercall", 1), ("register", 1), ("ipi", 2), ("lpi", 2), ("msi", 1), ("timer", 1)];

/// Lists the cases, which share one run of the guest.
pub(crate) fn cases() -> Vec<Case> {
    static RUN: Shared<Costs> = Shared::new();
    let case = |(operation, limit): &'static (&str, u64)| {
        let name = format!("a guest's {operation} takes at most {limit} exits");
        built::case(name, LIMIT, || RUN.get(watch)?.judge_exits(operation, *limit))
    };
    EXITS.iter().map(case).collect()
}

fn watch() -> Result<Costs> {
    let mut qemu = microbench::command(EACH, Record { exits: true, ..Record::default() }, None)?;
    let mut costs = Costs::default();
    process::watch(&mut qemu, LIMIT, |line| {
        if let Some(fact) = Fact::parse(line) {
            costs.fact(fact);
        }
    })?;
    Ok(costs)
}
