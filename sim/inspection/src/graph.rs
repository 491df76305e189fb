//! A picture of devices, IOMMUs, controllers and CPUs.

mod cpu_groups;
mod layout;
mod model;
mod svg;

pub(crate) use model::Column;
pub(crate) use svg::{Badge, STYLE, inline};

pub use model::Graph;
pub use svg::draw as to_svg;

#[cfg(test)]
mod tests;
