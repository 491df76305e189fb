//! Machine life cycle: create, save, restore, and lose power.

mod creation;
mod power;
mod restore;
mod save;
