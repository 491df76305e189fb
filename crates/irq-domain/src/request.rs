//! Interrupt requests, and the handles that own the handlers.

pub(crate) mod handle;
pub(crate) mod root_controller;
