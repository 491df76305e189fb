//! Shared code for the minimal kernels.
#![no_std]

#[cfg(feature = "heap")]
pub mod size;
