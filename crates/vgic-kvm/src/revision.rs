//! `GICD_IIDR.Revision`: which of KVM's GICs a machine is.

use crate::abi::Errno;
use gic_arch::Iidr;
use vgic::VgicConfig;

/// Arm, and KVM's product.
pub(super) const IIDR: Iidr = Iidr::new().with_implementer(0x43b).with_product_id(0x4b);
/// Interrupts have the group that the guest gives them.
const GROUPS: u8 = 2;
/// `GICR_CTLR.IR` and `CES` are announced, from Linux 5.19 on.
pub(super) const INVALIDATION: u8 = 3;

/// The revision of what is written to `GICD_IIDR`.
///
/// `EINVAL` for one that KVM's GICv3 never has or had without saying it, and for another
/// implementer's.
pub(super) fn written(word: u32) -> Result<u8, Errno> {
    let written = Iidr::from(word);
    let ours = written.with_revision(0) == IIDR;
    match written.revision() {
        revision @ GROUPS..=INVALIDATION if ours => Ok(revision),
        _ => Err(Errno::Invalid),
    }
}

/// Returns the machine with the revision that a KVM's `GICD_IIDR` says, as a guest sees it.
///
/// | revision | Linux | what its guests see |
/// |---|---|---|
/// | 0 | up to 4.18 | groups that are fixed: KVM does not take it for a GICv3 any more, and neither does this |
/// | 1 | – | a GICv2 with Group 0 alone: never a GICv3 |
/// | 2 | 4.19 | groups as they configure them; `GICR_CTLR.EnableLPIs` stays set, and `GICR_INVLPIR`, `GICR_INVALLR` and `GICR_SYNCR` are reserved |
/// | 3 | 5.19 | `GICR_CTLR.CES` and `IR`: LPIs can be disabled again, and those registers work |
///
/// A guest that migrates keeps the revision with which it began. The revision is part of the
/// machine: a state of one revision is not restored into a machine of another. KVM accepts an
/// older one at any time before the first run; its kernels before the stable ones of 2026 accept
/// it without any effect.
///
/// # Errors
/// `EINVAL` for other revisions and for another implementer's GIC.
pub fn at_revision(config: VgicConfig, iidr: Iidr) -> Result<VgicConfig, Errno> {
    let revision = written(iidr.into_bits())?;
    let announced = revision >= INVALIDATION;
    Ok(config
        .with_iidr(IIDR.with_revision(revision))
        .with_can_clear_enable_lpis(announced)
        .with_redistributor_invalidation(announced))
}
