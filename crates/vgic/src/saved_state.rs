//! A virtual GIC's state as plain data, which can be stored or sent, and restored later or on
//! another host.
//!
//! # Format
//!
//! [`SavedState`] contains everything that a guest can observe about its GIC, and nothing else.
//! Objects are identified by keys. CPUs are identified by their affinity, ITSes by the address of
//! their frames, interrupts by their INTID, and translations by their DeviceID and EventID.
//! Positions in lists have no meaning, so the order of vCPUs may differ between the saved and the
//! restored machine, as long as each CPU's redistributor has the same address. All lists are sorted
//! by ascending key, and each key occurs once.
//!
//! | state | representation |
//! |---|---|
//! | shape | the part of the configuration that no register shows, such as the addresses of frames; compared during a restore |
//! | registers | the value in the architecture's layout; fields that only describe the machine (`TYPER`, `IIDR`, `PRIbits`, …) are compared during a restore |
//! | wired interrupts | one record each, with hardware priorities; interrupts in their reset state with a low line are omitted |
//! | LPIs | the pending state with the event, or with the redistributor if it is pending there by itself |
//! | direct LPIs | also the ranges of LPIs that each redistributor has enabled |
//! | tables in guest memory | neither written nor read: the state contains all mappings and pending bits |
//! | power | the value of `GICR_WAKER`, regardless of the machine's reset value; the PSCI implementation must record whether a PE is on |
//!
//! A state doesn't record fault counters, observers, or whether vCPUs are asleep. The list
//! registers of a paused vCPU are empty. The priority at which an interrupt was acknowledged is
//! omitted as well: no register shows it, and the priority only matters if more interrupts are
//! active than there are list registers. A restored machine uses the current priority of each
//! interrupt whose CPU (`active_at`) is known.
//!
//! # Example
//!
//! Moving a machine. [`Vgic::save`](crate::Vgic::save) describes how messages that arrive during a
//! migration are handled. [`monitor.rs`] is a monitor whose threads each pause their own vCPU.
//!
//! ```
//! # use msi_types::{Cpu, Kick, Level, Line, SetLine};
//! # use std::sync::Arc;
//! # use vgic::{GuestMemory, MemoryFault, Vcpu, Vgic, VgicConfig};
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
//! // Source: every owner of a vCPU pauses it, here a single thread.
//! let (gic, mut vcpus) = new()?;
//! gic.set_line(Line::Spi(40), Level::High);
//! let paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
//! let saved = gic.save()?;
//! drop(paused);
//!
//! // Destination: a machine with the same configuration, none of whose vCPUs has run.
//! let (gic, mut vcpus) = new()?;
//! let paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
//! gic.restore(&saved)?;
//! assert_eq!(gic.save()?, saved);
//! drop(paused);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`monitor.rs`]:
//! https://github.com/doorbell-rs/doorbell/blob/main/crates/vgic/tests/it/lists/monitor.rs
//!
//! # Versions
//!
//! `version` is the first field, so that a reader can decode it alone, as [`StateVersion`], before
//! it interprets the rest. Any change to a field, to its meaning or to the set of omitted values
//! requires a new [`VERSION`]. A reader accepts its own version and any earlier version for which
//! it has a conversion, and refuses all others. This library also reads version 2, which has no
//! shape, in self-describing formats; for others, see [`SavedState::without_shape`]. It does not
//! read version 1, which does not record which direct LPIs are enabled. With the feature `serde`,
//! the types serialize in any format. Self-describing formats reject unknown fields and require all
//! fields of the version. Human-readable formats contain registers and addresses as hexadecimal
//! strings (`"0x1f"`), and also accept numbers.

mod cpu;
mod distributor;
mod error;
mod its;
#[cfg(feature = "serde")]
mod numbers;
mod shape;

pub use cpu::{CpuState, EnabledLpis, InterfaceState, LpiState, RedistributorState};
pub use distributor::{DistributorState, InterruptState};
pub use error::{NotRestorable, Object, Problem, RestoreError, SaveError};
pub(crate) use its::EventRun;
pub use its::{CollectionState, DeviceState, EventState, ItsState};
pub use shape::{Property, PropertyName};

use alloc::vec::Vec;

/// Version of the format that this library writes.
pub const VERSION: u32 = 3;

/// Earlier version, which has no shape.
pub(crate) const WITHOUT_SHAPE: u32 = 2;

/// Version of a saved state, deserialized from the same bytes regardless of the other fields. This
/// is the only readable part of a state whose version this library does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Deserialize))]
pub struct StateVersion {
    /// Same as [`SavedState::version`].
    pub version: u32,
}

/// Snapshot of a virtual GIC's state.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SavedState {
    /// Version of the format; [`VERSION`] in a state that this library saves.
    pub version: u32,
    /// The distributor, including the shared interrupts.
    pub distributor: DistributorState,
    /// The CPUs, in affinity order.
    pub cpus: Vec<CpuState>,
    /// The ITSes, in address order.
    pub its: Vec<ItsState>,
    /// The machine's shape: its properties that no register in the state shows, in ascending order.
    /// Empty in a state of version 2, whose restore does not compare it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub shape: Vec<Property>,
}

impl SavedState {
    /// Returns a state of version 2, whose fields a binary format cannot tell from later ones.
    pub const fn without_shape(
        distributor: DistributorState,
        cpus: Vec<CpuState>,
        its: Vec<ItsState>,
    ) -> Self {
        Self { version: WITHOUT_SHAPE, distributor, cpus, its, shape: Vec::new() }
    }
}
