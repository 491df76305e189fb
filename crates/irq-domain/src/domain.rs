//! A device's message-signaled interrupts. Each message store has a domain, which connects it to
//! the device's controller.

mod allocation;
pub(crate) mod endpoint;
mod irq_domain;
pub(crate) mod msi_device;
pub(crate) mod vector_table;
