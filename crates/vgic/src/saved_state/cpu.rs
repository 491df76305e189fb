//! Saved state for one CPU: its redistributor and CPU interface.

use super::InterruptState;
#[cfg(feature = "serde")]
use super::numbers;
use alloc::vec::Vec;
use gic_arch::{Affinity, IntId};

/// A CPU's state.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct CpuState {
    /// Affinity of the CPU, which identifies it in the state.
    #[cfg_attr(feature = "serde", serde(with = "numbers::affinity"))]
    pub affinity: Affinity,
    /// State of the redistributor.
    pub redistributor: RedistributorState,
    /// State of the CPU interface, which is emulated or, for a vCPU with list registers, the
    /// guest's view of the hardware.
    pub interface: InterfaceState,
}

/// A redistributor's state.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct RedistributorState {
    /// `GICR_CTLR` as the guest reads it, with `RWP` = 0. Only `EnableLPIs` and the `DPG` bits are
    /// restored; `CES` and `IR` describe the machine.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub ctlr: u32,
    /// `GICR_TYPER` without `Last`, which depends on the frame's position in its region.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub typer: u64,
    /// `GICR_WAKER`. Only `ProcessorSleep` is restored. The value is 0 in the Non-secure view.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub waker: u32,
    /// `GICR_PROPBASER`.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub propbaser: u64,
    /// `GICR_PENDBASER`. Until LPIs are enabled, `PTZ` holds the value that the guest wrote. While
    /// LPIs are enabled, the pending table in guest memory is unused, because this state contains
    /// the pending LPIs.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub pendbaser: u64,
    /// SGIs, PPIs and extended PPIs, in INTID order. Interrupts that are absent from the list are
    /// in their reset state, with a low line.
    pub interrupts: Vec<InterruptState>,
    /// LPIs that are pending at this redistributor without an event, in INTID order. These LPIs
    /// became pending through `GICR_SETLPIR` or MOVALL, or were set in the pending table without a
    /// mapped event. While LPIs are disabled at this redistributor, the pending state has no effect
    /// until LPIs are enabled.
    pub lpis: Vec<LpiState>,
    /// Direct LPIs that are enabled at this redistributor according to its copies of their
    /// configuration bytes, pending or not, in INTID order. Until the guest makes the redistributor
    /// read their configurations again, all others are disabled. Empty while `EnableLPIs` is clear,
    /// and on machines without direct LPIs.
    pub enabled_lpis: Vec<EnabledLpis>,
}

/// Consecutive LPIs that are enabled at a redistributor with the same priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct EnabledLpis {
    /// INTID of the first LPI.
    #[cfg_attr(feature = "serde", serde(with = "numbers::intid"))]
    pub first: IntId,
    /// Number of LPIs.
    pub count: u32,
    /// Configuration byte of each of these LPIs, with the upper five bits of the priority.
    pub configuration: u8,
}

impl EnabledLpis {
    /// Returns the state of `count` LPIs with this configuration byte.
    pub const fn new(first: IntId, count: u32, configuration: u8) -> Self {
        Self { first, count, configuration }
    }
}

/// State of an LPI that is pending at a redistributor without an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct LpiState {
    /// The LPI's INTID.
    #[cfg_attr(feature = "serde", serde(with = "numbers::intid"))]
    pub intid: IntId,
    /// Same as [`EventState::configuration`](super::EventState::configuration).
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pub configuration: Option<u8>,
}

impl LpiState {
    /// Returns the state of an LPI whose configuration byte a restore reads from the guest's table.
    pub const fn new(intid: IntId) -> Self {
        Self { intid, configuration: None }
    }
}

/// A CPU interface's state. Priorities have the hardware's values: in the Non-secure view, the
/// guest's priority 0 is 0x80.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct InterfaceState {
    /// `ICC_CTLR_EL1`. Only `CBPR` and `EOImode` are restored; the other fields describe the
    /// machine.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub ctlr: u64,
    /// `ICC_PMR_EL1`, the priority mask.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub pmr: u8,
    /// `ICC_BPR0_EL1`.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub bpr0: u8,
    /// `ICC_BPR1_EL1`, as the guest reads it while `CBPR` is 0.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex"))]
    pub bpr1: u8,
    /// `ICC_IGRPEN0_EL1.Enable`.
    pub igrpen0: bool,
    /// `ICC_IGRPEN1_EL1.Enable`.
    pub igrpen1: bool,
    /// `ICC_AP0R<n>_EL1`.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex_array"))]
    pub ap0r: [u32; 4],
    /// `ICC_AP1R<n>_EL1`. Bit n represents the hardware's n-th group priority, also in the
    /// Non-secure view.
    #[cfg_attr(feature = "serde", serde(with = "numbers::hex_array"))]
    pub ap1r: [u32; 4],
}
