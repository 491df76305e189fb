//! Properties and models.

mod board;
mod matrix;
mod messages;
mod parent;
mod random;
mod remapping;
