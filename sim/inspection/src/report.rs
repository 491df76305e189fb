//! One HTML page for readers who don't have the command.

mod anchors;
mod findings;
mod page;

pub use findings::judge;
pub use page::{Page, RunPart, SCRIPT, hash, style};

#[cfg(test)]
mod tests;
