//! A scripted guest, its memory and counters of kicks, for tests of device models.
mod abstract_gic;
mod commands;
mod field;
mod half;
mod interface;
mod kicks;
mod machine;
mod memory;
mod physical;
pub mod program;
mod virtual_interface;

pub use abstract_gic::AbstractGic;
pub use commands::{
    clear, discard, int, inv, invall, mapc, mapd, mapi, mapti, movall, movi, sync, unmapc, unmapd,
};
pub use field::Field;
pub use half::Half;
pub use interface::Interface;
pub use kicks::Kicks;
pub use machine::{COLLECTIONS, DEVICES, ITS, Machine, QUEUE, RAM, handle, memory, message, send};
pub use memory::{Ram, ram, take_dirty};
pub use physical::Physical;
pub use virtual_interface::{Hardware, listed, vtr};
