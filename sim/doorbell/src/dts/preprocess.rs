//! Replaces `#include` lines with the included text, so that `cpp` opens no files. Line markers
//! tell `cpp` where each piece of text comes from.
//!
//! A file is inserted even if the line is within a condition that is false: `cpp` then skips its
//! text. For the same reason, a file that cannot be read becomes an `#error` line, which matters
//! only if `cpp` does not skip it.

use super::files::{MAX_TEXT, SourceFiles};
use anyhow::{Result, bail};
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
    /// Report a directive that would open a file, or would forge a position.
    Refuse,
}

/// Returns the text of the first file, with its includes.
pub(super) fn expand(files: &mut SourceFiles) -> Result<String> {
    let mut expansion = Expansion { files, out: String::new(), open: Vec::new(), includes: 0 };
    expansion.file(0)?;
    Ok(expansion.out)
}

struct Expansion<'f> {
    files: &'f mut SourceFiles,
    out: String,
    /// The files that are being read.
    open: Vec<usize>,
    includes: usize,
}

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
            let code = code_of(&line.replace('\r', ""), &mut in_comment);
            let action = action(&code);
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
        self.open.pop();
        Ok(())
    }

    /// Writes the text that stands for a line.
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
            Line::Refuse => self.error("this directive is not allowed in a devicetree source"),
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

/// Returns a line without its comments, as `cpp` reads it: joined lines are one line, and strings
/// end at the end of the line.
fn code_of(line: &str, in_comment: &mut bool) -> String {
    let joined: String =
        line.split('\n').map(|line| line.trim_end().trim_end_matches('\\')).collect();
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
                if matches!(first, '"' | '\'') { string_length(rest) } else { first.len_utf8() };
            let (part, after) = rest.split_at(length);
            code.push_str(part);
            rest = after;
        }
    }
    code
}

/// Returns the length of the string at the start of the text, or that of the text if the string
/// does not end.
fn string_length(text: &str) -> usize {
    let quote = text.bytes().next();
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        if byte == b'\\' {
            bytes.next();
        } else if Some(byte) == quote {
            return at + 1;
        }
    }
    text.len()
}

fn action(code: &str) -> Line<'_> {
    let Some(directive) = code.trim_start().strip_prefix('#') else { return Line::Keep };
    let directive = directive.trim_start();
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let end = directive.find(|letter| !is_name(letter)).unwrap_or(directive.len());
    let (name, argument) = directive.split_at(end);
    match name {
        _ if code.contains("__has_include") || code.contains("__has_embed") => Line::Refuse,
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
