//! Interrupt requests, and the handles that own the handlers.

pub(crate) mod deferred_free;
pub(crate) mod handle;
pub(crate) mod owner;
pub(crate) mod per_cpu;
pub(crate) mod root_controller;
