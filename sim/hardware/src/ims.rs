//! Devices that store their messages themselves (IMS): in their own memory, like the rings of a
//! wireless device, or through a queue of commands.

mod command_queue;
mod ring_memory;

pub use command_queue::{QueueDevice, QueueStore};
pub use ring_memory::{RingDevice, RingStore};
