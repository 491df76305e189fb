//! KVM's local APICs.

use super::outcome::{Failure, Outcome};
use kvm_bindings::{KVM_API_VERSION, KVM_CAP_X2APIC_API};
use kvm_ioctls::{Cap, Kvm, VcpuFd};

/// Offset of the Interrupt Request Register's eight words, 16 bytes apart (Intel SDM, table "Local
/// APIC Register Address Map").
const IRR: usize = 0x200;
/// Offset of the Spurious Interrupt Vector Register, whose bit 8 enables the APIC.
const SPURIOUS: usize = 0xf0;

/// Returns the first feature that the trials need and KVM lacks, or `None` if KVM has all of them.
pub(crate) fn absent() -> Option<String> {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => return Some(format!("/dev/kvm cannot be used: {error}")),
    };
    if kvm.get_api_version() != KVM_API_VERSION.cast_signed() {
        return Some("KVM has another API version".into());
    }
    let needed =
        [(Cap::Irqchip, "no in-kernel local APICs"), (Cap::SignalMsi, "no KVM_SIGNAL_MSI")];
    let missing = needed.into_iter().find(|(cap, _)| !kvm.check_extension(*cap));
    if let Some((_, what)) = missing {
        return Some(format!("KVM has {what}"));
    }
    if kvm.check_extension_raw(KVM_CAP_X2APIC_API.into()) & 3 != 3 {
        return Some("KVM has no 32-bit destination IDs".into());
    }
    None
}

/// Enables a CPU's local APIC, because a disabled APIC accepts no messages.
///
/// # Errors
/// Returns an error if KVM returns one.
pub fn enable(vcpu: &VcpuFd) -> Outcome {
    let mut apic = vcpu.get_lapic()?;
    apic.regs[SPURIOUS + 1] |= 1;
    Ok(vcpu.set_lapic(&apic)?)
}

/// Returns the vectors that have arrived at a CPU since the last call, in ascending order.
///
/// # Errors
/// Returns an error if KVM returns one.
pub fn take_arrived(vcpu: &VcpuFd) -> Result<Vec<u32>, Failure> {
    let mut apic = vcpu.get_lapic()?;
    let is_set = |vector: &u32| {
        let (word, bit) = ((*vector / 32) as usize, vector % 32);
        apic.regs[IRR + word * 16 + bit as usize / 8].to_le_bytes()[0] >> (bit % 8) & 1 != 0
    };
    let arrived: Vec<_> = (0..256).filter(is_set).collect();
    if arrived.is_empty() {
        // Writing the state back would discard interrupts that arrive in between.
        return Ok(arrived);
    }
    for word in 0..8 {
        apic.regs[IRR + word * 16..][..4].fill(0);
    }
    vcpu.set_lapic(&apic)?;
    Ok(arrived)
}
