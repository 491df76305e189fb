//! Tests that use the model as a guest and its VMM do: registers, delivery and sleep.

mod arceos;
mod crowd;
mod delivery;
mod doorbells;
mod every_direct_lpi;
mod frames;
mod mistakes;
mod priorities;
mod reentry;
mod regions;
mod registers;
mod reported_faults;
mod sgi_targets;
mod sleep;
mod sleep_races;
mod unfinished;
mod waker;
