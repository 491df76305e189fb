//! Virtual machines at EL2, on `vgic`'s virtual GIC: vCPUs and their scheduler, stage 2, traps,
//! interrupts, moves, and records of what guests do.
//!
//! This is the hypervisor of `el2/hypervisor` without its boards, and no library for others: its
//! guests, interrupts and handlers are statics, so that an image is one machine; it prints this
//! project's facts to `image-rt`'s console; guests live until the machine ends; and [`run`] never
//! returns. Build your own on `el2_cpu`, as `docs/guides/el2.md` explains.
//!
//! The package contains no address. A board describes the machine to [`bring_up`], creates the
//! [guests](Guest) with their [devices](Devices), and passes them to [`run`]. `el2/hypervisor` has
//! two boards.
#![no_std]

extern crate alloc;

pub mod direct;
mod fair_lock;
mod faults;
mod gic;
mod guest;
mod hypervisor_timer;
mod injection;
mod interrupts;
pub mod irqchip;
mod linked;
pub mod messages;
mod moving;
mod options;
mod power;
mod psci;
mod quick;
mod recorder;
mod run;
mod scheduler;
mod standstill;
mod timers;
mod traps;
mod vcpu;

pub use el2_cpu::{Memory, Ram, Start};
pub use fair_lock::MAX_VCPUS;
pub use gic::Gic;
pub use guest::{Devices, Guest, GuestConfig, guests};
pub use hypervisor_timer::poll_after;
pub use options::Options;
pub use run::{bring_up, run};
pub use timers::{PHYSICAL_TIMER, VIRTUAL_TIMER};
