//! The contents of a description, plus capacities from known registers.

mod capacity;
mod listing;
mod report;
mod rows;
mod statements;

pub use capacity::CapacityRow;
pub use listing::{Listing, Listings};
pub use report::{
    ControllerRow, CpuRow, DeviceRow, GicRow, Inspection, ParentRow, RangeRow, RedistributorRow,
    RouteRow, SecondaryGicRow, StreamRow,
};
pub use rows::{Rows, addresses, first_names, ranges, yes_no};
pub use statements::{Statement, statement};
