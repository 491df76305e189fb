//! Configurations for machines that KVM can have, with the revisions of its GICv3, as reported in
//! `GICD_IIDR.Revision`.

use crate::abi::Errno;
use alloc::vec::Vec;
use gic_arch::Iidr;
use vgic::its::ItsConfig;
use vgic::{RedistributorRegion, VgicConfig};

/// Arm's implementer code and KVM's product ID.
pub(super) const IIDR: Iidr = Iidr::new().with_implementer(0x43b).with_product_id(0x4b);
/// First revision that lets the guest configure interrupt groups.
const GROUPS: u8 = 2;
/// First revision that announces `GICR_CTLR.IR` and `CES`, since Linux 5.19.
pub(super) const INVALIDATION: u8 = 3;
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

/// Returns the revision in a value written to `GICD_IIDR`.
///
/// Fails with `EINVAL` for revisions that KVM's GICv3 does not accept, and for the values of other
/// implementers.
pub(super) fn written(word: u32) -> Result<u8, Errno> {
    let written = Iidr::from(word);
    let ours = written.with_revision(0) == IIDR;
    match written.revision() {
        revision @ GROUPS..=INVALIDATION if ours => Ok(revision),
        _ => Err(Errno::Invalid),
    }
}

/// Changes a configuration to the revision in KVM's `GICD_IIDR`, as a guest sees it.
///
/// | revision | Linux | guest-visible behavior |
/// |---|---|---|
/// | 0 | up to 4.18 | groups are fixed; KVM no longer accepts this revision for a GICv3, and neither does this function |
/// | 1 | – | a GICv2 with Group 0 only, never a GICv3 |
/// | 2 | 4.19 | groups as the guest configures them; `GICR_CTLR.EnableLPIs` stays set, and `GICR_INVLPIR`, `GICR_INVALLR` and `GICR_SYNCR` are reserved |
/// | 3 | 5.19 | `GICR_CTLR.CES` and `IR`: LPIs can be disabled again, and these registers work |
///
/// A guest that migrates keeps its initial revision. The revision is part of the machine: a state
/// saved with one revision can't be restored into a machine with another. KVM accepts an older
/// revision at any time before a vCPU first runs, but kernels before the stable releases of 2026
/// accept the write without changing the revision.
///
/// # Errors
/// `EINVAL` for a revision that is not in the table, and for a GIC of another implementer.
pub fn at_revision(config: VgicConfig, iidr: Iidr) -> Result<VgicConfig, Errno> {
    let revision = written(iidr.into_bits())?;
    let announced = revision >= INVALIDATION;
    Ok(config
        .with_iidr(IIDR.with_revision(revision))
        .with_can_clear_enable_lpis(announced)
        .with_redistributor_invalidation(announced))
}

/// Places the distributor and the redistributors at addresses that do not overlap an ITS, if there
/// are any. Neither explanations nor a restore depend on their addresses.
pub(super) fn placed(config: VgicConfig) -> VgicConfig {
    let count = u32::try_from(config.cpus.len()).unwrap_or(u32::MAX);
    let mut placed = config;
    for base in [placed.distributor, 1 << 40, 1 << 41, 1 << 42] {
        let region = RedistributorRegion::new(base + 0xa_0000, count);
        placed = placed.with_distributor(base).with_redistributors(Vec::from([region]));
        if placed.validate().is_ok() {
            break;
        }
    }
    placed
}
