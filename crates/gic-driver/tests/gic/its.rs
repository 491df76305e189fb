//! ITS driver tests.

mod setup;

mod adoption;
mod collections;
mod direct;
mod doorbells;
mod events;
mod explain;
mod faults;
mod model;
mod out_of_memory;
mod parent;
mod probing;
mod queue;
mod random;
