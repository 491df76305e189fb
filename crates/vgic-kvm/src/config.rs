//! Machines that KVM can have.

use crate::revision::{IIDR, INVALIDATION};
use vgic::VgicConfig;
use vgic::its::ItsConfig;

/// Private INTIDs.
const PRIVATE: u32 = 32;
/// INTIDs from here on are special.
const SPECIAL: u32 = 1020;

/// Returns a machine like those of Linux's KVM, for saved states that come from there or go there.
///
/// It has `cpus` vCPUs and `interrupts` INTIDs below 1024, the private ones included (KVM's
/// `NR_IRQS`: a multiple of 32). It has no ITS; [`kvm_its_config`] makes one. Its revision is the
/// newest; [`at_revision`](crate::at_revision) changes it.
pub fn kvm_config(cpus: u16, interrupts: u32) -> VgicConfig {
    VgicConfig::new(cpus)
        .with_spis(interrupts.clamp(PRIVATE, SPECIAL) - PRIVATE)
        .with_awake_redistributors(true)
        .with_level_ppis(true)
        .with_lpi_id_bits(Some(16))
        .with_redistributor_invalidation(true)
        .with_iidr(IIDR.with_revision(INVALIDATION))
}

/// Returns an ITS like those of Linux's KVM, with its control frame at `base`.
pub const fn kvm_its_config(base: u64) -> ItsConfig {
    let mut config = ItsConfig::new(base);
    config.iidr = IIDR;
    config
}
