//! Replaces `#include` lines with the included text, so that `cpp` opens no files. Line markers
//! state the file and line of each piece of text.
//!
//! A file is inserted even if the line is within a condition that is false: `cpp` then skips its
//! text. For the same reason, a file that cannot be read becomes an `#error` line, which matters
//! only if `cpp` does not skip it.

use super::files::{MAX_TEXT, SourceFiles};
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Maximum depth of nested includes.
pub(super) const MAX_DEPTH: usize = 64;
/// Maximum number of includes.
pub(super) const MAX_INCLUDES: usize = 1 << 14;

/// Action for a line.
#[derive(PartialEq, Eq, Debug)]
enum Line<'l> {
    /// Pass it to `cpp`.
    Keep,
    /// Pass it to `cpp`, and repeat the number of the next line, because `cpp` ignores the markers
    /// of lines that it skips.
    Condition,
    /// Replace it with the text of a file.
    Include { name: &'l str, quoted: bool },
    /// Remove it: a line marker of an earlier preprocessor, or a hint for another compiler.
    Remove,
    /// Report a directive or operator that would open a file or forge a position, or a quote
    /// without its end.
    Refuse,
}

/// Returns the text of the first file, with its includes.
pub(super) fn expand(files: &mut SourceFiles) -> Result<String> {
    let mut expansion = Expansion {
        files,
        out: String::new(),
        open: Vec::new(),
        includes: 0,
        pastes: false,
        parts: BTreeSet::new(),
    };
    expansion.file(0)?;
    let is_built = |name: &&str| is_concatenation(name, &expansion.parts);
    if expansion.pastes && OPENING.iter().any(is_built) {
        let path = expansion.files.path(0);
        bail!("{path}: pasting words to an operator that opens files is not allowed");
    }
    Ok(expansion.out)
}

struct Expansion<'f> {
    files: &'f mut SourceFiles,
    out: String,
    /// The files that are being read.
    open: Vec<usize>,
    includes: usize,
    /// `true` if a macro may paste words together.
    pastes: bool,
    /// Words that are substrings of the name of an operator that opens files.
    parts: BTreeSet<&'static str>,
}

/// Operators of `cpp` that open files. Directives can only do that if they are known.
const OPENING: [&str; 4] = ["__has_include", "__has_include_next", "__has_embed", "_Pragma"];

impl Expansion<'_> {
    fn file(&mut self, file: usize) -> Result<()> {
        self.open.push(file);
        self.mark(1, file);
        let text = self.files.text(file);
        let (mut rest, mut number, mut in_comment) = (&*text, 1, false);
        while !rest.is_empty() {
            let (line, after, count) = logical_line(rest);
            (rest, number) = (after, number + count);
            let was_in_comment = in_comment;
            let code = code_of(line, &mut in_comment);
            if line.trim_end().ends_with('\\') {
                bail!("{}: the last line ends with a backslash", self.files.path(file));
            }
            self.pastes |= code.as_deref().is_some_and(pastes);
            self.parts.extend(code.as_deref().map(parts).into_iter().flatten());
            let action = code.as_deref().map_or(Line::Refuse, action);
            if matches!(action, Line::Keep | Line::Condition) {
                self.out.push_str(line);
                self.out.push('\n');
            } else {
                self.out.push_str(if was_in_comment { "*/\n" } else { "" });
                self.replace(&action, file)?;
                self.mark(number - 1, file);
                self.out.push_str(if in_comment { "/*\n" } else { "\n" });
            }
            if action == Line::Condition && !in_comment {
                self.mark(number, file);
            }
        }
        if in_comment {
            bail!("{}: a comment does not end", self.files.path(file));
        }
        self.open.pop();
        Ok(())
    }

    /// Writes the replacement of a line.
    fn replace(&mut self, action: &Line<'_>, file: usize) -> Result<()> {
        match *action {
            Line::Include { name, quoted } => {
                self.includes += 1;
                if self.includes > MAX_INCLUDES || self.out.len() > MAX_TEXT {
                    bail!("the source includes too many files");
                }
                match self.files.open(name, file, quoted) {
                    Ok(inner) if self.open.contains(&inner) || self.open.len() == MAX_DEPTH => {
                        self.error(&format!("{name:?} includes itself, or is nested too deeply"));
                    }
                    Ok(inner) => self.file(inner)?,
                    Err(error) => self.error(&error.to_string()),
                }
            }
            Line::Refuse => self.error(
                "this is not allowed in a devicetree source: a directive or operator that opens \
                 files, or a quote without its end",
            ),
            Line::Keep | Line::Condition | Line::Remove => {}
        }
        Ok(())
    }

    /// Writes an `#error` line. The quotes keep `cpp` from interpreting the text.
    fn error(&mut self, message: &str) {
        let message = message.replace(['"', '\n', '\\'], "'");
        // Writing to a string cannot fail.
        let _ = writeln!(self.out, "#error \"{message}\"");
    }

    fn mark(&mut self, line: usize, file: usize) {
        let _ = writeln!(self.out, "#line {line} \"<{file}>\"");
    }
}

