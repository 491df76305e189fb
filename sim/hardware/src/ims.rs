//! Devices that store their messages themselves (IMS), either in rings in memory (like a wireless
//! device) or behind a command queue.

mod command_queue;
mod ring_memory;

pub use command_queue::{QueueDevice, QueueStore};
pub use ring_memory::{RingDevice, RingStore};
