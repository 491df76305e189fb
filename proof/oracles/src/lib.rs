//! Oracles that are independent of Doorbell's own definitions.
//!
//! Drivers and models share the definitions in [`gic_arch`](../gic_arch/index.html), so a wrong
//! offset there is wrong on both sides, and tests that use both sides don't detect it. The tests in
//! this package compare the drivers and models with independent material:
//!
//! - `registers.rs`, `command_figures.rs`, `tables.rs`: numbers typed by hand from the
//!   specification's tables and figures,
//! - `foreign_driver.rs`: the register and command sequence of another ITS driver, replayed against
//!   the model,
//! - `recordings.rs`: the answers of another GICv3 with Direct LPIs and message-based SPIs,
//!   recorded,
//! - [`differential`]: QEMU's GICv3 and ITS, which receive the same accesses as the model,
//! - [`qtest`]: a client of the protocol in which QEMU receives them,
//! - [`iommu_groups`]: Linux's IOMMU groups, for the groups of functions that hardware does not
//!   isolate.

#![forbid(unsafe_code)]

pub mod differential;
pub mod iommu_groups;
pub mod qtest;
