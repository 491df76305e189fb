//! Replaces `/include/` and `/incbin/` with the contents of the files, so that `dtc` opens no
//! files. The scanner follows `dtc`'s own (strings, characters and comments), and where `dtc` would
//! refuse the text, it may find an include that `dtc` would not.

use super::files::{MAX_TEXT, SourceFiles};
use super::preprocess::{MAX_DEPTH, MAX_INCLUDES};
use anyhow::{Context, Result, anyhow, bail};
use std::fmt::Write as _;

/// Returns the preprocessed text with all included files.
pub(super) fn inline(files: &mut SourceFiles, text: &str) -> Result<String> {
    let mut inliner = Inliner { files, out: String::new(), depth: 0, includes: 0 };
    inliner.text(text, 0)?;
    if opens_files(&inliner.out) {
        bail!("{}: a hidden include is not allowed", inliner.files.path(0));
    }
    Ok(inliner.out)
}

/// Returns `true` if `dtc` may open a file, wherever it sees the statement.
fn opens_files(text: &str) -> bool {
    let mut includes = text.match_indices("/include/");
    let is_named = |(at, word): (usize, &str)| {
        text.get(at + word.len()..).is_some_and(|rest| rest.trim_start().starts_with('"'))
    };
    text.contains("/incbin/") || includes.any(is_named)
}

struct Inliner<'f> {
    files: &'f mut SourceFiles,
    out: String,
    depth: usize,
    includes: usize,
}

/// Position in a file, as line markers state it.
struct Place {
    file: usize,
    line: usize,
}

impl Inliner<'_> {
    fn text(&mut self, text: &str, file: usize) -> Result<()> {
        let (mut rest, mut place) = (text, Place { file, line: 1 });
        while !rest.is_empty() {
            let length = token_length(rest).with_context(|| {
                format!("{}: a string, character or comment does not end", self.at(&place))
            })?;
            let (token, after) = rest.split_at(length);
            rest = match token {
                "/include/" => self.include(after, &mut place)?,
                "/incbin/" => self.bytes(after, &mut place)?,
                _ => {
                    self.out.push_str(token);
                    after
                }
            };
            if matches!(token, "/include/" | "/incbin/") {
                continue;
            }
            place.line += token.matches('\n').count();
            if let Some(marked) = token.ends_with('\n').then(|| marker(rest)).flatten() {
                // The marker's own line ends before the line that it numbers.
                place = Place { line: marked.line.saturating_sub(1), ..marked };
            }
        }
        Ok(())
    }

    /// Inserts the file that is named at the start of `rest`, and returns the text after the name.
    fn include<'t>(&mut self, rest: &'t str, place: &mut Place) -> Result<&'t str> {
        let Some((name, after)) = string(rest.trim_start()) else {
            self.out.push_str("/include/"); // `dtc` explains the mistake.
            return Ok(rest);
        };
        self.includes += 1;
        if self.depth == MAX_DEPTH || self.includes > MAX_INCLUDES || self.out.len() > MAX_TEXT {
            bail!("{}: the source includes too many files", self.at(place));
        }
        let file = self.files.open(name, place.file, true).with_context(|| self.at(place))?;
        let _ = writeln!(self.out, "\n# 1 \"<{file}>\"");
        self.depth += 1;
        let text = self.files.text(file);
        self.text(&text, file)?;
        self.depth -= 1;
        place.line += newlines(rest, after);
        let _ = writeln!(self.out, "\n# {} \"<{}>\"", place.line, place.file);
        Ok(after)
    }

    /// Inserts the bytes of the file that is named at the start of `rest`.
    fn bytes<'t>(&mut self, rest: &'t str, place: &mut Place) -> Result<&'t str> {
        let arguments = binary(rest).with_context(|| {
            format!("{}: `/incbin/` needs (\"FILE\") or (\"FILE\", OFFSET, LENGTH)", self.at(place))
        })?;
        let Binary { name, part, after } = arguments;
        let bytes = self.files.bytes(name, place.file).with_context(|| self.at(place))?;
        let bytes = match part {
            None => bytes.as_slice(),
            Some((start, length)) => start
                .checked_add(length)
                .and_then(|end| bytes.get(start..end))
                .ok_or_else(|| anyhow!("{}: {name:?} is too short", self.at(place)))?,
        };
        if self.out.len() + 2 * bytes.len() > MAX_TEXT {
            bail!("{}: the source includes too many bytes", self.at(place));
        }
        self.out.push('[');
        for byte in bytes {
            let _ = write!(self.out, "{byte:02x}");
        }
        self.out.push(']');
        let lines = newlines(rest, after);
        self.out.extend(std::iter::repeat_n('\n', lines));
        place.line += lines;
        Ok(after)
    }

    fn at(&self, place: &Place) -> String {
        format!("{}:{}", self.files.path(place.file), place.line)
    }
}

