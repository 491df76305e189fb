//! Tries every kind of endpoint on every parent, behind every layer, in every environment. The
//! results come from actual trials rather than from a table.
//!
//! For each combination, we build a machine with an endpoint of each kind on its bus. A trial
//! creates the endpoint's domain and allocates its vectors. The endpoint then sends messages
//! through the bus, and through the IOMMU or the remapping unit if the machine has one, while its
//! interrupts move between CPUs. The trial adds and frees vectors, releases all resources, and
//! repeats all of these steps on the same machine. The combination works if each message arrived
//! exactly once at the right CPU and all resources were released. If the drivers refuse the
//! combination, the outcome states their reason.
//!
//! ```
//! use doorbell_matrix::{Cell, Endpoint, Layer, Outcome, Parent, World, try_cell};
//!
//! let cell = Cell {
//!     endpoint: Endpoint::PciMultiMsi,
//!     parent: Parent::X86Vector,
//!     layer: Layer::None,
//!     world: World::BareMetal,
//! };
//! let Outcome::Refused(reason) = try_cell(cell) else { panic!("groups need remapping") };
//! assert!(reason.contains("x86-vector"));
//! assert_eq!(try_cell(Cell { layer: Layer::Remapping, ..cell }), Outcome::Works);
//! ```
#![forbid(unsafe_code)]

mod board;
mod cell;
mod device;
mod gic_root;
mod passthrough;
mod root;
mod trial;
mod x86_root;

#[cfg(test)]
mod tests;

pub use cell::{Cell, Endpoint, Layer, Outcome, Parent, World, cells};
pub use passthrough::{Passthrough, PassthroughError};

use board::Board;
use root::BoardConfig;

/// Tries all combinations.
pub fn try_all() -> Vec<(Cell, Outcome)> {
    cells().map(|cell| (cell, try_cell(cell))).collect()
}

/// Tries one combination on a separate machine. A parent without remapping refuses
/// [`Layer::Remapping`].
pub fn try_cell(cell: Cell) -> Outcome {
    match Board::new(BoardConfig::new(cell.parent, cell.layer, cell.world)) {
        Ok(board) => trial::attempt(&board, cell.endpoint),
        Err(reason) => Outcome::Broken(format!("the machine could not be brought up: {reason}")),
    }
}
