//! Tests of modules that are compiled a second time against other atomics, and so cannot hold them.

mod candidates;
mod events;
mod interrupt;
