//! State of one CPU: its redistributor and its CPU interface.

use super::InterruptState;
#[cfg(feature = "serde")]
use super::numbers;
use alloc::vec::Vec;
use gic_arch::{Affinity, IntId};

/// A CPU.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct CpuState {
    /// Its affinity.
    #[cfg_attr(feature = "serde", serde(with = "numbers::affinity"))]
    pub affinity: Affinity,
    /// Its redistributor.
    pub redistributor: RedistributorState,
    /// Its CPU interface: software's or, for a vCPU with list registers, what the hardware held for
    /// the guest.
    pub interface: InterfaceState,
}

/// A redistributor.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct RedistributorState {
    /// `GICR_CTLR` as the guest reads it, `RWP` clear: `EnableLPIs` and the `DPG` bits; `CES` and
    /// `IR` are the machine's.
    pub ctlr: u32,
    /// `GICR_TYPER` without `Last`, which depends on where the frame lies.
    pub typer: u64,
    /// `GICR_WAKER`: `ProcessorSleep` is what counts. 0 in the Non-secure view.
    pub waker: u32,
    /// `GICR_PROPBASER`.
    pub propbaser: u64,
    /// `GICR_PENDBASER`, with `PTZ` as it was written, until LPIs are enabled. Where they are, the
    /// pending table holds nothing: what is pending is in this state.
    pub pendbaser: u64,
    /// SGIs, PPIs and extended PPIs, by ascending INTID. What is not listed is as after reset, its
    /// line low.
    pub interrupts: Vec<InterruptState>,
    /// LPIs that are pending at this redistributor by themselves, by ascending INTID. They are
    /// pending by `GICR_SETLPIR`, by MOVALL, or found in the pending table without an event to
    /// belong to. While LPIs are disabled here, they are held, and pending once they are enabled.
    pub lpis: Vec<LpiState>,
}

/// An LPI that is pending at a redistributor by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct LpiState {
    /// Its INTID.
    #[cfg_attr(feature = "serde", serde(with = "numbers::intid"))]
    pub intid: IntId,
    /// As [`EventState::configuration`](super::EventState::configuration).
    #[cfg_attr(feature = "serde", serde(deserialize_with = "serde::Deserialize::deserialize"))]
    pub configuration: Option<u8>,
}

/// A CPU interface. Priorities are as the hardware has them: in the Non-secure view, the guest's
/// lie from 0x80 on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct InterfaceState {
    /// `ICC_CTLR_EL1`: `CBPR` and `EOImode`; `PRIbits`, `IDbits` and the rest are the machine's.
    pub ctlr: u64,
    /// The priority mask.
    pub pmr: u8,
    /// `ICC_BPR0_EL1`.
    pub bpr0: u8,
    /// `ICC_BPR1_EL1` as it is without `CBPR`.
    pub bpr1: u8,
    /// `ICC_IGRPEN0_EL1.Enable`.
    pub igrpen0: bool,
    /// `ICC_IGRPEN1_EL1.Enable`.
    pub igrpen1: bool,
    /// `ICC_AP0R<n>_EL1`.
    pub ap0r: [u32; 4],
    /// `ICC_AP1R<n>_EL1`. In the Non-secure view too, bit n stands for the hardware's n-th group
    /// priority.
    pub ap1r: [u32; 4],
}
