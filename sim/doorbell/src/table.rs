//! Tables that fit the terminal. On a terminal, identifiers are shortened, but distinct identifiers
//! in a column remain distinct. Instead of shortening them beyond recognition, a table prints each
//! row on two lines. Other outputs, such as a pipe, only shorten very long identifiers.

mod shortening;

use crate::print::width;
use comfy_table::{CellAlignment, ContentArrangement, Table as Layout, presets};
use doorbell_inspection::inspect::Rows;
use std::fmt;

/// Minimum length of a shortened identifier in characters.
const LEAST_IDENTIFIER: usize = 8;
/// Length in characters at which an identifier can still be recognized. A table that would show
/// fewer prints each row on two lines.
const RECOGNIZABLE: usize = 20;
/// Indentation of a row's second line.
const INDENT: &str = "    ";
/// Maximum length of an identifier in characters if the output isn't a terminal, so that one
/// identifier can't make every row long. Paths of devicetree nodes are not longer.
const MAX_NAME: usize = 1024;
/// Number of blanks on each side of a cell.
const PADDING: usize = 2;

/// A table of text.
#[derive(Debug)]
pub(crate) struct Table {
    /// The header, followed by the rows.
    rows: Vec<Vec<String>>,
    /// Width of each column, and of its header.
    widths: Vec<(usize, usize)>,
    identifiers: Vec<usize>,
    numbers: usize,
}

impl Table {
    /// Creates a table with a header and no rows.
    pub(crate) fn new<T: Into<String>>(header: impl IntoIterator<Item = T>) -> Self {
        let mut table =
            Self { rows: Vec::new(), widths: Vec::new(), identifiers: Vec::new(), numbers: 0 };
        table.row(header);
        for (width, header) in &mut table.widths {
            *header = *width;
        }
        table
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
        let cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        self.widths.resize(self.widths.len().max(cells.len()), (0, 0));
        for (cell, (width, _)) in cells.iter().zip(&mut self.widths) {
            let lines = cell.lines().map(|line| line.chars().count());
            *width = lines.max().unwrap_or(0).max(*width);
        }
        self.rows.push(cells);
    }

    /// Returns `true` if the table fits `width` with identifiers shortened to `least` characters.
    pub(crate) fn fits(&self, width: usize, least: usize) -> bool {
        self.width_with(least) <= width
    }

