//! Positions of nodes and properties in the text of a source.
//!
//! `dtc` states the line and the column at which each node and each property begins. They are those
//! of the preprocessed text: its lines are the source's, but macros and comments move its columns.
//! So we look for the name in the line, and for the end of the statement after it.

use super::files::SourceFiles;
use doorbell_inspection::{Locate, Location};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Number of lines before and after the stated one in which a name is searched.
const NEARBY: usize = 8;
/// Maximum number of lines of a region.
const MAX_LINES: usize = 24;

/// Number of the parent of the root, which does not exist.
const ABOVE_ROOT: usize = usize::MAX;

/// The positions of all nodes and properties of a source.
#[derive(Debug)]
pub(crate) struct Positions {
    files: SourceFiles,
    /// Numbers of nodes, by the number of the parent and the name.
    nodes: HashMap<(usize, String), usize>,
    /// By the number of the node and the name of the property, which is empty for the node itself.
    marks: HashMap<(usize, String), Mark>,
}

/// A position as `dtc` states it.
#[derive(Clone, Copy, Debug)]
struct Mark {
    file: usize,
    line: usize,
    column: usize,
}

impl Positions {
    /// Reads `dtc`'s annotated output.
    pub(super) fn new(files: SourceFiles, annotated: &str) -> Self {
        let (mut nodes, mut marks, mut path) = (HashMap::new(), HashMap::new(), Vec::new());
        for line in annotated.lines().map(str::trim) {
            let (code, comment) = line.rsplit_once(" /* ").unwrap_or((line, ""));
            let mark = mark(comment).filter(|mark| mark.file < files.count());
            let (node, property) = if let Some(head) = code.strip_suffix('{') {
                let name = head.split_whitespace().next_back().unwrap_or_default().to_owned();
                let (parent, next) = (path.last().copied().unwrap_or(ABOVE_ROOT), nodes.len());
                path.push(*nodes.entry((parent, name)).or_insert(next));
                (true, "")
            } else if code.starts_with('}') {
                path.pop();
                continue;
            } else {
                let mut words = code.trim_end_matches(';').split_whitespace();
                (false, words.find(|word| !word.ends_with(':')).unwrap_or_default())
            };
            let mark = mark.filter(|_| node || !property.is_empty());
            if let Some((mark, &node)) = mark.zip(path.last()) {
                marks.entry((node, property.to_owned())).or_insert(mark);
            }
        }
        Self { files, nodes, marks }
    }
}

impl Locate for Positions {
    fn locate(&self, node: &str, property: &str) -> Option<Location> {
        let names = node.split('/').filter(|name| !name.is_empty());
        let node = std::iter::once("/").chain(names).try_fold(ABOVE_ROOT, |parent, name| {
            self.nodes.get(&(parent, name.to_owned())).copied()
        })?;
        let key = |item: &str| (node, item.to_owned());
        let of_property = self.marks.get(&key(property)).filter(|_| !property.is_empty());
        let mark = of_property.or_else(|| self.marks.get(&key("")))?;
        let text: Arc<str> = self.files.text(mark.file);
        let region = match of_property {
            Some(mark) => statement(&text, mark, property),
            None => name_of_node(&text, mark),
        };
        let region = region.or_else(|| whole_line(&text, mark.line))?;
        Some(location(self.files.path(mark.file), &text, &region))
    }
}

/// Reads the first position of a comment such as `<0>:9:23-9:48, <1>:2:1-2:5 */`.
fn mark(comment: &str) -> Option<Mark> {
    let mut parts = comment.strip_prefix('<')?.splitn(3, ':');
    let file = parts.next()?.strip_suffix('>')?.parse().ok()?;
    let line = parts.next()?.parse().ok()?;
    let column = parts.next()?.split_once('-')?.0.parse().ok()?;
    Some(Mark { file, line, column })
}

/// Returns the bytes of a line, without its end.
fn line_range(text: &str, line: usize) -> Option<Range<usize>> {
    let before: usize = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let length = text.get(before..)?.lines().next()?.len();
    Some(before..before + length)
}

