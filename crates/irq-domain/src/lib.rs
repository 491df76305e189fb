//! An interrupt core for kernels and hypervisors: lock-free dispatch, affinity, and per-device MSI domains.
#![no_std]