    /// Renders the table. Identifiers are shortened if the table is wider than `width` columns.
    /// Without a width, only those of more than [`MAX_NAME`] characters are.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let stacked = width.and_then(|width| self.on_two_lines(width));
        stacked.unwrap_or_else(|| self.on_one_line(width))
    }

    /// Renders each row on two lines, if identifiers would not be recognizable on one.
    fn on_two_lines(&self, width: usize) -> Option<String> {
        let on_one = self.shown_characters(width);
        if on_one >= RECOGNIZABLE {
            return None;
        }
        let below = width.saturating_sub(INDENT.len());
        let splits = (1..self.widths.len()).map(|at| (self.part(0, at), self.part(at, usize::MAX)));
        let shown = splits.map(|(first, second)| {
            let shown = first.shown_characters(width).min(second.shown_characters(below));
            (shown, first, second)
        });
        // Of several, the last has the most columns on the first line.
        let (on_two, first, second) = shown.max_by_key(|(shown, ..)| *shown)?;
        let (first, second) = (first.on_one_line(Some(width)), second.on_one_line(Some(below)));
        let has_a_line_for_each = |text: &str| text.lines().count() == self.rows.len();
        if on_two <= on_one || !has_a_line_for_each(&first) || !has_a_line_for_each(&second) {
            return None;
        }
        let mut lines = Vec::new();
        for (first, second) in first.lines().zip(second.lines()) {
            lines.push(first.to_owned());
            if !second.is_empty() {
                lines.push(format!("{INDENT}{second}"));
            }
        }
        Some(lines.join("\n"))
    }

    /// Returns the number of characters to which identifiers are shortened, or `usize::MAX` if the
    /// table fits `width`.
    fn shown_characters(&self, width: usize) -> usize {
        if self.fits(width, usize::MAX) { usize::MAX } else { self.longest_identifier(width) }
    }

    /// Returns the columns from `begin` up to `end` as a table.
    fn part(&self, begin: usize, end: usize) -> Self {
        let cut = |row: &Vec<String>| row.iter().take(end).skip(begin).cloned().collect();
        let identifiers = self.identifiers.iter().filter(|column| **column < end);
        Self {
            rows: self.rows.iter().map(cut).collect(),
            widths: self.widths.iter().take(end).skip(begin).copied().collect(),
            identifiers: identifiers.filter_map(|column| column.checked_sub(begin)).collect(),
            numbers: self.numbers.min(end).saturating_sub(begin),
        }
    }

    fn on_one_line(&self, width: Option<usize>) -> String {
        let limit = width.map_or(MAX_NAME, |width| self.longest_identifier(width));
        let shortened: Vec<_> =
            (0..self.widths.len()).map(|column| self.column(column, limit)).collect();
        let mut layout = Layout::new();
        layout.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        for (index, row) in self.rows.iter().enumerate() {
            layout.add_row(row.iter().zip(&shortened).map(|(cell, column)| {
                let cell = column.as_ref().and_then(|cells| cells.get(index)).unwrap_or(cell);
                cell.as_str()
            }));
        }
        for column in layout.column_iter_mut().take(self.numbers) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let lines: Vec<_> = layout.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }

    /// Returns the cells of a column of identifiers with up to `limit` characters, or `None` if
    /// nothing in the column has to be shortened.
    fn column(&self, column: usize, limit: usize) -> Option<Vec<String>> {
        let limit = self.limit_of(column, limit)?;
        let (width, _) = *self.widths.get(column)?;
        let cells = || self.rows.iter().map(|row| row.get(column).map_or("", String::as_str));
        (width > limit).then(|| shortening::shortened(cells(), limit))
    }

    /// Returns the greatest identifier length with which the table fits `width`, or the minimum if
    /// it doesn't fit.
    fn longest_identifier(&self, width: usize) -> usize {
        let longest = self.widths.iter().map(|(width, _)| *width).max().unwrap_or(0);
        if self.fits(width, longest) {
            return longest;
        }
        // Invariant: the table fits with `least` if it fits at all, and does not fit with `most`.
        let (mut least, mut most) = (LEAST_IDENTIFIER, longest.max(LEAST_IDENTIFIER + 1));
        while most - least > 1 {
            let middle = usize::midpoint(least, most);
            if self.fits(width, middle) { least = middle } else { most = middle }
        }
        least
    }

    /// Returns the table's width with identifiers of up to `limit` characters.
    fn width_with(&self, limit: usize) -> usize {
        let widths = self.widths.iter().enumerate();
        let shown = widths.map(|(column, (width, _))| {
            self.limit_of(column, limit).map_or(*width, |limit| *width.min(&limit))
        });
        shown.map(|width| width + PADDING).sum()
    }

    /// Returns the maximum cell length in a column, given the limit for identifiers, or `None` if
    /// the column does not hold identifiers. The header is never shortened.
    fn limit_of(&self, column: usize, limit: usize) -> Option<usize> {
        let header = self.widths.get(column).map_or(0, |(_, header)| *header);
        self.identifiers.contains(&column).then(|| limit.max(header))
    }
}

impl From<Rows> for Table {
    fn from(rows: Rows) -> Self {
        let mut table = Self::new(rows.header).with_identifiers(rows.identifiers.iter().copied());
        rows.rows.into_iter().for_each(|row| table.row(row));
        table
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(width()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use std::collections::BTreeSet;

    fn table() -> Table {
        let mut table = Table::new(["controller", "kind"]).with_identifiers([0]);
        table.row(["/interrupt-controller@8000000/msi-controller@8200000", "its"]);
        table.row(["/short", "mbi"]);
        table
    }

    #[test]
    fn identifiers_are_shortened_from_the_left() {
        let text = table().render(Some(30));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], " controller              kind");
        assert_eq!(lines[1], " …si-controller@8200000  its");
        assert_eq!(lines[2], " /short                  mbi");
    }

    #[test]
    fn headers_are_never_shortened() {
        let mut table = Table::new(["controllers", "by"]).with_identifiers([0, 1]);
        table.row(["/interrupt-controller@8000000", "IORT/SMMUv3@2b000000"]);
        let text = table.render(Some(10));
        assert!(text.starts_with(" controllers  by\n"), "{text}");
    }

