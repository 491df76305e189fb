//! Sources of ACPI tables: compiles them with `iasl`, and finds the line that sets each field.
//!
//! Sources are not trusted: `iasl` reads a copy in a folder of its own, without its preprocessor,
//! so it opens no other file.

use crate::compiler::{self, IASL};
use crate::dts::{location, plain};
use anyhow::{Context, Error, Result, bail};
use doorbell_inspection::{Locate, Location, MAX_BYTES};
use gic_firmware::acpi::{TableSet, excerpts};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Maximum length of `iasl`'s listing in bytes. It repeats each field three times.
const MAX_LISTING: u64 = 64 << 20;
/// Maximum length of what `iasl` says in bytes. It stops after 200 errors.
const MAX_SAID: usize = 1 << 20;
/// Length of an ID mapping in bytes (DEN 0049E §3, table 3).
const MAPPING_BYTES: usize = 20;

/// A table that was compiled from a source.
#[derive(Debug)]
pub(crate) struct AslTable {
    file: String,
    text: Arc<str>,
    /// The compiled table.
    pub(crate) blob: Vec<u8>,
    /// Offset of each field in the table, and the bytes of the text that set it.
    fields: Vec<(usize, Range<usize>)>,
}

/// The tables of a machine that were compiled from sources.
#[derive(Debug)]
pub(crate) struct AslTables {
    /// Tables that were compiled, with their sources.
    pub(crate) sources: Vec<AslTable>,
    /// All tables of the machine.
    pub(crate) blobs: Vec<Vec<u8>>,
}

/// Compiles the source `bytes`, which were read from `path`, to a table.
///
/// # Errors
/// Returns an error if `iasl` is not installed or refuses the source, if the source includes a file
/// or defines AML instead of a table's fields.
pub(crate) fn compile(path: &Path, bytes: &[u8]) -> Result<AslTable> {
    let file = path.display().to_string();
    let text = plain(path, bytes)?;
    let code = without_comments(&text);
    // `iasl` looks for this word to tell the languages apart, even in comments. AML can include
    // files.
    let defines_aml = |line: &str| line.to_ascii_uppercase().contains("DEFINITIONBLOCK");
    for (number, (line, code)) in (1..).zip(text.lines().zip(code.lines())) {
        if code.trim_start().starts_with('#') {
            bail!(
                "{file}:{number}: expand preprocessor directives first, for example with `cpp -P`"
            );
        } else if defines_aml(line) {
            bail!(
                "{file}:{number}: \"DefinitionBlock\" makes this the source of AML, which is not \
                 read; remove the word, or name the source of an APIC, IORT or MCFG"
            );
        }
    }
    let folder = tempfile::tempdir().context("cannot create a folder for `iasl`")?;
    let copy = folder.path().join("table.asl");
    fs::write(&copy, bytes).with_context(|| format!("cannot copy {file} for `iasl`"))?;
    let output = folder.path().join("table");
    let arguments = ["-vi", "-Pn", "-l", "-p"].map(AsRef::as_ref);
    let arguments = [&arguments[..], &[output.as_os_str(), copy.as_os_str()]].concat();
    let said = compiler::run(&IASL, &arguments, &[], MAX_SAID);
    said.map_err(|error| errors_in(&file, &copy.display().to_string(), &error))?;
    let read = |extension, limit| {
        let mut bytes = Vec::new();
        let file = File::open(output.with_extension(extension))?;
        file.take(limit).read_to_end(&mut bytes).map(|_| bytes)
    };
    let blob = read("aml", MAX_BYTES).with_context(|| format!("`iasl` made no table of {file}"))?;
    let listing =
        read("lst", MAX_LISTING).with_context(|| format!("`iasl` made no listing of {file}"))?;
    let fields = fields(&code, &String::from_utf8_lossy(&listing), blob.len());
    Ok(AslTable { file, text, blob, fields })
}

