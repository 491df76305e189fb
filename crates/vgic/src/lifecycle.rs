//! Creation, freeze, save and restore of a machine.

mod creation;
pub(crate) mod freeze;
