//! Devices that store their messages themselves (IMS). They have memory of their own, in the style
//! of a wireless device's rings, or a queue of commands.

mod command_queue;
mod ring_memory;

pub use command_queue::{QueueDevice, QueueStore};
pub use ring_memory::{RingDevice, RingStore};
