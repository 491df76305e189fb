//! A small driver of the Arm SMMUv3 (Arm IHI 0070). It owns registers, queues and the stream table;
//! the tables that the SMMU walks are its user's. A stream without translation is refused: no
//! access passes untranslated.
#![no_std]

extern crate alloc;

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
pub use table::{memory, store};
