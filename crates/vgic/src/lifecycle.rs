//! Machine life cycle: create, freeze, save and restore.

mod creation;
pub(crate) mod freeze;
