//! Devices that store their messages themselves (IMS), either in memory of their own (like the
//! rings in a wireless device) or behind a command queue.

mod command_queue;
mod ring_memory;

pub use command_queue::{QueueDevice, QueueStore};
pub use ring_memory::{RingDevice, RingStore};
