//! Formats numbers for tables.

/// Formats a number with three significant digits.
pub(super) fn three_digits(number: f64) -> String {
    let decimals = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.decimals$}")
}
