//! The layout of `GICD_CTLR` in each security view (IHI 0069 §12.9.4), and how the view is
//! detected.

use crate::frame::Frame;
use crate::{GicError, Mmio, MmioExt, Platform, SecurityView};
use gic_arch::gicd::{self, Ctlr, CtlrNs, Typer};

/// Returns the enable bit of the view's own group.
pub(super) fn group_bits(view: SecurityView) -> u32 {
    match view {
        SecurityView::Single => Ctlr::new().with_enable_grp1(true).into(),
        SecurityView::Secure => Ctlr::new().with_enable_grp1_s(true).into(),
        SecurityView::NonSecure => CtlrNs::new().with_enable_grp1a(true).into(),
    }
}

/// Returns the enable bits of all groups, in every view's layout.
pub(super) fn all_groups() -> u32 {
    Ctlr::new().with_enable_grp0(true).with_enable_grp1(true).with_enable_grp1_s(true).into()
}

/// Returns the affinity routing enable bits in the view's layout.
pub(super) fn routing_bits(view: SecurityView) -> u32 {
    match view {
        SecurityView::Single => Ctlr::new().with_are(true).into(),
        SecurityView::Secure => Ctlr::new().with_are(true).with_are_ns(true).into(),
        SecurityView::NonSecure => CtlrNs::new().with_are_ns(true).into(),
    }
}

/// Detects the view as described in [`Distributor::new`](super::Distributor::new).
pub(super) fn detect<P: Platform, M: Mmio>(
    platform: &P,
    frame: &Frame<M>,
    typer: Typer,
) -> Result<SecurityView, GicError> {
    let control = frame.mmio.read(gicd::CTLR);
    if !typer.security_extn() || control.ds() {
        return Ok(SecurityView::Single);
    }
    if control.are_ns() || control.enable_grp1_s() || control.e1nwf() {
        return Ok(SecurityView::Secure);
    }
    let quiet = Ctlr::from(control.into_bits() & !all_groups()).with_rwp(false);
    frame.mmio.write(gicd::CTLR, quiet);
    frame.wait_for_rwp(platform)?;
    frame.mmio.write(gicd::CTLR, quiet.with_are(true).with_are_ns(true));
    frame.wait_for_rwp(platform)?;
    let secure = frame.mmio.read(gicd::CTLR).are_ns();
    Ok(if secure { SecurityView::Secure } else { SecurityView::NonSecure })
}
