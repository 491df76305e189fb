//! A small driver for the Arm SMMUv3 (Arm IHI 0070). The driver owns the registers, queues and
//! stream table; the translation tables belong to the caller. No stream bypasses translation:
//! accesses of a stream without a translation are aborted.
#![no_std]

mod driver;
mod error;
mod event;
mod queue;
mod registers;
mod stream_id;
mod stream_table;
mod table;
mod wait;

pub use driver::Smmu;
pub use error::SmmuError;
pub use event::{Access, Event, EventKind};
pub use stream_id::{SpaceId, StreamId};
pub use stream_table::{Context, Translation};
pub use table::{load, memory, store};
