//! The rows as curves, in a file that browsers show.

use super::{Dimension, Growth, Row};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::error::Error;

const WIDTH: u32 = 900;
/// Pixels of a dimension's panel.
const HEIGHT: u32 = 420;
const FONT: &str = "sans-serif";
/// Least and greatest nanoseconds that are shown.
const TIMES: std::ops::Range<f64> = 5.0..5e9;

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws a panel for each dimension: time over value, both on logarithmic scales. Returns the SVG.
///
/// # Errors
/// The plotting library's.
pub fn plot(growth: &Growth) -> Result<String, Box<dyn Error + Send + Sync>> {
    let mut svg = String::new();
    draw(growth, &mut svg).map_err(|error| error.to_string())?;
    Ok(svg)
}

fn draw(growth: &Growth, svg: &mut String) -> Result<(), Box<dyn Error>> {
    let panels = Dimension::ALL.len();
    let height = HEIGHT * u32::try_from(panels)?;
    let area = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    for (panel, dimension) in area.split_evenly((panels, 1)).iter().zip(Dimension::ALL) {
        let rows: Vec<_> = growth.rows.iter().filter(|row| row.dimension == dimension).collect();
        draw_panel(panel, dimension, &rows)?;
    }
    area.present()?;
    Ok(())
}

fn draw_panel(
    panel: &Panel<'_>,
    dimension: Dimension,
    rows: &[&Row],
) -> Result<(), Box<dyn Error>> {
    let [.., greatest] = *dimension.values() else { return Ok(()) };
    let least = dimension.values().first().map_or(1, |least| *least);
    // Space at the right for the names.
    let values = f64::from(least)..f64::from(greatest) * f64::from(greatest / least).powf(0.35);
    let mut chart = ChartBuilder::on(panel)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(values.log_scale(), TIMES.log_scale())?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(dimension.to_string()).y_desc("nanoseconds").label_style((FONT, 13)).draw()?;
    for (row, index) in rows.iter().zip(0..) {
        let color = Palette99::pick(index).to_rgba();
        let points = row.points.iter().map(|(value, time)| (f64::from(*value), *time));
        let curve = chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?;
        curve
            .label(row.operation)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], color));
    }
    let mut names = chart.configure_series_labels();
    names.position(SeriesLabelPosition::MiddleRight).label_font((FONT, 13)).draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::growth::Memory;

    #[test]
    fn plot_names_operations_and_dimensions() {
        let row = |dimension: Dimension| Row {
            dimension,
            operation: "message",
            points: dimension.values().iter().map(|value| (*value, 20.0)).collect(),
        };
        let memory = Memory { idle: 1, vcpu: 1.0, vcpu_with_its: 1.0, event: 1.0 };
        let empty = plot(&Growth { rows: Vec::new(), memory }).unwrap();
        let svg = plot(&Growth { rows: Dimension::ALL.map(row).to_vec(), memory }).unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        assert_eq!(svg.matches("message").count(), 3);
        for dimension in Dimension::ALL {
            assert!(svg.contains(&dimension.to_string()), "{dimension}");
        }
        let lines = |svg: &str| svg.matches("<polyline").count();
        assert_eq!(lines(&svg), lines(&empty) + 6, "a curve in each panel, and in its legend");
    }
}
