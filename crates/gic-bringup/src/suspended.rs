//! Saved state of a machine's interrupt controllers.

use alloc::boxed::Box;
use gic_driver::gic;
use gic_driver::gicv2::SuspendedV2;
use msi_types::Cpu;

/// State saved from stopped interrupt controllers, consumed by
/// [`Irqchip::resume`](crate::Irqchip::resume).
#[must_use = "no interrupt is signaled before `Irqchip::resume`"]
pub struct Suspended {
    pub(crate) cpu: Cpu,
    pub(crate) stopped: Stopped,
    pub(crate) gic: SavedGic,
}

pub(crate) enum SavedGic {
    V3(gic::Suspended),
    V2(Box<[Option<SuspendedV2>; 1]>),
}

/// Controllers that the current suspend has already stopped.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stopped {
    /// Number of stopped ITSes, counted in the order of
    /// [`Irqchip::controllers`](crate::Irqchip::controllers).
    pub(crate) itses: usize,
    pub(crate) direct_lpi: bool,
}

msi_types::debug_by!(Suspended as "Suspended", |it| {cpu: it.cpu});
