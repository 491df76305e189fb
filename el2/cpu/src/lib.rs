//! A guest's CPU, as EL2 sees it: a vCPU's registers, the entry to the guest and the exit from it,
//! the syndromes of traps, the exceptions that the guest takes, stage 2, and the list registers.
//!
//! The library knows only the architecture, and neither guests and their machines nor a scheduler.
//! `el2/vm` is a hypervisor on it.
#![no_std]

extern crate alloc;

mod context;
mod debug;
pub mod id_registers;
pub mod inject;
mod instruction;
mod prepare;
mod ram;
mod registers;
pub mod syndrome;
mod tables;
mod vectors;
mod virtual_interface;
mod write;

pub use context::Context;
pub use instruction::IndexedTransfer;
pub use prepare::{Wfi, forget_stage2, forget_translations, load_stage2, prepare};
pub use ram::Ram;
pub use registers::{NEVER, Registers, Start};
pub use tables::{Memory, TranslationTables, VTCR, space};
pub use vectors::{Vector, enter};
pub use virtual_interface::Hardware;
