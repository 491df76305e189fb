//! Runtime for bare-metal images on QEMU's `virt` and `imx8mp-evk` machines. It starts the image
//! after reset and calls a Rust `main`, with caches, a console and interrupts. The feature `heap`
//! adds an allocator, PCI and support for several CPUs.
//!
//! | the machine starts the image | the image runs at |
//! |---|---|
//! | at EL1 (the default) | EL1 |
//! | at EL2 (`virtualization=on`) | EL2 |
//! | at EL3 (`secure=on`, as an ELF file) | Non-secure EL2 or EL1, with [`monitor`] at EL3 in place of firmware |
//!
//! ```ignore
//! #![no_std]
//! #![no_main]
//! image_rt::image!(main);
//!
//! fn main(boot: image_rt::Boot) -> ! {
//!     // SAFETY: `boot` is the unchanged argument, and this is the first call.
//!     unsafe { image_rt::start::start(boot) };
//!     image_rt::println!("CPU {} at {:?}", image_rt::cpu::current(), image_rt::cpu::level());
//!     image_rt::power::system_off()
//! }
//! ```
#![no_std]

#[cfg(feature = "heap")]
extern crate alloc;

pub mod boot;
pub mod console;
#[cfg(feature = "copy")]
mod copy;
pub mod cpu;
pub mod exceptions;
#[cfg(feature = "heap")]
pub mod heap;
pub mod lock;
pub mod memory;
pub mod monitor;
#[cfg(feature = "heap")]
pub mod nvme;
mod panic;
#[cfg(feature = "heap")]
pub mod pci;
pub mod platform;
pub mod power;
pub mod restart;
pub mod start;
#[cfg(feature = "virtio")]
pub mod virtio;

#[doc(hidden)]
pub use aarch64_rt;
pub use boot::Boot;
#[doc(hidden)]
pub use exceptions::Handlers;
