//! The parts that the smallest kernels share.
#![no_std]

#[cfg(feature = "heap")]
pub mod size;
