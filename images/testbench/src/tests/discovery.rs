//! What was found is what QEMU was told to be: the runner states its options on the command line.

use crate::check;
use crate::machine::{Machine, its_controller};
use crate::report::{Outcome, Report};
use crate::smp;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use gic_driver::SecurityView;
use image_rt::cpu;
use msi_types::Cpu;

pub(super) fn run(machine: &'static Machine, expected: &str, report: &mut Report) {
    for (name, wanted) in expected.split_whitespace().filter_map(|word| word.split_once('=')) {
        if matches!(name, "load" | "cost") {
            continue;
        }
        report.case(&format!("discovery: {name} is {wanted}"), || compare(machine, name, wanted));
    }
    report.case("discovery: firmware's description has no findings", || {
        let findings = &machine.description.findings;
        check!(findings.is_empty(), "{findings:?}");
        Ok(())
    });
    report.case("every CPU is started and takes interrupts", || {
        machine.gic.cpus().filter(|cpu| *cpu != Cpu::new(0)).try_for_each(|cpu| smp::turn_on(machine, cpu))
    });
}

fn compare(machine: &Machine, name: &str, wanted: &str) -> Outcome {
    let found = find(machine, name);
    check!(found == wanted, "found {found}");
    Ok(())
}

fn find(machine: &Machine, name: &str) -> String {
    match name {
        "el" => format!("{:?}", cpu::level()).to_lowercase(),
        "cpus" => {
            machine.gic.cpus().filter(|cpu| machine.gic.redistributor(*cpu).is_some()).count().to_string()
        }
        "gic" => revision(machine),
        "its" => if its_controller(&machine.description).is_some() { "on" } else { "off" }.into(),
        "security" => match machine.gic.distributor().view() {
            SecurityView::Single => "one",
            SecurityView::NonSecure => "non-secure",
            SecurityView::Secure => "secure",
        }
        .into(),
        "functions" => {
            let mut ids: Vec<_> =
                machine.functions.iter().map(|f| format!("{:04x}:{:04x}", f.vendor, f.device)).collect();
            ids.sort();
            ids.join(",")
        }
        _ => "nothing by this name".into(),
    }
}

/// GICv4 has virtual LPIs at each redistributor.
fn revision(machine: &Machine) -> String {
    let redistributor = machine.gic.redistributor_frames(Cpu::new(0));
    let virtual_lpis = redistributor.is_ok_and(|frames| frames.typer().vlpis());
    if virtual_lpis { "4" } else { "3" }.into()
}
