//! A table of handler runs for each vector on each CPU. Cells are colored by their count.

use crate::run::faults_of;
use doorbell_machine::{DeviceReport, Report, VectorReport};

/// Maximum number of cells. A larger table has one row per device rather than one per vector.
const MAX_CELLS: usize = 20_000;
/// Number of colors, not counting the color for empty cells.
const SHADES: u128 = 6;

/// A heat map.
#[derive(Debug)]
pub(super) struct HeatMap {
    pub(super) cpus: usize,
    /// `true` if each row is a vector, `false` if each row is a device.
    pub(super) of_vectors: bool,
    pub(super) most: u64,
    pub(super) rows: Vec<HeatRow>,
}

/// A row of the heat map, for a vector or a device.
#[derive(Debug)]
pub(super) struct HeatRow {
    pub(super) name: String,
    pub(super) irq: String,
    pub(super) intid: String,
    pub(super) sent: u64,
    pub(super) cells: Vec<Cell>,
    /// The vector's fault; empty if it has none.
    pub(super) fault: String,
}

/// Number of handler runs on one CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) count: u64,
    /// Shade from 0 for a count of 0 to [`SHADES`] for the highest count.
    pub(super) shade: u128,
}

impl HeatMap {
    /// Creates a run's heat map.
    pub(super) fn of(report: &Report) -> Self {
        Self::limited(report, MAX_CELLS)
    }

    fn limited(report: &Report, cells: usize) -> Self {
        let vectors: usize = report.devices.iter().map(|device| device.vectors.len()).sum();
        let of_vectors = vectors.saturating_mul(report.cpus) <= cells;
        let served = report.devices.iter().filter(|device| !device.vectors.is_empty());
        let mut rows: Vec<HeatRow> = served
            .flat_map(|device| {
                if of_vectors { vectors_of(report, device) } else { vec![sum(report, device)] }
            })
            .collect();
        let counts = rows.iter().flat_map(|row| &row.cells).map(|cell| cell.count);
        let most = counts.max().unwrap_or(0);
        for cell in rows.iter_mut().flat_map(|row| &mut row.cells) {
            cell.shade = shade(cell.count, most);
        }
        Self { cpus: report.cpus, of_vectors, most, rows }
    }

    /// Returns the lowest count for each shade in use, for the legend.
    pub(super) fn legend(&self) -> Vec<Cell> {
        let least = |step| u64::try_from(u128::from(self.most) * step / SHADES + 1);
        let mut counts: Vec<_> = (0..SHADES).filter_map(|step| least(step).ok()).collect();
        counts.dedup();
        let counts = std::iter::once(0).chain(counts);
        counts.map(|count| Cell { count, shade: shade(count, self.most) }).collect()
    }
}

/// Returns the shade for a count, relative to `most`. Only a count of 0 has shade 0.
fn shade(count: u64, most: u64) -> u128 {
    if most == 0 { 0 } else { (u128::from(count) * SHADES).div_ceil(u128::from(most)) }
}

fn vectors_of(report: &Report, device: &DeviceReport) -> Vec<HeatRow> {
    let row = |(index, vector): (usize, &VectorReport)| HeatRow {
        name: format!("{}-{index}", device.id),
        irq: vector.irq.to_string(),
        intid: vector.hwirq.to_string(),
        sent: vector.sent,
        cells: cells(report.cpus, &[vector]),
        fault: faults_of(std::slice::from_ref(vector)).join(", "),
    };
    device.vectors.iter().enumerate().map(row).collect()
}

fn sum(report: &Report, device: &DeviceReport) -> HeatRow {
    let vectors: Vec<_> = device.vectors.iter().collect();
    let is_faulty = |vector: &&&VectorReport| !faults_of(std::slice::from_ref(**vector)).is_empty();
    let faults = vectors.iter().filter(is_faulty).count();
    HeatRow {
        name: device.id.clone(),
        irq: format!("{} vectors", vectors.len()),
        intid: String::new(),
        sent: vectors.iter().map(|vector| vector.sent).sum(),
        cells: cells(report.cpus, &vectors),
        fault: if faults == 0 { String::new() } else { format!("{faults} vectors at fault") },
    }
}

fn cells(cpus: usize, vectors: &[&VectorReport]) -> Vec<Cell> {
    let on = |cpu: usize| {
        vectors.iter().map(|vector| vector.per_cpu.get(cpu).copied().unwrap_or(0)).sum()
    };
    (0..cpus).map(|cpu| Cell { count: on(cpu), shade: 0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use doorbell_machine::{BuildOptions, RunOptions, build, embedded, simulate};

    fn report() -> Report {
        let cove = embedded::machine("cove").and_then(|machine| machine.firmware.describe().ok());
        let machine = cove.and_then(|machine| build(&machine, &BuildOptions::default()).ok());
        let options = RunOptions { messages: 5, ..RunOptions::default() };
        let run = machine.and_then(|machine| simulate(machine, &options).ok());
        run.expect("an embedded machine runs")
    }

    fn runs(map: &HeatMap) -> u64 {
        map.rows.iter().flat_map(|row| &row.cells).map(|cell| cell.count).sum()
    }

    #[test]
    fn shades_divide_the_range_of_counts_evenly() {
        assert_eq!([0, 1, 2, 3, 11, 12].map(|count| shade(count, 12)), [0, 1, 1, 2, 6, 6]);
        assert_eq!((shade(1, 1), shade(0, 0)), (6, 0));
        assert_eq!(shade(u64::MAX, u64::MAX), 6);
    }

    #[test]
    fn a_heat_map_with_too_many_vectors_has_a_row_per_device() {
        let report = report();
        let (all, few) = (HeatMap::of(&report), HeatMap::limited(&report, 3));
        assert!(all.of_vectors && !few.of_vectors);
        let vectors: usize = report.devices.iter().map(|device| device.vectors.len()).sum();
        assert_eq!(all.rows.len(), vectors);
        assert!(few.rows.len() < all.rows.len());
        assert_eq!((runs(&all), runs(&few)), (report.totals.delivered, report.totals.delivered));
    }

    #[test]
    fn legend_and_cells_have_the_same_shades() {
        let map = HeatMap::of(&report());
        for step in map.legend() {
            assert_eq!(shade(step.count, map.most), step.shade);
        }
    }
}
