//! Code that the minimal kernels share.
#![no_std]

#[cfg(feature = "heap")]
pub mod size;
