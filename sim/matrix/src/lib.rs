//! Every kind of endpoint on every parent, behind every layer, in every world: tried, not looked
//! up.
//!
//! For each combination a machine is built, with an endpoint of each kind on its bus. A trial makes
//! the endpoint's domain and allocates its vectors. It has the endpoint send through the bus – and
//! the IOMMU or the remapping unit, if there is one – while its interrupts move. It adds and frees
//! vectors, tears everything down, and does all that again on the same machine. The cell works if
//! each message arrived once where it should and if everything was given back. It is refused if the
//! drivers refused, and the reason is theirs.
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

/// Tries them all.
pub fn try_all() -> Vec<(Cell, Outcome)> {
    cells().map(|cell| (cell, try_cell(cell))).collect()
}

/// Tries one, on a machine of its own. Remapping of a parent that has none is refused.
pub fn try_cell(cell: Cell) -> Outcome {
    match Board::new(BoardConfig::new(cell.parent, cell.layer, cell.world)) {
        Ok(board) => trial::attempt(&board, cell.endpoint),
        Err(reason) => Outcome::Broken(format!("the machine does not come up: {reason}")),
    }
}
