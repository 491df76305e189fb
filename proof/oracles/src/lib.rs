//! Oracles that are independent of Doorbell.
//!
//! Drivers and models share [`gic_arch`](../gic_arch/index.html)'s definitions, so a wrong offset
//! there would be wrong on both sides, and tests that use both wouldn't notice. The tests in this
//! package compare them with independent material:
//!
//! - `registers.rs`, `command_figures.rs`, `tables.rs`: numbers typed by hand from the
//!   specification's tables and figures,
//! - `foreign_driver.rs`: the register and command sequence of another ITS driver, replayed against
//!   the model,
//! - [`differential`]: QEMU's GICv3 and ITS, driven by the same lines as the model,
//! - `punishing_fakes.rs`: fakes that behave like hardware where plain memory would be forgiving.

#![forbid(unsafe_code)]

pub mod differential;

/// The examples from the project's README. They must compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
