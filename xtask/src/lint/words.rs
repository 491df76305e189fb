//! Finds words that the glossary replaces, in names, comments and documents.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::files;
use doorbell_harness::workspace::Workspace;

/// The glossary. The table below the heading lists the refused words in its first column.
const GLOSSARY: &str = "docs/glossary.md";
const HEADING: &str = "## Words that are not used";

/// Extensions of files with names or prose.
const EXTENSIONS: &[&str] = &["rs", "md", "toml", "yaml", "yml"];

/// Returns the locations of refused words.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let glossary = workspace.root.join(GLOSSARY);
    let refused =
        refused(&fs::read_to_string(glossary).with_context(|| format!("cannot read {GLOSSARY}"))?);
    ensure!(!refused.is_empty(), "{GLOSSARY}: no table below `{HEADING}`");
    files::findings(workspace, EXTENSIONS, |file, text| {
        let text = if file == Path::new(GLOSSARY) { "" } else { text };
        let places = places(text, &refused).into_iter();
        places.map(|(line, word, instead)| (line, format!("`{word}`: say `{instead}`"))).collect()
    })
}

/// Parses the refused words and their replacements.
fn refused(glossary: &str) -> Vec<(String, String)> {
    let table = glossary.split_once(HEADING).map_or("", |(_, table)| table);
    let rows =
        table.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|')?.split_once('|'));
    let cells = rows.map(|(words, instead)| (words.trim(), instead.trim()));
    let words = cells.filter(|(words, _)| *words != "word" && !words.starts_with('-'));
    words
        .flat_map(|(words, instead)| {
            words.split(", ").map(move |word| (word.into(), instead.into()))
        })
        .collect()
}

fn places<'a>(text: &str, refused: &'a [(String, String)]) -> Vec<(usize, &'a str, &'a str)> {
    let mut places = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for word in words_of(line) {
            let found = refused.iter().find(|(refused, _)| refused.eq_ignore_ascii_case(word));
            places.extend(found.map(|(word, instead)| (number, word.as_str(), instead.as_str())));
        }
    }
    places
}

/// Returns the words of a line. Names are split into words: `old_name` and `OldName` both consist
/// of two words.
fn words_of(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphabetic()).flat_map(|name| {
        let starts = name.char_indices().scan(false, |after_lower, (at, c)| {
            let is_start = at == 0 || c.is_uppercase() && *after_lower;
            *after_lower = c.is_lowercase();
            Some(is_start.then_some(at))
        });
        let starts: Vec<_> = starts.flatten().collect();
        let ends: Vec<_> = starts.iter().copied().skip(1).chain([name.len()]).collect();
        starts.into_iter().zip(ends).filter_map(|(start, end)| name.get(start..end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "| crate | package |\n\n## Words that are not used\n\nNever:\n\n\
                         | word | instead |\n|---|---|\n\
                         | knot, knots | binding |\n| heap | free |\n";

    #[test]
    fn refused_words_are_read_from_the_second_table() {
        let pair = |word: &str, instead: &str| (word.to_owned(), instead.to_owned());
        assert_eq!(
            refused(TABLE),
            [pair("knot", "binding"), pair("knots", "binding"), pair("heap", "free")]
        );
    }

    #[test]
    fn names_are_split_into_words() {
        let words = |line| words_of(line).collect::<Vec<_>>();
        assert_eq!(
            words("let old_name = ItsList::new(EOI);"),
            ["let", "old", "name", "Its", "List", "new", "EOI"]
        );
    }

    #[test]
    fn only_whole_refused_words_are_found() {
        let text = "// Knots it.\nstruct KnotList;\nlet slipknot = heaped;\n";
        assert_eq!(
            places(text, &refused(TABLE)),
            [(1, "knots", "binding"), (2, "knot", "binding")]
        );
    }
}
