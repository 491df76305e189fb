//! Revisions of KVM's GICv3, as reported in `GICD_IIDR.Revision`.

use crate::abi::Errno;
use gic_arch::Iidr;
use vgic::VgicConfig;

/// Arm's implementer code and KVM's product ID.
pub(super) const IIDR: Iidr = Iidr::new().with_implementer(0x43b).with_product_id(0x4b);
/// First revision that lets the guest configure interrupt groups.
const GROUPS: u8 = 2;
/// First revision that announces `GICR_CTLR.IR` and `CES`, since Linux 5.19.
pub(super) const INVALIDATION: u8 = 3;

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
