//! Replaces `#include` and `/include/` lines with the included text, and `/incbin/` with the bytes
//! of the file, so that neither `cpp` nor `dtc` opens a file. Line markers state the file and line
//! of each piece of text.
//!
//! A file is inserted even if the line is within a condition that is false: `cpp` then skips its
//! text. For the same reason, a file that cannot be read becomes an `#error` line, which matters
//! only if `cpp` does not skip it.

use super::files::{MAX_TEXT, SourceFiles};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Maximum depth of nested includes.
const MAX_DEPTH: usize = 64;
/// Maximum number of includes.
const MAX_INCLUDES: usize = 1 << 14;

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
    /// Replace each `/incbin/` in it with the bytes of a file.
    Bytes,
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

/// Statements of `dtc` that open files.
const INCLUDE: &str = "/include/";
const INCBIN: &str = "/incbin/";

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
                self.replace(&action, code.as_deref().unwrap_or_default(), file)?;
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

    /// Writes the replacement of a line, whose text without comments is `code`.
    fn replace(&mut self, action: &Line<'_>, code: &str, file: usize) -> Result<()> {
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
            Line::Bytes => match self.with_bytes(code, file) {
                Ok(text) => self.out.extend([&text, "\n"]),
                Err(error) => self.error(&format!("{error:#}")),
            },
            Line::Refuse => self.error(
                "this is not allowed in a devicetree source: a directive or operator that opens \
                 files, or a quote without its end",
            ),
            Line::Keep | Line::Condition | Line::Remove => {}
        }
        Ok(())
    }

    /// Returns a line with the bytes of the files that `/incbin/` names in it.
    fn with_bytes(&mut self, code: &str, file: usize) -> Result<String> {
        let mut parts = code.split(INCBIN);
        let mut text = parts.next().unwrap_or_default().to_owned();
        for arguments in parts {
            let Binary { name, part, after } = binary(arguments)
                .context("`/incbin/` needs (\"FILE\") or (\"FILE\", OFFSET, LENGTH)")?;
            let bytes = self.files.bytes(name, file)?;
            let (start, length) = part.unwrap_or((0, bytes.len()));
            let bytes = bytes.get(start..).and_then(|bytes| bytes.get(..length));
            let bytes = bytes.with_context(|| format!("{name:?} is too short"))?;
            let fits = self.out.len() + text.len() + 2 * bytes.len() <= MAX_TEXT;
            ensure!(fits, "the source includes too many bytes");
            text.push('[');
            for byte in bytes {
                let _ = write!(text, "{byte:02x}");
            }
            text.extend(["]", after]);
        }
        Ok(text)
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
    let Some(directive) = code.trim_start().strip_prefix('#') else {
        return match code.trim().strip_prefix(INCLUDE) {
            Some(argument) => include(argument.trim()),
            None if code.contains(INCBIN) => Line::Bytes,
            None => Line::Keep,
        };
    };
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
    let text = text.trim_start().strip_prefix('(')?.trim_start().strip_prefix('"')?;
    let (name, text) = text.split_once('"').filter(|(name, _)| !name.contains('\\'))?;
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

/// Returns `true` if `dtc` may open a file, wherever it sees the statement.
pub(super) fn opens_files(text: &str) -> bool {
    let mut includes = text.match_indices(INCLUDE);
    let is_named = |(at, word): (usize, &str)| {
        text.get(at + word.len()..).is_some_and(|rest| rest.trim_start().starts_with('"'))
    };
    text.contains(INCBIN) || includes.any(is_named)
}
