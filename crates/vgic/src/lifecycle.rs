//! Creation of a machine, and its freeze, save and restore.

mod creation;
pub(crate) mod freeze;
