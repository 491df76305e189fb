//! Saved state for the distributor and for wired interrupts.

#[cfg(feature = "serde")]
use super::numbers;
use alloc::vec::Vec;
use gic_arch::{Affinity, IntId, IntIdClass};

/// State of the distributor.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct DistributorState {
    /// `GICD_CTLR` as the guest reads it, with `RWP` clear.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub ctlr: u32,
    /// `GICD_TYPER`, which describes the kinds and numbers of interrupts.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub typer: u32,
    /// `GICD_IIDR`.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub iidr: u32,
    /// SPIs and extended SPIs, in INTID order. Interrupts that are absent from the list are in
    /// their reset state, with a low line.
    pub interrupts: Vec<InterruptState>,
}

/// State of an SGI, PPI or SPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct InterruptState {
    /// The interrupt's INTID.
    #[cfg_attr(feature = "serde", serde(with = "numbers::intid"))]
    pub intid: IntId,
    /// `IGROUPR`: Group 1 or, with two security states, Non-secure Group 1. (`IGRPMODR` is zero in
    /// both views.)
    pub group1: bool,
    /// `ISENABLER`.
    pub enabled: bool,
    /// Priority in the hardware's representation: in the Non-secure view, the guest's priorities
    /// start at 0x80.
    pub priority: u8,
    /// `ICFGR`: edge-triggered. Always set for SGIs.
    pub edge: bool,
    /// Pending state that does not depend on the levels: set by an edge, a message, or a write to
    /// `ISPENDR`.
    pub latch: bool,
    /// Input level. The level is also recorded for edge-triggered interrupts.
    pub line: bool,
    /// Level driven by messages to `GICD_SETSPI_NSR` and `GICD_CLRSPI_NSR`.
    pub message: bool,
    /// `ISACTIVER`.
    pub active: bool,
    /// The CPU that acknowledged an active interrupt, if known. If `None`, a restore assumes that
    /// the interrupt is active at its target.
    #[cfg_attr(feature = "serde", serde(with = "numbers::optional_affinity"))]
    pub active_at: Option<Affinity>,
    /// `GICD_IROUTER<n>`; 0 for private interrupts.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub route: u64,
    /// CPU chosen for a 1-of-N interrupt, if any, i.e. if `route` allows any participating PE.
    #[cfg_attr(feature = "serde", serde(with = "numbers::optional_affinity"))]
    pub chosen: Option<Affinity>,
}

impl InterruptState {
    /// Returns the reset state on a GIC with one security state: in Group 0, disabled, and
    /// level-sensitive unless it is an SGI.
    pub fn new(intid: IntId) -> Self {
        Self {
            intid,
            group1: false,
            enabled: false,
            priority: 0,
            edge: intid.class() == IntIdClass::Sgi,
            latch: false,
            line: false,
            message: false,
            active: false,
            active_at: None,
            route: 0,
            chosen: None,
        }
    }
}
