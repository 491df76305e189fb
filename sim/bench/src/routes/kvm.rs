//! Routing in KVM: setting whole tables, the only change that the kernel accepts.

use crate::probe::{Fallible, Probe, each, floor};
use kvm_bindings::{KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_msi};
use kvm_ioctls::{Kvm, VmFd};
use std::time::Instant;

const DOORBELL: u32 = 0xfee0_0000;

fn machine() -> Fallible<VmFd> {
    let machine = Kvm::new()?.create_vm()?;
    machine.create_irq_chip()?;
    Ok(machine)
}

/// Returns a table with `routes` messages. The data of the first message is `first`.
fn table(routes: u32, first: u32) -> Fallible<KvmIrqRouting> {
    let entry = |gsi| {
        let data = if gsi == 0 { first } else { 0x40 };
        let msi =
            kvm_irq_routing_msi { address_lo: DOORBELL, data, ..kvm_irq_routing_msi::default() };
        let u = kvm_bindings::kvm_irq_routing_entry__bindgen_ty_1 { msi };
        let type_ = kvm_bindings::KVM_IRQ_ROUTING_MSI;
        kvm_irq_routing_entry { gsi, type_, u, ..kvm_irq_routing_entry::default() }
    };
    let entries: Vec<_> = (0..routes).map(entry).collect();
    KvmIrqRouting::from_entries(&entries).map_err(|error| format!("{error:?}").into())
}

/// Measures switching between two tables that differ in one route.
pub(super) fn update(name: &'static str, routes: u32) -> Fallible<Probe> {
    let (machine, tables) = (machine()?, [table(routes, 0x40)?, table(routes, 0x41)?]);
    Ok(floor(name, move || {
        let start = Instant::now();
        for table in &tables {
            machine.set_gsi_routing(table)?;
        }
        Ok(each(start.elapsed(), 2))
    }))
}
