//! Growth of operation costs, and of the model's memory, with the number of vCPUs, ITSes and mapped
//! events.

mod machine;
mod size;
mod trend;

pub use size::Size;
pub use trend::Trend;

use crate::probe::MeasureError;
use machine::GrownGic;
use std::fmt;

/// The baseline machine. Each measurement changes one of its numbers.
const USUAL: Size = Size { vcpus: 8, its: 1, events: 1 << 14 };

/// Nearly a million events. Each event has its own LPI, so the number must not exceed the 2^20 −
/// 8192 LPIs that 20 INTID bits provide.
const MILLION: u32 = (1 << 20) - (1 << 14);

/// The number that varies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Dimension {
    /// Number of vCPUs.
    Vcpus,
    /// Number of ITSes.
    Its,
    /// Number of mapped events.
    Events,
}

impl Dimension {
    /// All dimensions.
    pub const ALL: [Self; 3] = [Self::Vcpus, Self::Its, Self::Events];

    /// Returns the values of this dimension that are measured.
    pub const fn values(self) -> &'static [u32] {
        match self {
            Self::Vcpus => &[1, 8, 64, 512],
            Self::Its => &[1, 2, 4, 8],
            Self::Events => &[1 << 10, 1 << 12, 1 << 14, 1 << 17, MILLION],
        }
    }

    const fn size(self, value: u32) -> Size {
        match self {
            Self::Vcpus => Size { vcpus: value, ..USUAL },
            Self::Its => Size { its: value, ..USUAL },
            Self::Events => Size { events: value, ..USUAL },
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Vcpus => "vCPUs",
            Self::Its => "ITSes",
            Self::Events => "mapped events",
        })
    }
}

/// Costs of one operation for the values of one dimension.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Row {
    /// The number that varies.
    pub dimension: Dimension,
    /// Name of the operation.
    pub operation: &'static str,
    /// Each value of the dimension, with the cost in nanoseconds per operation.
    pub points: Vec<(u32, f64)>,
}

impl Row {
    /// Classifies the growth of the cost.
    pub fn trend(&self) -> Trend {
        Trend::of(&self.points)
    }
}

/// Heap memory used by the model, in bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Memory {
    /// Memory for a machine with one vCPU and no LPIs.
    pub idle: usize,
    /// Memory for each additional vCPU on a machine without LPIs.
    pub vcpu: f64,
    /// Memory for each additional vCPU on a machine with an ITS.
    pub vcpu_with_its: f64,
    /// Memory for each mapped event beyond the first 4,096.
    pub event: f64,
}

/// Results for all dimensions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Growth {
    /// Costs of operations.
    pub rows: Vec<Row>,
    /// Memory of the model.
    pub memory: Memory,
}

/// Measures costs and memory. `heap` must return the number of bytes that are currently allocated.
///
/// # Errors
/// Returns an error if an operation fails.
pub fn measure(heap: &dyn Fn() -> usize) -> Result<Growth, MeasureError> {
    let mut rows = Vec::new();
    for dimension in Dimension::ALL {
        rows.extend(measure_along(dimension)?);
    }
    Ok(Growth { rows, memory: memory(heap)? })
}

fn measure_along(dimension: Dimension) -> Result<Vec<Row>, MeasureError> {
    let mut rows: Vec<Row> = Vec::new();
    for value in dimension.values() {
        let failed = |reason| MeasureError::Case(format!("{value} {dimension}"), reason);
        let costs = GrownGic::new(dimension.size(*value)).and_then(GrownGic::costs);
        for (operation, time) in costs.map_err(failed)? {
            match rows.iter_mut().find(|row| row.operation == operation) {
                Some(row) => row.points.push((*value, time)),
                None => rows.push(Row { dimension, operation, points: vec![(*value, time)] }),
            }
        }
    }
    Ok(rows)
}

/// Measures only the memory, in the same way as [`measure`].
///
/// # Errors
/// Returns an error if a machine cannot be created.
pub fn memory(heap: &dyn Fn() -> usize) -> Result<Memory, MeasureError> {
    let failed = |reason| MeasureError::Case("memory".to_owned(), reason);
    let without_lpis = |vcpus| machine::bytes_without_lpis(vcpus, heap).map_err(failed);
    let with_events = |size| machine::bytes(size, heap).map_err(failed);
    let (idle, crowd) = (without_lpis(1)?, without_lpis(512)?);
    let usual = with_events(USUAL)?;
    let wide = with_events(Size { vcpus: 512, ..USUAL })?;
    let few = with_events(Size { events: 1 << 12, ..USUAL })?;
    let many = with_events(Size { events: MILLION, ..USUAL })?;
    Ok(Memory {
        idle,
        vcpu: per(idle, crowd, 511),
        vcpu_with_its: per(usual, wide, 512 - USUAL.vcpus),
        event: per(few, many, MILLION - (1 << 12)),
    })
}

fn per(less: usize, more: usize, count: u32) -> f64 {
    let bytes = u32::try_from(more.saturating_sub(less)).unwrap_or(u32::MAX);
    f64::from(bytes) / f64::from(count)
}