/// Splits off a line, with the lines that a backslash joins to it. Returns it, the rest, and the
/// number of lines.
fn logical_line(text: &str) -> (&str, &str, usize) {
    let (mut end, mut count) = (0, 1);
    loop {
        let Some(length) = text.get(end..).and_then(|rest| rest.find('\n')) else {
            return (text, "", count);
        };
        let line = text.get(end..end + length).unwrap_or_default();
        end += length;
        if !line.trim_end().ends_with('\\') {
            return (
                text.get(..end).unwrap_or_default(),
                text.get(end + 1..).unwrap_or_default(),
                count,
            );
        }
        (end, count) = (end + 1, count + 1);
    }
}

/// Returns a line without its comments, as `cpp` reads it: joined lines are one line. Returns
/// `None` if a string does not end: `cpp` and `dtc` read what follows differently.
fn code_of(line: &str, in_comment: &mut bool) -> Option<String> {
    let without_join = |line: &str| {
        let line = line.trim_end();
        line.strip_suffix('\\').unwrap_or(line).to_owned()
    };
    let joined: String = line.split('\n').map(without_join).collect();
    let (mut code, mut rest) = (String::new(), joined.as_str());
    while let Some(first) = rest.chars().next() {
        if *in_comment {
            let Some(end) = rest.find("*/") else { break };
            (*in_comment, rest) = (false, rest.get(end + 2..).unwrap_or_default());
            code.push(' ');
        } else if rest.starts_with("//") {
            break;
        } else if let Some(after) = rest.strip_prefix("/*") {
            (*in_comment, rest) = (true, after);
        } else {
            let length =
                if matches!(first, '"' | '\'') { string_length(rest)? } else { first.len_utf8() };
            let (part, after) = rest.split_at(length);
            code.push_str(part);
            rest = after;
        }
    }
    Some(code)
}

/// Returns `true` if a line pastes words together.
fn pastes(code: &str) -> bool {
    code.contains("##") || code.contains("%:%:")
}

/// Returns the words of a line that are substrings of the name of an operator that opens files.
fn parts(code: &str) -> impl Iterator<Item = &'static str> {
    let words = code.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| !word.is_empty()).flat_map(|word| {
        OPENING.iter().filter_map(move |name| name.get(name.find(word)?..)?.get(..word.len()))
    })
}

/// Returns `true` if a name can be pasted together from these parts.
fn is_concatenation(name: &str, parts: &BTreeSet<&str>) -> bool {
    let mut ends = vec![0];
    for end in 1..=name.len() {
        let is_part = |start: &usize| name.get(*start..end).is_some_and(|it| parts.contains(it));
        if ends.iter().any(is_part) {
            ends.push(end);
        }
    }
    ends.last() == Some(&name.len())
}

/// Returns the length of the string at the start of the text, or `None` if it does not end.
fn string_length(text: &str) -> Option<usize> {
    let quote = text.bytes().next();
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        if byte == b'\\' {
            bytes.next();
        } else if Some(byte) == quote {
            return Some(at + 1);
        }
    }
    None
}

fn action(code: &str) -> Line<'_> {
    if OPENING.iter().any(|name| code.contains(name)) {
        return Line::Refuse;
    }
    let Some(directive) = code.trim_start().strip_prefix('#') else { return Line::Keep };
    let directive = directive.trim_start();
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let end = directive.find(|letter| !is_name(letter)).unwrap_or(directive.len());
    let (name, argument) = directive.split_at(end);
    match name {
        "include" => include(argument.trim()),
        "include_next" | "import" | "embed" | "line" | "assert" | "unassert" => Line::Refuse,
        "pragma" | "ident" | "sccs" => Line::Remove,
        "if" | "ifdef" | "ifndef" | "elif" | "elifdef" | "elifndef" | "else" | "endif" => {
            Line::Condition
        }
        _ if name.starts_with(|first: char| first.is_ascii_digit()) => Line::Remove,
        _ => Line::Keep,
    }
}

fn include(argument: &str) -> Line<'_> {
    let between = |open, close| argument.strip_prefix(open)?.split_once(close);
    match (between('"', '"'), between('<', '>')) {
        (Some((name, "")), _) => Line::Include { name, quoted: true },
        (_, Some((name, ""))) => Line::Include { name, quoted: false },
        _ => Line::Refuse,
    }
}
