//! Peers: other implementations of the same operations.

mod program;

pub(crate) use program::{Program, probes as program};

use crate::probe::{Fallible, Probe, each, floor};
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Measures a plain implementation that looks up a message's mapping, adds the LPI to a pending
/// list, and removes it again for the vCPU. A lock protects ordered maps with 64k mappings; one LPI
/// is pending at a time, and priorities are not supported. No product uses this implementation; it
/// shows the cost of a straightforward design.
pub(crate) fn locked_list() -> Probe {
    struct State {
        mappings: BTreeMap<(u32, u32), u32>,
        pending: BTreeSet<(u8, u32)>,
    }
    let mappings = (0..1u32 << 16).map(|at| ((at / 32, at % 32), 8192 + at)).collect();
    let state = Mutex::new(State { mappings, pending: BTreeSet::new() });
    let repeats = 4096u32;
    floor("peer-mutex-btreemap", move || {
        let start = Instant::now();
        for at in 0..repeats {
            let event = at.wrapping_mul(2_654_435_761) >> 16;
            {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(lpi) = state.mappings.get(&(event / 32, event % 32)).copied() {
                    state.pending.insert((0xa0, lpi));
                }
            }
            black_box(state.lock().unwrap_or_else(PoisonError::into_inner).pending.pop_first());
        }
        Ok(each(start.elapsed(), repeats))
    })
}

/// Name of the case.
pub(crate) const KVM: &str = "peer-kvm-signal-msi";

/// Measures `KVM_SIGNAL_MSI` to a local APIC in which the vector is already pending: the system
/// call and KVM's routing.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn kvm() -> Fallible<Probe> {
    use kvm_bindings::kvm_msi;
    let failed = |what: &str, error: kvm_ioctls::Error| format!("{what}: {error}");
    let kvm = kvm_ioctls::Kvm::new().map_err(|error| failed("/dev/kvm", error))?;
    let machine = kvm.create_vm().map_err(|error| failed("a virtual machine", error))?;
    machine.create_irq_chip().map_err(|error| failed("its interrupt controllers", error))?;
    let vcpu = machine.create_vcpu(0).map_err(|error| failed("its vCPU", error))?;
    let message = kvm_msi { address_lo: 0xfee0_0000, data: 0x40, ..kvm_msi::default() };
    Ok(floor(KVM, move || {
        let _kept = &vcpu;
        let repeats = 256;
        let start = Instant::now();
        for _ in 0..repeats {
            black_box(machine.signal_msi(message))?;
        }
        Ok(each(start.elapsed(), repeats))
    }))
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
pub(crate) fn kvm() -> Fallible<Probe> {
    Err("only for an x86 Linux host".into())
}
