//! One HTML page for readers who don't have the command.

mod anchors;
mod cpus;
mod findings;
mod lines;
mod page;
mod routes;

pub use findings::judge;
pub use page::{Page, RunPart, SCRIPT, hash, style};

#[cfg(test)]
pub(crate) use routes::cards as route_cards;
#[cfg(test)]
mod tests;
