//! Cells of tables.

use super::report::{ControllerRow, RangeRow};

/// Maximum number of IOMMUs in a route's row.
const MAX_NAMES: usize = 8;
/// Maximum number of a controller's ranges in its row.
const MAX_RANGES: usize = 16;

/// Joins the first names and states how many others exist.
pub fn first_names<N: AsRef<str>>(names: &[N]) -> String {
    let mut shown: Vec<_> = names.iter().take(MAX_NAMES).map(AsRef::as_ref).collect();
    let more = names.len().checked_sub(MAX_NAMES + 1);
    let more = more.map(|more| format!("and {} more", more + 1));
    shown.extend(more.as_deref());
    shown.join(" ")
}

/// Formats the first ranges of interrupts and how many others exist.
pub fn ranges(ranges: &[RangeRow]) -> String {
    let shown = ranges.iter().take(MAX_RANGES);
    let mut shown: Vec<_> = shown.map(|range| format!("{}+{}", range.first, range.count)).collect();
    if let Some(more) = ranges.len().checked_sub(MAX_RANGES + 1) {
        shown.push(format!("and {} more", more + 1));
    }
    shown.join(" ")
}

impl ControllerRow {
    /// Formats the controller's ranges of interrupts, or its lines.
    pub fn interrupts(&self) -> String {
        match (self.lines.as_slice(), self.vectors) {
            ([], _) | (_, None) => ranges(&self.ranges),
            (lines, Some(vectors)) => {
                let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
                format!("{vectors} by {}", lines.join(" "))
            }
        }
    }
}

/// Formats the first doorbell and how many others exist.
pub fn addresses(doorbells: &[u64]) -> String {
    match doorbells {
        [] => String::new(),
        [only] => format!("{only:#x}"),
        [first, others @ ..] => format!("{first:#x} and {} more", others.len()),
    }
}

/// Formats a truth value.
pub const fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
