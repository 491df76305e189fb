//! Small plot of a device's latencies on a logarithmic time axis.

use crate::print::duration;
use doorbell_machine::{Latency, Report};

/// Number of columns of a plot. A column is two units wide.
const COLUMNS: u16 = 60;
/// Height of a plot.
const HEIGHT: u64 = 24;

/// Plot of one device's latencies. All plots of a report have the same time axis.
#[derive(Debug)]
pub(super) struct LatencyPlot {
    pub(super) p50: String,
    pub(super) p99: String,
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) bars: Vec<Bar>,
    /// Horizontal positions of the 50th and 99th percentiles.
    pub(super) marks: [u64; 2],
}

/// Column of the plot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bar {
    pub(super) x: u64,
    pub(super) y: u64,
    pub(super) height: u64,
}

/// Time axis of all plots of a report, as logarithms of the least and the greatest time.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeScale {
    least: f64,
    most: f64,
}

impl TimeScale {
    /// Returns the time axis for a run's plots; `None` if the run measured no latencies.
    pub(super) fn of(report: &Report) -> Option<Self> {
        let all = report.latency()?;
        let (least, most) = (all.bins.first()?.0, all.bins.last()?.0);
        Some(Self { least: logarithm(least), most: logarithm(most).max(logarithm(least) + 0.1) })
    }

    /// Returns the number of the column that contains a time.
    fn column(self, nanoseconds: u64) -> u64 {
        let share = (logarithm(nanoseconds) - self.least) / (self.most - self.least);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a few columns"
        )]
        let column = (share.clamp(0.0, 1.0) * f64::from(COLUMNS - 1)).round() as u64;
        column
    }
}

#[expect(clippy::cast_precision_loss, reason = "a logarithm for display")]
fn logarithm(nanoseconds: u64) -> f64 {
    (nanoseconds.max(1) as f64).log2()
}

impl LatencyPlot {
    pub(super) fn of(latency: &Latency, scale: TimeScale) -> Self {
        let mut columns = [0_u64; COLUMNS as usize];
        for (limit, count) in &latency.bins {
            let column = usize::try_from(scale.column(*limit)).unwrap_or(usize::MAX);
            columns.get_mut(column).into_iter().for_each(|sum| *sum += count);
        }
        let most = columns.iter().copied().max().unwrap_or(0).max(1);
        let bars = (0..).zip(columns).filter(|(_, count)| *count > 0).map(|(column, count)| {
            let height = (count * HEIGHT).div_ceil(most);
            Bar { x: 2 * column, y: HEIGHT - height, height }
        });
        Self {
            p50: duration(latency.p50),
            p99: duration(latency.p99),
            width: 2 * u64::from(COLUMNS),
            height: HEIGHT,
            bars: bars.collect(),
            marks: [latency.p50, latency.p99].map(|time| 2 * scale.column(time) + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use doorbell_machine::{BuildOptions, RunOptions, build, embedded, run};

    #[test]
    fn latency_bars_and_marks_lie_inside_the_plot() {
        let cove = embedded::machine("cove").and_then(|machine| machine.firmware.describe().ok());
        let machine = cove.and_then(|machine| build(&machine, &BuildOptions::default()).ok());
        let options = RunOptions { messages: 20, ..RunOptions::default() };
        let report = machine.and_then(|machine| run(machine, &options, &mut |_| {}).ok());
        let report = report.expect("an embedded machine runs");
        let scale = TimeScale::of(&report).expect("messages were handled");
        for device in &report.devices {
            let latency = device.latency.as_ref().expect("every device sent messages");
            let plot = LatencyPlot::of(latency, scale);
            assert!(plot.bars.iter().any(|bar| bar.height == HEIGHT), "{plot:?}");
            for bar in &plot.bars {
                assert!(bar.x < plot.width && bar.y + bar.height == HEIGHT && bar.height > 0);
            }
            assert!(plot.marks[0] <= plot.marks[1] && plot.marks[1] < plot.width, "{plot:?}");
            // A percentile is the upper limit of a bin that contains messages.
            for mark in plot.marks {
                assert!(plot.bars.iter().any(|bar| bar.x + 1 == mark), "{plot:?}");
            }
        }
    }

    #[test]
    fn the_time_axis_is_logarithmic() {
        let scale = TimeScale { least: logarithm(1000), most: logarithm(1_000_000) };
        let columns = [1, 1000, 31_623, 1_000_000, u64::MAX].map(|time| scale.column(time));
        assert_eq!(columns, [0, 0, 30, 59, 59]);
    }
}
