//! State of a virtual GIC as plain data: to be stored or sent, and restored elsewhere or later.
//!
//! # Format
//!
//! [`SavedState`] is the whole of what a guest can observe of its GIC, and nothing else. Everything
//! has a key of its own and is found by it. CPUs have their affinity, ITSes the address of their
//! frames, interrupts their INTID, translations their DeviceID and EventID. No position in a list
//! means anything. So the order of vCPUs may differ between the machine that was saved and the one
//! that is restored. All lists ascend by their keys and have each key once.
//!
//! | what | how it is stored |
//! |---|---|
//! | registers | the value in the architecture's layout; fields that only say what the machine *is* (`TYPER`, `IIDR`, `PRIbits`, …) are there to be compared |
//! | wired interrupts | one record each, with hardware priorities; those that are as after reset and low are left out |
//! | LPIs | the pending state with the event, or with the redistributor if it is pending there by itself |
//! | tables in guest memory | not written and not read: mappings and pending bits are all in the state |
//! | power | `GICR_WAKER`, whatever the machine resets it to; the implementation of PSCI knows whether a PE is on |
//!
//! A state does not contain counters of the guest's mistakes, sleeping vCPUs and observers. List
//! registers of a frozen machine are empty. The priority at which an interrupt was acknowledged is
//! left out as well: no register shows it, and it matters only if more interrupts are active than
//! list registers exist. A restored machine uses the current priority of each interrupt whose CPU
//! (`active_at`) is known.
//!
//! # Example
//!
//! A machine moves: [`Vgic::freeze`](crate::Vgic::freeze) tells what becomes of messages that come
//! meanwhile.
//!
//! ```
//! # use msi_types::{Cpu, Kick, Level, Line, SetLine};
//! # use std::sync::Arc;
//! # use vgic::{GuestMemory, MemoryFault, Vgic, VgicConfig};
//! # struct NoMemory;
//! # impl GuestMemory for NoMemory {
//! #     fn read(&self, address: u64, _: &mut [u8]) -> Result<(), MemoryFault> {
//! #         Err(MemoryFault { address })
//! #     }
//! #     fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
//! #         Err(MemoryFault { address })
//! #     }
//! # }
//! # struct NoKick;
//! # impl Kick for NoKick { fn kick(&self, _: Cpu) {} }
//! # let new = || Vgic::new(VgicConfig::new(2), Arc::new(NoMemory), Arc::new(NoKick));
//! // Here: the vCPUs have left their guests, and their halves come together.
//! let (gic, mut vcpus) = new()?;
//! gic.set_line(Line::Spi(40), Level::High);
//! let frozen = gic.freeze(&mut vcpus)?;
//! let saved = frozen.save()?;
//! frozen.thaw();
//!
//! // There: a machine with the same configuration, of which no vCPU has run.
//! let (gic, mut vcpus) = new()?;
//! gic.freeze(&mut vcpus)?.restore(&saved)?;
//! assert_eq!(gic.freeze(&mut vcpus)?.save()?, saved);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Versions
//!
//! `version` comes first, so that it can be read, as [`StateVersion`], before the rest is
//! understood. A change of any field, of its meaning or of what is left out takes the next
//! [`VERSION`]. A reader takes its own version, and those before it that it converts by name; it
//! refuses any other. With the feature `serde` the types serialise in any format. Self-describing
//! ones reject a field that the version does not have, and the lack of one that it has.

mod cpu;
mod distributor;
mod error;
mod its;
#[cfg(feature = "serde")]
mod numbers;

pub use cpu::{CpuState, InterfaceState, LpiState, RedistributorState};
pub use distributor::{DistributorState, InterruptState};
pub use error::{FreezeError, NotRestorable, Object, Problem, RestoreError};
pub use its::{CollectionState, DeviceState, EventState, ItsState};

use alloc::vec::Vec;

/// The version of the format that this library writes.
pub const VERSION: u32 = 1;

/// The version of a saved state, which is read from the same bytes, whatever follows. It is all
/// that can be read of a version that this library does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
pub struct StateVersion {
    /// As [`SavedState::version`].
    pub version: u32,
}

/// A virtual GIC at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SavedState {
    /// The version of the format: [`VERSION`].
    pub version: u32,
    /// The distributor, with the shared interrupts.
    pub distributor: DistributorState,
    /// The CPUs, by ascending affinity.
    pub cpus: Vec<CpuState>,
    /// The ITSes, by ascending address.
    pub its: Vec<ItsState>,
}
