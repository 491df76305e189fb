//! Tables that fit the terminal. Identifiers are shortened from the left; lines are not wrapped.

use crate::print::width;
use comfy_table::{CellAlignment, ContentArrangement, Table as Layout, presets};
use std::fmt;

/// Minimum length of a shortened identifier in characters.
const LEAST_IDENTIFIER: usize = 8;
/// Number of blanks on each side of a cell.
const PADDING: usize = 2;

/// A table of text.
#[derive(Debug)]
pub(crate) struct Table {
    /// The header, followed by the rows.
    rows: Vec<Vec<String>>,
    identifiers: Vec<usize>,
    numbers: usize,
}

impl Table {
    /// Creates a table with a header and no rows.
    pub(crate) fn new<T: Into<String>>(header: impl IntoIterator<Item = T>) -> Self {
        let header = header.into_iter().map(Into::into).collect();
        Self { rows: vec![header], identifiers: Vec::new(), numbers: 0 }
    }

    /// Declares which columns hold identifiers. Identifiers are shortened if the table is too wide.
    pub(crate) fn with_identifiers(self, columns: impl IntoIterator<Item = usize>) -> Self {
        Self { identifiers: columns.into_iter().collect(), ..self }
    }

    /// Right-aligns the first `columns` columns.
    pub(crate) fn with_numbers_first(self, columns: usize) -> Self {
        Self { numbers: columns, ..self }
    }

    /// Adds a row.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Returns `true` if the table fits with identifiers shortened to `least` characters or more.
    pub(crate) fn fits(&self, width: usize, least: usize) -> bool {
        self.width_with(least) <= width
    }

    /// Renders the table. Identifiers are shortened if this makes the table fit `width` columns.
    pub(crate) fn render(&self, width: usize) -> String {
        let longest = self.widths().into_iter().max().unwrap_or(0);
        let limit = (LEAST_IDENTIFIER..=longest).rev().find(|limit| self.fits(width, *limit));
        let limit = limit.unwrap_or(LEAST_IDENTIFIER);
        let mut layout = Layout::new();
        layout.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        for row in &self.rows {
            layout.add_row(row.iter().enumerate().map(|(column, cell)| {
                match self.limit_of(column, limit) {
                    Some(limit) => shortened(cell, limit),
                    None => cell.clone(),
                }
            }));
        }
        for column in layout.column_iter_mut().take(self.numbers) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let lines: Vec<_> = layout.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }

    /// Returns the table's width with identifiers of up to `limit` characters.
    fn width_with(&self, limit: usize) -> usize {
        let widths = self.widths().into_iter().enumerate();
        let shown = widths.map(|(column, width)| {
            self.limit_of(column, limit).map_or(width, |limit| width.min(limit))
        });
        shown.map(|width| width + PADDING).sum()
    }

    /// Returns the maximum cell length in a column, given the limit for identifiers, or `None` if
    /// the column does not hold identifiers. The header is never shortened.
    fn limit_of(&self, column: usize, limit: usize) -> Option<usize> {
        let header = self.rows[0].get(column).map_or(0, |header| header.chars().count());
        self.identifiers.contains(&column).then(|| limit.max(header))
    }

    /// Returns the width of each column.
    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.flat_map(|cell| cell.lines()).map(|line| line.chars().count()).max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(width()))
    }
}

/// Returns the last characters of an identifier, i.e. the node's own name and address.
fn shortened(identifier: &str, limit: usize) -> String {
    let length = identifier.chars().count();
    if length <= limit {
        return identifier.to_owned();
    }
    let kept = identifier.chars().skip(length + 1 - limit);
    std::iter::once('…').chain(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["controller", "kind"]).with_identifiers([0]);
        table.row(["/interrupt-controller@8000000/msi-controller@8200000", "its"]);
        table.row(["/short", "mbi"]);
        table
    }

    #[test]
    fn identifiers_are_shortened_from_the_left() {
        let text = table().render(30);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], " controller              kind");
        assert_eq!(lines[1], " …si-controller@8200000  its");
        assert_eq!(lines[2], " /short                  mbi");
    }

    #[test]
    fn headers_are_never_shortened() {
        let mut table = Table::new(["controllers", "by"]).with_identifiers([0, 1]);
        table.row(["/interrupt-controller@8000000", "IORT/SMMUv3@2b000000"]);
        assert!(table.render(10).starts_with(" controllers  by\n"), "{}", table.render(10));
    }

    #[test]
    fn a_table_that_fits_is_left_alone() {
        assert!(table().render(100).contains("/interrupt-controller@8000000/msi"));
    }

    #[test]
    fn other_columns_are_never_shortened() {
        assert!(table().render(10).lines().all(|line| !line.ends_with('…')));
        assert!(table().render(10).contains("…r@8200000  its"));
    }

    #[test]
    fn lines_are_as_wide_as_asked_for_at_most() {
        for width in 20..80 {
            let text = table().render(width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
        }
    }
}
