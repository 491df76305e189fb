//! Tests that discovery finds the machine that QEMU was configured to provide. The runner states
//! its options on the command line.

use crate::controller::Controller;
use crate::machine::Machine;
use crate::report::{Outcome, Report, Verdict, check};
use crate::smp;
use crate::soft_device::SoftDevice;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use gic_driver::SecurityView;
use gic_firmware::Severity;
use image_rt::cpu;
use image_rt::pci::{self, Function};
use msi_types::pci::msi::CAPABILITY_ID;
use msi_types::{Cpu, Storage};

pub(super) fn run(machine: &'static Machine, expected: &str, report: &mut Report) {
    for (name, wanted) in expected.split_whitespace().filter_map(|word| word.split_once('=')) {
        if matches!(name, "load" | "cost" | "tables" | "restarts") {
            continue;
        }
        report.case(&format!("discovery: {name} is {wanted}"), || compare(machine, name, wanted));
    }
    report.case("discovery: firmware's description has no mistakes", || {
        let mut findings = machine.description.findings.iter();
        let mistake = findings.find(|finding| finding.severity() > Severity::Note);
        check!(mistake.is_none(), "{mistake:?}");
        Ok(())
    });
    report.case("a device stores its own messages only on bare metal", || store_in_device(machine));
    report.case("every CPU is started and takes interrupts", || {
        machine
            .cpus()
            .filter(|cpu| *cpu != Cpu::new(0))
            .try_for_each(|cpu| smp::turn_on(machine, cpu))
    });
}

/// Attaches a device that stores its messages where a hypervisor cannot trap them.
fn store_in_device(machine: &Machine) -> Outcome {
    let is_guest = machine.description.hypervisor.is_some();
    match SoftDevice::with_storage(machine, Storage::Device, 1, |_, _| {}) {
        Err(Verdict::Skipped(why)) => Err(Verdict::Skipped(why)),
        Err(Verdict::Failed(why)) if is_guest && why.contains("Surroundings") => Ok(()),
        Err(other) => Err(other),
        Ok(device) => {
            check!(!is_guest, "a guest's device sends virtual messages");
            device.tear_down()
        }
    }
}

fn compare(machine: &Machine, name: &str, wanted: &str) -> Outcome {
    let found = find(machine, name);
    check!(found == wanted, "found {found}");
    Ok(())
}

fn find(machine: &Machine, name: &str) -> String {
    match name {
        "el" => format!("{:?}", cpu::level()).to_lowercase(),
        "cpus" => match machine.gic() {
            Controller::V3(gic) => {
                gic.cpus().filter(|cpu| gic.redistributor_frames(*cpu).is_ok()).count()
            }
            Controller::V2(gic) => gic.cpus().count(),
        }
        .to_string(),
        "gic" => revision(machine),
        "v2m" | "direct-lpi" | "imsi-rx" | "mbi" | "its" => driven(machine, name).into(),
        "iommu" => iommu(machine).into(),
        "security" => match machine.gic().v3().map(|gic| gic.distributor().view()) {
            Some(SecurityView::Single) => "one",
            Some(SecurityView::NonSecure) => "non-secure",
            Some(SecurityView::Secure) => "secure",
            None => "not for this image to see",
        }
        .into(),
        "functions" => functions(machine, |_| true),
        "msi" => functions(machine, |function| pci::capability(function, CAPABILITY_ID).is_some()),
        _ => "nothing by this name".into(),
    }
}

/// Returns the vendor and device IDs of the functions that `are` selects.
fn functions(machine: &Machine, are: impl Fn(&&Function) -> bool) -> String {
    let functions = machine.functions.iter().filter(are);
    let mut ids: Vec<_> =
        functions.map(|f| format!("{:04x}:{:04x}", f.vendor(), f.device())).collect();
    ids.sort();
    ids.join(",")
}

/// Returns "on" if a controller of this kind is in use.
fn driven(machine: &Machine, kind: &str) -> &'static str {
    let driven = machine.irqchip.controllers();
    let mut kinds =
        driven.filter_map(|(index, _)| Some(&machine.description.controller(index)?.kind));
    if kinds.any(|found| found.to_string() == kind) { "on" } else { "off" }
}

/// Returns the kind of IOMMU that is in use, if it agrees with firmware's `iommu-map`.
fn iommu(machine: &Machine) -> &'static str {
    let mapped = machine.description.hosts.iter().any(|host| !host.iommu.map.is_empty());
    match (mapped, &machine.smmu) {
        (true, Some(_)) => "smmuv3",
        (false, None) => "none",
        (true, None) => "one that is not in use",
        (false, Some(_)) => "one for nobody",
    }
}

/// Returns the version of the GIC. On a GICv4, each redistributor has virtual LPIs.
fn revision(machine: &Machine) -> String {
    let Controller::V3(gic) = machine.gic() else { return "2".into() };
    let redistributor = gic.redistributor_frames(Cpu::new(0));
    let virtual_lpis = redistributor.is_ok_and(|frames| frames.typer().vlpis());
    if virtual_lpis { "4" } else { "3" }.into()
}