/// Returns the length of the string, comment, keyword, path or single character at the start of the
/// text, or `None` if it does not end.
fn token_length(text: &str) -> Option<usize> {
    let until = |skipped: usize, end: &str| {
        let length = text.get(skipped..)?.find(end)?;
        Some(skipped + length + end.len())
    };
    let keyword = ["/include/", "/incbin/"].into_iter().find(|word| text.starts_with(word));
    let first = text.chars().next().map_or(0, char::len_utf8);
    match text.as_bytes() {
        [b'"', ..] => string(text).map(|(_, after)| text.len() - after.len()),
        [b'\'', ..] => character_length(text),
        [b'/', b'*', ..] => until(2, "*/"),
        [b'/', b'/', ..] => Some(until(2, "\n").unwrap_or(text.len())),
        [b'/', ..] => Some(keyword.map_or(first, str::len)),
        [b'&', b'{', ..] => until(2, "}"),
        _ => {
            let length = text.find(['"', '\'', '/', '\n', '&']).unwrap_or(text.len());
            Some(length.max(first))
        }
    }
}

/// Splits a string in quotes from the text that follows it. Escapes are not decoded.
fn string(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut bytes = inner.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return Some((inner.get(..at)?, inner.get(at + 1..)?)),
            _ => {}
        }
    }
    None
}

/// Returns the length of a character in single quotes, which ends at a quote without a backslash.
fn character_length(text: &str) -> Option<usize> {
    let quotes = text.match_indices('\'').skip(1);
    let mut ends =
        quotes.filter(|(at, _)| !text.get(..*at).is_some_and(|text| text.ends_with('\\')));
    ends.next().map(|(at, _)| at + 1)
}

/// The arguments of `/incbin/`.
struct Binary<'t> {
    name: &'t str,
    /// Offset and length.
    part: Option<(usize, usize)>,
    /// Text after the arguments.
    after: &'t str,
}

/// Reads the arguments of `/incbin/`.
fn binary(text: &str) -> Option<Binary<'_>> {
    let text = text.trim_start().strip_prefix('(')?.trim_start();
    let (name, text) = string(text).filter(|(name, _)| !name.contains('\\'))?;
    let (part, after) = text.split_once(')')?;
    if part.trim().is_empty() {
        return Some(Binary { name, part: None, after });
    }
    let (start, length) = part.trim().strip_prefix(',')?.split_once(',')?;
    let part = Some((number(start.trim())?, number(length.trim())?));
    Some(Binary { name, part, after })
}

fn number(text: &str) -> Option<usize> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => usize::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => usize::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    }
}

/// Returns the number of line ends between the starts of `rest` and of `after`, its last part.
fn newlines(rest: &str, after: &str) -> usize {
    let read = rest.len().saturating_sub(after.len());
    rest.get(..read).map_or(0, |read| read.matches('\n').count())
}

/// Reads a line marker at the start of a line: `# LINE "<FILE>"`.
fn marker(text: &str) -> Option<Place> {
    let (line, name) = text.strip_prefix("# ")?.split_once(" \"<")?;
    Some(Place { line: line.parse().ok()?, file: name.split_once(">\"")?.0.parse().ok()? })
}
