//! Sentences of comments and documents, and their lengths in words.

use std::fs;

use anyhow::Result;

use crate::lint::files;
use crate::workspace::Workspace;

/// A sentence and its place.
#[derive(Debug)]
pub(super) struct Sentence {
    /// File and line in which its paragraph begins.
    pub(super) place: String,
    pub(super) text: String,
    pub(super) words: usize,
}

/// Reads the sentences of all Rust files' comments and of all Markdown files.
pub(super) fn read(workspace: &Workspace) -> Result<Vec<Sentence>> {
    let mut all = Vec::new();
    for file in files::with_extensions(workspace, &["rs", "md"])? {
        let text = fs::read_to_string(&file)?;
        let is_rust = file.extension().is_some_and(|extension| extension == "rs");
        let paragraphs =
            if is_rust { paragraphs(comments(&text)) } else { paragraphs(numbered(&text)) };
        let shown = workspace.relative(&file).display();
        for (line, paragraph) in paragraphs {
            all.extend(sentences(&paragraph).map(|text| Sentence {
                place: format!("{shown}:{line}"),
                words: words(text),
                text: text.to_owned(),
            }));
        }
    }
    Ok(all)
}

/// Returns the median length, and the number of sentences with more words than each limit.
pub(super) fn summary<const N: usize>(
    sentences: &[Sentence],
    limits: [usize; N],
) -> (usize, [usize; N]) {
    let mut lengths: Vec<_> = sentences.iter().map(|sentence| sentence.words).collect();
    lengths.sort_unstable();
    let longer = limits.map(|limit| lengths.iter().filter(|words| **words > limit).count());
    (lengths.get(lengths.len() / 2).copied().unwrap_or(0), longer)
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}

/// Returns the comments' lines without their slashes; other lines are empty.
fn comments(text: &str) -> impl Iterator<Item = (usize, &str)> {
    numbered(text).map(|(number, line)| {
        let comment = line.trim_start().strip_prefix("//");
        (number, comment.map_or("", |comment| comment.trim_start_matches(['/', '!'])))
    })
}

/// Joins the lines of each paragraph and of each item of a list. Headings, tables and fenced text
/// are left out.
fn paragraphs<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<(usize, String)> {
    let mut paragraphs: Vec<(usize, String)> = Vec::new();
    let mut is_fenced = false;
    let mut goes_on = false;
    for (number, line) in lines {
        let line = line.trim();
        let is_fence = line.starts_with("```");
        is_fenced ^= is_fence;
        let item = line.strip_prefix("- ").or_else(|| line.strip_prefix("* "));
        let is_prose = !(is_fence || is_fenced || line.is_empty() || line.starts_with(['#', '|']));
        match paragraphs.last_mut().filter(|_| goes_on && item.is_none()) {
            Some((_, text)) if is_prose => {
                text.push(' ');
                text.push_str(line);
            }
            _ if is_prose => paragraphs.push((number, item.unwrap_or(line).to_owned())),
            _ => {}
        }
        goes_on = is_prose;
    }
    paragraphs
}

/// Splits a paragraph after a full stop, a question mark or an exclamation mark that a blank and no
/// small letter follow.
fn sentences(paragraph: &str) -> impl Iterator<Item = &str> {
    let mut rest = paragraph;
    std::iter::from_fn(move || {
        let end = rest.char_indices().find_map(|(at, end)| {
            let after = rest.get(at + end.len_utf8()..)?.trim_start_matches([')', '"', '*', '_']);
            let next = after.strip_prefix(' ')?.trim_start().chars().next()?;
            let ends = matches!(end, '.' | '?' | '!') && !next.is_lowercase();
            ends.then_some(rest.len() - after.len())
        });
        let (sentence, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after.trim_start();
        Some(sentence).filter(|sentence| !sentence.is_empty())
    })
}

/// Counts words: signs alone are none.
fn words(sentence: &str) -> usize {
    sentence.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count()
}

#[cfg(test)]
mod test {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        let paragraphs = paragraphs(comments(text));
        paragraphs.iter().flat_map(|(_, text)| sentences(text)).map(str::to_owned).collect()
    }

    #[test]
    fn a_sentence_goes_on_over_lines_and_ends_with_its_comment() {
        let text =
            "/// One goes\n/// on. (Two ends.) Three, as IHI 0069 §5.3 says\nfn f() {}\n// Four";
        assert_eq!(
            of(text),
            ["One goes on.", "(Two ends.)", "Three, as IHI 0069 §5.3 says", "Four"]
        );
    }

    #[test]
    fn items_are_apart_and_code_and_tables_are_no_prose() {
        let text = "//! # Head\n//! A list:\n//! - one\n//!   more\n//! - two\n//! | a | b |\n\
                    //! ```\n//! let x = 1;\n//! ```\n//! End.\n";
        assert_eq!(of(text), ["A list:", "one more", "two", "End."]);
    }

    #[test]
    fn signs_are_no_words() {
        assert_eq!(words("`a` → b – 3 (c)"), 4);
    }

    #[test]
    fn longer_sentences_are_counted() {
        let sentence = |words| Sentence { place: String::new(), text: String::new(), words };
        let all = [4, 26, 7, 31].map(sentence);
        assert_eq!(summary(&all, [25, 30]), (26, [2, 1]));
    }
}
