//! Oracles that are not Doorbell's own.
//!
//! Drivers and models share [`gic_arch`](../gic_arch/index.html)'s definitions, so a wrong offset
//! there would be wrong on both sides and nothing would fail. The tests of this package hold it
//! against material that did not pass through it:
//!
//! - `registers.rs`, `commands.rs`, `tables.rs`: numbers typed by hand from the specification's
//!   tables and figures,
//! - `foreign_driver.rs`: the register and command sequence of another ITS driver, replayed against
//!   the model,
//! - [`differential`]: QEMU's GICv3 and ITS, told the same as the model,
//! - `punishing_fakes.rs`: fakes that behave as hardware does where a plain memory would forgive.

#![forbid(unsafe_code)]

pub mod differential;

/// The examples of the project's README, so that they compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
