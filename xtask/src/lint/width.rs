//! Finds lines wider than the limit.

use std::path::Path;

use anyhow::Result;

use super::files;
use doorbell_harness::workspace::Workspace;

/// Maximum width of a line in characters.
pub(crate) const MOST: usize = 100;

/// Files with prose or code.
const EXTENSIONS: &[&str] = &["rs", "md", "toml", "yaml", "yml"];

/// Recorded output of the command, whose lines are as wide as its tables.
const RECORDED: &str = "sim/doorbell/tests/cmd";

/// Returns the lines that are too wide and could be wrapped.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    files::findings(workspace, EXTENSIONS, wide_lines)
}

fn wide_lines(file: &Path, text: &str) -> Vec<(usize, String)> {
    if file.starts_with(RECORDED) {
        return Vec::new();
    }
    let is_prose = file.extension().is_some_and(|extension| extension == "md");
    let mut is_fenced = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        is_fenced ^= line.trim_start().starts_with("```");
        let width = line.chars().count();
        if width > MOST && !(is_prose && is_fenced) && !is_unbreakable(line) {
            found.push((number, format!("{width} columns, more than {MOST}")));
        }
    }
    found
}

/// Returns `true` for a row of a table, a single word such as an address, the definition of a link,
/// and the header of a manifest's section.
fn is_unbreakable(line: &str) -> bool {
    let text = line.trim_start().trim_start_matches(['/', '!', '#', '*', '-', '>']).trim();
    let definition = text.starts_with('[').then(|| text.split_once("]: ")).flatten();
    let word = definition.map_or(text, |(_, address)| address);
    text.starts_with('|') || !word.contains(' ') || text.starts_with("[target.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(file: &str, line: &str) -> usize {
        wide_lines(Path::new(file), line).len()
    }

    #[test]
    fn the_width_of_a_line_counts_characters_not_bytes() {
        let line = "ä ".repeat(50);
        assert_eq!(count("a.rs", &line), 0);
        assert_eq!(
            wide_lines(Path::new("a.rs"), &format!("\n{line}b")),
            [(2, "101 columns, more than 100".into())]
        );
    }

    #[test]
    fn table_rows_and_urls_may_exceed_the_width() {
        assert_eq!(count("a.md", &format!("| {} |", "a ".repeat(60))), 0);
        assert_eq!(count("a.rs", &format!("//! | {} |", "a ".repeat(60))), 0);
        assert_eq!(count("a.rs", &format!("// https://{}", "a".repeat(120))), 0);
        assert_eq!(count("a.md", &format!("[a page]: https://{}", "a".repeat(120))), 0);
        assert_eq!(count("a.toml", &format!("[target.'cfg({})']", "a ".repeat(60))), 0);
    }

    #[test]
    fn fenced_output_in_markdown_may_exceed_the_width() {
        let text = format!("```\n{}\n```\n", "a ".repeat(60));
        assert_eq!((count("a.md", &text), count("a.rs", &text)), (0, 1));
    }
}
