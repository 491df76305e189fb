//! A guest's CPU, as EL2 sees it: a vCPU's registers, the entry to the guest and the exit from it,
//! the syndromes of traps, the exceptions that the guest takes, stage 2, and the list registers.
//!
//! The library knows only the architecture, and neither guests and their machines, nor a scheduler,
//! nor the program's runtime. `el2/one-vcpu` is a complete hypervisor on it, which
//! `docs/guides/el2.md` explains.
//!
//! Your program must:
//!
//! - run at EL2 with `HCR_EL2.E2H` clear, and map memory at its physical addresses;
//! - be built for `aarch64-unknown-none-softfloat`, because vector registers belong to guests;
//! - define a global allocator;
//! - define the symbol `vector_table_el2`, as `aarch64-rt` does: a table of exception vectors for
//!   exceptions from EL2 itself. If your table has another name, let the linker script `PROVIDE`
//!   this one.
#![no_std]

extern crate alloc;

mod context;
mod debug;
mod id_registers;
pub mod inject;
mod instruction;
mod prepare;
mod ram;
mod registers;
pub mod syndrome;
mod sysreg;
mod tables;
mod vectors;
mod virtual_interface;
mod vmid;

pub use context::Context;
pub use instruction::IndexedTransfer;
pub use prepare::{Wfi, forget_stage2, forget_translations, load_stage2, prepare};
pub use ram::Ram;
pub use registers::{NEVER, Registers, Start};
pub use tables::{Memory, TranslationTables, VTCR, Vttbr};
pub use vectors::{Vector, enter};
pub use virtual_interface::Hardware;
pub use vmid::Vmid;
