//! The distributor, and wired interrupts wherever they are.

#[cfg(feature = "serde")]
use super::numbers;
use alloc::vec::Vec;
use gic_arch::{Affinity, IntId};

/// The distributor.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct DistributorState {
    /// `GICD_CTLR` as the guest reads it, `RWP` clear.
    pub ctlr: u32,
    /// `GICD_TYPER`: how many interrupts of which kinds the machine has.
    pub typer: u32,
    /// `GICD_IIDR`.
    pub iidr: u32,
    /// SPIs and extended SPIs, by ascending INTID. What is not listed is as after reset, its line
    /// low.
    pub interrupts: Vec<InterruptState>,
}

/// An SGI, PPI or SPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct InterruptState {
    /// Its INTID.
    #[cfg_attr(feature = "serde", serde(with = "numbers::intid"))]
    pub intid: IntId,
    /// `IGROUPR`: Group 1; of two security states, Non-secure Group 1. (`IGRPMODR` is zero in both
    /// views.)
    pub group1: bool,
    /// `ISENABLER`.
    pub enabled: bool,
    /// The priority as the hardware has it: in the Non-secure view, what the guest can express lies
    /// from 0x80 on.
    pub priority: u8,
    /// `ICFGR`: edge-triggered. SGIs are.
    pub edge: bool,
    /// Pending by itself, whatever the levels: by an edge, a message, or a write to `ISPENDR`.
    pub latch: bool,
    /// The level of the input, for edge-triggered interrupts too.
    pub line: bool,
    /// The level that messages to `GICD_SETSPI_NSR` and `GICD_CLRSPI_NSR` drive.
    pub message: bool,
    /// `ISACTIVER`.
    pub active: bool,
    /// If it is active: the CPU that acknowledged it, where that is known. Where not, it is the
    /// target's.
    #[cfg_attr(feature = "serde", serde(with = "numbers::optional_affinity"))]
    pub active_at: Option<Affinity>,
    /// `GICD_IROUTER<n>`; 0 for private interrupts.
    pub route: u64,
    /// If `route` names any participating PE: the one that was chosen, where one was.
    #[cfg_attr(feature = "serde", serde(with = "numbers::optional_affinity"))]
    pub chosen: Option<Affinity>,
}
