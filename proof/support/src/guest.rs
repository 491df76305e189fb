//! A scripted guest, its memory and counters of kicks, for tests of device models.
mod abstract_gic;
mod commands;
mod kicks;
mod machine;
mod memory;

pub use abstract_gic::AbstractGic;
pub use commands::{
    clear, discard, int, inv, invall, mapc, mapd, mapti, movall, movi, sync, unmapc, unmapd,
};
pub use kicks::Kicks;
pub use machine::{COLLECTIONS, DEVICES, ITS, Machine, QUEUE, RAM, handle, memory, send};
pub use memory::{Ram, ram, take_dirty};
