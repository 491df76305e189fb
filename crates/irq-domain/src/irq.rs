//! A single interrupt: descriptor, handler cell, control and dispatch.

pub(crate) mod control;
pub(crate) mod descriptor;
pub(crate) mod dispatch;
pub(crate) mod handler;
pub(crate) mod handler_cell;
pub(crate) mod info;
pub(crate) mod registry;
pub(crate) mod shared_line;