fn whole_line(text: &str, line: usize) -> Option<Range<usize>> {
    let range = line_range(text, line)?;
    let line = text.get(range.clone())?;
    let indent = line.len() - line.trim_start().len();
    Some(range.start + indent..range.start + line.trim_end().len().max(indent))
}

/// Returns the region of a property: from its name to the semicolon.
fn statement(text: &str, mark: &Mark, property: &str) -> Option<Range<usize>> {
    let start = nearby(mark.line).find_map(|line| {
        let range = line_range(text, line)?;
        let found = text.get(range.clone())?.match_indices(property).map(|(at, _)| at);
        let named = found.filter(|&at| is_whole(text, range.start + at, property.len()));
        let nearest = named.min_by_key(|at| (at + 1).abs_diff(mark.column))?;
        Some(range.start + nearest)
    })?;
    Some(start..start + statement_length(text.get(start..)?))
}

/// Returns the lines around `line`, nearest first.
fn nearby(line: usize) -> impl Iterator<Item = usize> {
    let others = (1..=NEARBY).flat_map(move |by| [line.saturating_sub(by), line + by]);
    std::iter::once(line).chain(others)
}

/// Returns `true` if the word at `at` is not a part of a longer name.
fn is_whole(text: &str, at: usize, length: usize) -> bool {
    let is_part = |one: char| one.is_ascii_alphanumeric() || ",._+*#?@-".contains(one);
    let before = text.get(..at).and_then(|text| text.chars().next_back());
    let after = text.get(at + length..).and_then(|text| text.chars().next());
    !before.is_some_and(is_part) && !after.is_some_and(is_part)
}

/// Returns the length of a statement, with its semicolon. A statement that does not end, for
/// example because a macro has its end, ends with its line.
fn statement_length(text: &str) -> usize {
    let mut rest = text;
    let read = |rest: &str| text.len() - rest.len();
    while let Some(first) = rest.chars().next() {
        let skipped =
            |end: &str, start: usize| Some(rest.get(start..)?.find(end)? + start + end.len());
        let length = match first {
            ';' => return read(rest) + 1,
            '&' if rest.starts_with("&{") => skipped("}", 2),
            '{' | '}' => break,
            '"' => skipped("\"", 1),
            '/' if rest.starts_with("/*") => skipped("*/", 2),
            '/' if rest.starts_with("//") => skipped("\n", 2),
            _ => None,
        };
        rest = rest.get(length.unwrap_or(first.len_utf8())..).unwrap_or_default();
    }
    text.lines().next().map_or(0, |line| line.trim_end().len())
}

/// Returns the region of a node's name, which precedes the brace at the stated position.
fn name_of_node(text: &str, mark: &Mark) -> Option<Range<usize>> {
    let range = line_range(text, mark.line)?;
    let braces = text.get(range.clone())?.match_indices('{').map(|(at, _)| at);
    let brace = braces.min_by_key(|at| (at + 1).abs_diff(mark.column))? + range.start;
    let before = text.get(..brace)?.trim_end();
    let start = before.rfind(|one: char| one.is_whitespace() || ";:".contains(one));
    let start = start.map_or(0, |at| at + 1);
    (start < before.len()).then_some(start..before.len())
}

/// Returns the location of some bytes of a file, cut off after some lines.
pub(crate) fn location(file: String, text: &str, region: &Range<usize>) -> Location {
    let part = text.get(region.clone()).unwrap_or_default();
    let part: usize = part.split_inclusive('\n').take(MAX_LINES).map(str::len).sum();
    let end = region.start + part;
    let line_start =
        text.get(..region.start).and_then(|text| text.rfind('\n')).map_or(0, |at| at + 1);
    let line_end =
        text.get(end..).and_then(|text| text.find('\n')).map_or(text.len(), |at| end + at);
    let position = |at: usize| {
        let before = text.get(..at).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        (before.matches('\n').count() + 1, line.encode_utf16().count() + 1)
    };
    let (line, column) = position(region.start);
    let (end_line, end_column) = position(end);
    Location {
        file,
        line,
        column,
        end_line,
        end_column,
        text: text.get(line_start..line_end).unwrap_or_default().to_owned(),
        span: region.start - line_start..end - line_start,
    }
}