/// Reduces what `iasl` says to its errors, such as `iort.asl(15) : error 6313 - Invalid label`, if
/// it states any.
fn errors_in(file: &str, copy: &str, said: &Error) -> Error {
    let said = format!("{said:#}");
    let errors = said.lines().filter(|line| line.contains(" : error "));
    let errors: Vec<&str> =
        errors.map(|line| line.get(line.find('(').unwrap_or(0)..).unwrap_or(line)).collect();
    if errors.is_empty() {
        return Error::msg(format!("cannot compile {file}: {}", said.replace(copy, file)));
    }
    Error::msg(errors.iter().map(|line| format!("{file}{line}")).collect::<Vec<_>>().join("\n"))
}

/// Replaces each character of a comment by a space, and what is in brackets, which `iasl` ignores
/// too. Lines and offsets stay the same.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let line_end = || rest.find('\n').unwrap_or(rest.len());
        // Bracket comments and strings end with their line at the latest.
        let in_line = |end: char| {
            let rest = rest.get(1..).unwrap_or_default();
            let found = rest.find([end, '\n']);
            found.map_or(1 + rest.len(), |at| 1 + at + usize::from(rest[at..].starts_with(end)))
        };
        let comment_end = || Some(4 + rest.get(2..)?.find("*/")?);
        let (length, is_code) = match first {
            '/' if rest.starts_with("//") => (line_end(), false),
            '/' if rest.starts_with("/*") => (comment_end().unwrap_or(rest.len()), false),
            '/' => (1, true),
            '[' => (in_line(']'), false),
            '"' => (in_line('"'), true),
            _ => (rest.find(['/', '[', '"']).unwrap_or(rest.len()), true),
        };
        let (part, after) = rest.split_at(length);
        if is_code {
            code.push_str(part);
        } else {
            code.extend(part.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    code
}

/// Finds the line of each field of a listing. Both have the fields in the same order; a listing
/// lacks some that are parts of others. The result is empty if a field has no line, or if the
/// fields are not those of a table with `length` bytes.
///
/// `iasl` (seen with version 20200925) omits flags that the source also states one by one, as in a
/// MADT, and states wrong offsets after a structure inside a node, as in a root complex. So either
/// the offsets are right or the fields follow each other, and the table's length tells which.
fn fields(code: &str, listing: &str, length: usize) -> Vec<(usize, Range<usize>)> {
    let mut end = 0;
    let mut lines = code.split_inclusive('\n').filter_map(|line| {
        let start = end;
        end += line.len();
        let (name, _) = line.split_once(':')?;
        let indent = line.len() - line.trim_start().len();
        let region = start + indent..start + line.trim_end().len();
        Some((name.split_whitespace().collect::<Vec<_>>(), region))
    });
    let (mut found, mut regions) = (Vec::new(), (None, None));
    let (mut stated_end, mut counted_end) = (0, 0_usize);
    for line in listing.lines() {
        if let Some(field) = line.strip_prefix("Input:") {
            let name = field.split_once(':').map_or(field, |(name, _)| name);
            let name: Vec<&str> = name.split_whitespace().collect();
            let mut omitted = None;
            let own = lines.by_ref().find_map(|(other, region)| {
                let is_own = other == name;
                is_own.then(|| region.clone()).or_else(|| {
                    omitted.get_or_insert(region);
                    None
                })
            });
            regions = (own, omitted);
        } else if let Some((offset, length)) = line.strip_prefix("Output: [").and_then(place) {
            let (Some(own), omitted) = std::mem::take(&mut regions) else { return Vec::new() };
            let omitted = omitted.filter(|_| stated_end < offset);
            found.extend(omitted.map(|region| (stated_end, None, region)));
            found.push((offset, Some(counted_end), own));
            stated_end = offset.saturating_add(length);
            counted_end = counted_end.saturating_add(length);
        }
    }
    if length == stated_end {
        found.into_iter().map(|(stated, _, region)| (stated, region)).collect()
    } else if length == counted_end {
        found.into_iter().filter_map(|(_, counted, region)| Some((counted?, region))).collect()
    } else {
        Vec::new()
    }
}

/// Reads the offset and the length in `030h 0048   4]`, or `030h 0048 004h]` of later versions.
fn place(text: &str) -> Option<(usize, usize)> {
    let mut numbers = text.split_once(']')?.0.split_whitespace();
    let hex = |digits| usize::from_str_radix(digits, 16).ok();
    let offset = numbers.next()?.strip_suffix('h').and_then(hex)?;
    let length = numbers.nth(1)?;
    let length = length.strip_suffix('h').map_or_else(|| length.parse().ok(), hex)?;
    Some((offset, length))
}

impl Locate for AslTables {
    fn locate(&self, place: &str, item: &str) -> Option<Location> {
        let (name, offset) = place.split_once("+0x")?;
        let structure = usize::from_str_radix(offset, 16).ok()?;
        let signature = if name == "MADT" { "APIC" } else { name };
        let table = self.sources.iter().find(|one| one.blob.starts_with(signature.as_bytes()))?;
        let tables = TableSet::from_blobs(self.blobs.iter().map(Vec::as_slice)).ok()?;
        let excerpt = excerpts(&tables, &BTreeSet::from([place])).remove(place);
        let field = excerpt.and_then(|one| one.offset(item)).unwrap_or(structure);
        let length = if item == "ID mapping" { MAPPING_BYTES } else { 1 };
        let before = |end| table.fields.partition_point(|(offset, _)| *offset < end);
        let first = before(field.saturating_add(1)).checked_sub(1)?;
        let last = before(field.saturating_add(length)).checked_sub(1)?.max(first);
        let start = table.fields.get(first)?.1.start;
        let end = table.fields.get(last)?.1.end;
        Some(location(table.file.clone(), &table.text, &(start..end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_listing_locates_each_field() {
        let text = "/* Type : 00 */\nSignature : \"IO//\" // x\n[004h 4]  Type : 00 [Group]\n\
                    Flag : 1\n  Node  Count : 3\nType : 01\n";
        let listing = "Input:  Signature : \"IO//\"\nParsed: x\nOutput: [000h 0000   4] 49\n\n\
                       Input:  Type : 00\nOutput: [004h 0004   1] 00\n\
                       Input:  Node Count : 3\nOutput: [009h 0009 00ah] 00\n 01\n\
                       Input:  Type : 01\nOutput: [023h 0035   1] 00\n";
        let code = without_comments(text);
        let found = |length| -> Vec<_> {
            let found = fields(&code, listing, length).into_iter();
            found.map(|(at, part)| (at, text.get(part).unwrap())).collect()
        };
        let counted = [
            (0, "Signature : \"IO//\""),
            (4, "Type : 00"),
            (5, "Node  Count : 3"),
            (15, "Type : 01"),
        ];
        let stated =
            [counted[0], counted[1], (5, "Flag : 1"), (9, counted[2].1), (35, counted[3].1)];
        assert_eq!(found(16), counted);
        assert_eq!(found(36), stated);
        assert_eq!(found(17), []);
    }

    /// Reading a source takes time in proportion to its length, whatever it contains.
    #[test]
    fn removing_comments_keeps_the_length_of_long_sources() {
        for part in ["[\n", "a", "\"\n", "/", "/*", "[a]\"b\""] {
            let text = part.repeat((4 << 20) / part.len());
            assert_eq!(without_comments(&text).len(), text.len());
        }
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        let said = Error::msg(
            "`iasl` refuses the source: /tmp/t/table.asl(15) : error    6313 - \
                               Invalid field label\nTable Input: /tmp/t/table.asl",
        );
        let error = errors_in("a/iort.asl", "/tmp/t/table.asl", &said);
        assert_eq!(error.to_string(), "a/iort.asl(15) : error    6313 - Invalid field label");
    }

    proptest! {
        #[test]
        fn removing_comments_keeps_line_offsets(text in "[a:\n /*\\[\\]\"\u{e9}]{0,60}") {
            let code = without_comments(&text);
            prop_assert_eq!(code.len(), text.len());
            let ends = |text: &str| text.match_indices('\n').map(|(at, _)| at).collect::<Vec<_>>();
            prop_assert_eq!(ends(&code), ends(&text));
        }

        #[test]
        fn any_listing_yields_regions_within_the_text(
            text in "[a:\n /*]{0,40}",
            listing in "((Input:|Output: \\[)[a:h0-9 \\]]{0,9}\n){0,9}",
            length in 0_usize..20,
        ) {
            for (_, region) in fields(&without_comments(&text), &listing, length) {
                prop_assert!(text.get(region).is_some());
            }
        }
    }
}
