//! Configurations for machines that KVM can have.

use crate::revision::{IIDR, INVALIDATION};
use vgic::VgicConfig;
use vgic::its::ItsConfig;

/// Number of private INTIDs.
const PRIVATE: u32 = 32;
/// First special INTID.
const SPECIAL: u32 = 1020;

/// Returns the configuration for a machine that matches the GICv3 of Linux's KVM, so that saved
/// states can migrate from or to KVM.
///
/// The machine has `cpus` vCPUs and `interrupts` INTIDs below 1024, including the private ones
/// (KVM's `NR_IRQS`: a multiple of 32). The configuration doesn't include an ITS; use
/// [`kvm_its_config`] to add one. The revision is the latest; use
/// [`at_revision`](crate::at_revision) to change it.
pub fn kvm_config(cpus: u16, interrupts: u32) -> VgicConfig {
    VgicConfig::new(cpus)
        .with_spis(interrupts.clamp(PRIVATE, SPECIAL) - PRIVATE)
        .with_awake_redistributors(true)
        .with_level_ppis(true)
        .with_lpi_id_bits(Some(16))
        .with_redistributor_invalidation(true)
        .with_iidr(IIDR.with_revision(INVALIDATION))
}

/// Returns the configuration for an ITS that matches the ITS of Linux's KVM, with its control frame
/// at `base`.
pub const fn kvm_its_config(base: u64) -> ItsConfig {
    let mut config = ItsConfig::new(base);
    config.iidr = IIDR;
    config
}