    #[test]
    fn a_table_that_fits_is_left_alone() {
        assert!(table().render(Some(100)).contains("/interrupt-controller@8000000/msi"));
    }

    #[test]
    fn only_identifier_columns_are_shortened() {
        let text = table().render(Some(10));
        assert!(text.lines().all(|line| !line.ends_with('…')));
        assert!(text.contains("…r@8200000  its"));
    }

    #[test]
    fn lines_are_never_wider_than_requested() {
        for width in 20..80 {
            let text = table().render(Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
        }
    }

    /// Two rows of `doorbell inspect`, about devices with the given names.
    fn devices(names: [&str; 2]) -> Table {
        let header = ["device", "kind", "enabled", "requesters", "DeviceIDs", "controller", "by"];
        let mut table = Table::new(header).with_identifiers([0, 1, 5, 6]);
        for name in names {
            let controller = "/interrupt-controller@8000000/msi-controller@8200000";
            let [kind, ids] = ["pci-host-ecam-generic", "0x10000+0x10000"];
            table.row([name, kind, "yes", "0x0+0x10000", ids, controller, "msi-parent"]);
        }
        table
    }

    #[test]
    fn a_row_that_is_too_wide_has_two_lines() {
        let text = devices(["/pcie@10000000", "/pcie@20000000"]).render(Some(80));
        let lines: Vec<_> = text.lines().collect();
        let first = " /pcie@10000000  pci-host-ecam-generic  yes      0x0+0x10000";
        assert_eq!(lines[2], format!("{first}  0x10000+0x10000"));
        let second = "     /interrupt-controller@8000000/msi-controller@8200000  msi-parent";
        assert_eq!(lines[3], second);
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn long_names_can_be_told_apart_at_80_columns() {
        let long = "/soc/interconnect@20000000/bus@30000000/pcie-controller@40000000";
        for (from, to) in [("40000000", "40000001"), ("bus@3", "bus@9"), ("/soc", "/sys")] {
            let text = devices([long, &long.replace(from, to)]).render(Some(80));
            let names = text.lines().filter(|line| line.contains("pci-host-ecam"));
            let names: Vec<_> = names.map(|line| line.split_whitespace().next()).collect();
            assert!(names.len() == 2 && names[0] != names[1], "{text}");
            assert!(names.iter().flatten().all(|name| name.chars().count() >= RECOGNIZABLE));
        }
    }

    #[test]
    fn an_enormous_identifier_is_fitted_to_the_table_width() {
        let mut table = Table::new(["identifier"]).with_identifiers([0]);
        table.row(["x".repeat(1 << 24)]);
        assert_eq!(table.longest_identifier(100), 98);
    }

    /// Node names that resemble each other like those of a real machine.
    const NAME: &str = "(/soc)?(/pcie@2[08]00000{1,3}|/bus){0,3}/(00:0[0-3]\\.0|i2c|its@[0-2]0)";

    proptest! {
        #[test]
        fn shortening_keeps_rows_complete_and_names_distinct(
            names in vec((NAME, "[a-z]{0,9}"), 1..20),
            width in proptest::option::of(8usize..80),
        ) {
            let mut table = Table::new(["name", "kind"]).with_identifiers([0]);
            for (name, kind) in &names {
                table.row([name, kind]);
            }
            let text = table.on_one_line(width);
            prop_assert_eq!(text.lines().count(), names.len() + 1);
            let shown = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
            let shown: Vec<_> = text.lines().skip(1).map(shown).collect();
            let given = names.iter().map(|(name, _)| name);
            let pairs: BTreeSet<_> = given.clone().zip(&shown).collect();
            prop_assert_eq!(pairs.len(), given.collect::<BTreeSet<_>>().len());
            prop_assert_eq!(pairs.len(), shown.iter().collect::<BTreeSet<_>>().len(), "{}", text);
            for ((name, kind), line) in names.iter().zip(text.lines().skip(1)) {
                prop_assert!(line.ends_with(kind.as_str()));
                prop_assert!(width.is_some() || line.contains(name.as_str()));
            }
        }
    }
}
