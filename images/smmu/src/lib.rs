//! A small driver for the Arm SMMUv3 (Arm IHI 0070). The driver owns the registers, queues and
//! stream table; the translation tables belong to the caller. No stream bypasses translation:
//! accesses of a stream without a translation are aborted.
#![no_std]

mod driver;
mod event;
mod platform;
mod queue;
mod registers;
mod stream_table;

pub use driver::Smmu;
pub use event::{Access, Event, EventKind, SpaceId, StreamId};
pub use platform::{SmmuError, load, memory, store};
pub use stream_table::{Context, Translation};
