//! Faults described as text: the lines to remove from a file, and the lines to add.

pub(crate) mod copy;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// A change to a file that introduces a fault, and the checks that must detect the fault.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mutant {
    /// Description of the fault.
    pub(crate) name: String,
    /// Path relative to the package.
    pub(crate) file: String,
    removed: Vec<String>,
    added: Vec<String>,
    /// The checks that must fail.
    pub(crate) checks: Vec<String>,
}

/// Reads the faults in a file.
///
/// # Errors
/// Fails if the file cannot be read, or describes a fault incompletely.
pub(crate) fn read(file: &Path) -> Result<Vec<Mutant>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    parse(&text).with_context(|| file.display().to_string())
}

/// Parses the faults in a text. Paragraphs that do not start with `fault:` are ignored.
pub(crate) fn parse(text: &str) -> Result<Vec<Mutant>> {
    let paragraphs = text.split("\n\n").map(str::trim);
    paragraphs.filter(|paragraph| paragraph.starts_with("fault:")).map(paragraph).collect()
}

fn paragraph(text: &str) -> Result<Mutant> {
    let mut mutant = Mutant::default();
    for line in text.lines() {
        if let Some(removed) = line.strip_prefix('-') {
            mutant.removed.push(removed.trim().to_owned());
        } else if let Some(added) = line.strip_prefix('+') {
            mutant.added.push(added.to_owned());
        } else {
            let (key, value) = line.split_once(": ").with_context(|| format!("`{line}`"))?;
            match key {
                "fault" => mutant.name = value.into(),
                "file" => mutant.file = value.into(),
                "fails" => mutant.checks.push(value.to_owned()),
                _ => bail!("`{key}` is neither `fault`, `file` nor `fails`"),
            }
        }
    }
    let complete =
        !(mutant.file.is_empty() || mutant.removed.is_empty() || mutant.checks.is_empty());
    ensure!(complete, "`{}` lacks a file, a removed line or a check", mutant.name);
    Ok(mutant)
}

/// Returns the environment variable that selects one of a package's faults by its number, or none.
pub(crate) fn variable(package: &str) -> String {
    format!("DOORBELL_FAULT_{}", package.replace('-', "_"))
}

/// Returns the source of a module for a package's `lib.rs`, which the code written by [`plant`]
/// uses. The module reads the number of the selected fault from the package's [`variable`].
pub(crate) fn selector(package: &str) -> String {
    [
        "\nmod planted_fault {",
        "    extern crate std;\n",
        "    pub(crate) fn number() -> usize {",
        "        static NUMBER: std::sync::LazyLock<usize> = std::sync::LazyLock::new(|| {",
        &format!("            let selected = std::env::var(\"{}\").ok();", variable(package)),
        "            selected.and_then(|number| number.parse().ok()).unwrap_or(0)",
        "        });",
        "        *NUMBER",
        "    }",
        "}\n",
    ]
    .join("\n")
}

/// Returns `source` with all of these faults planted. A fault replaces its lines only if it is
/// selected ([`selector`]). The faults' numbers must not be 0, which selects no fault.
///
/// A function with faults chooses between complete copies of its body, because the lines of a fault
/// may be a part of a statement. It loses its `const`, because the choice is made at run time.
///
/// # Errors
/// Fails unless each fault's removed lines occur exactly once, in the body of a function. The
/// source must be formatted by rustfmt.
pub(crate) fn plant(source: &str, faults: &[(usize, &Mutant)]) -> Result<String> {
    let lines: Vec<_> = source.lines().collect();
    let mut bodies: BTreeMap<Body, Vec<(usize, Vec<&str>)>> = BTreeMap::new();
    for (number, fault) in faults {
        let at = fault.find(&lines)?;
        let body = Body::around(&lines, &at).with_context(|| fault.name.clone())?;
        let added = fault.added.iter().map(String::as_str);
        let before = lines[body.start..at.start].iter().copied();
        let after = lines[at.end..body.end].iter().copied();
        let changed = before.chain(added).chain(after).collect();
        bodies.entry(body).or_default().push((*number, changed));
    }
    let mut planted = Vec::new();
    let mut written = 0;
    for (body, faulty) in &bodies {
        ensure!(written <= body.function, "faults in nested functions");
        planted.extend(lines[written..body.function].iter().map(|line| (*line).to_owned()));
        planted.push(lines[body.function].replacen("const fn", "fn", 1));
        planted.extend(lines[body.function + 1..body.start].iter().map(|line| (*line).to_owned()));
        planted.push("match crate::planted_fault::number() {".into());
        for (number, faulty) in faulty {
            planted.push(format!("{number} => {{\n{}\n}}", faulty.join("\n")));
        }
        planted.push(format!("_ => {{\n{}\n}}\n}}", lines[body.start..body.end].join("\n")));
        written = body.end;
    }
    planted.extend(lines[written..].iter().map(|line| (*line).to_owned()));
    Ok(planted.join("\n") + "\n")
}

/// The body of a function, without its braces, as a range of lines.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Body {
    /// Line with the function's name.
    function: usize,
    start: usize,
    end: usize,
}

impl Body {
    /// Finds the function around these lines by its indentation.
    fn around(lines: &[&str], at: &Range<usize>) -> Result<Self> {
        let indent = |line: &str| line.len() - line.trim_start().len();
        let inside = indent(lines[at.start]);
        let is_function = |line: &str| {
            let name = line.split("fn ").next().unwrap_or_default().trim();
            line.contains("fn ")
                && indent(line) < inside
                && (name.starts_with("pub(in ")
                    || name.split_whitespace().all(|word| QUALIFIERS.contains(&word)))
        };
        let function = (0..at.start).rev().find(|line| is_function(lines[*line]));
        let function = function.context("the lines are not in a function")?;
        let outside = indent(lines[function]);
        let opens = |line: &usize| {
            lines[*line].ends_with('{') && (*line == function || indent(lines[*line]) == outside)
        };
        let open = (function..at.start).find(opens).context("the function has no body")?;
        let closes = |line: &usize| lines[*line].trim() == "}" && indent(lines[*line]) == outside;
        let end = (open..lines.len()).find(closes).context("the function does not end")?;
        ensure!(at.end <= end, "the lines are not in a single function");
        Ok(Self { function, start: open + 1, end })
    }
}

/// Words that may precede `fn`.
const QUALIFIERS: &[&str] = &["pub", "pub(crate)", "pub(super)", "const"];

impl Mutant {
    /// Returns the lines to remove.
    ///
    /// # Errors
    /// Fails unless the removed lines, compared without indentation, occur exactly once.
    fn find(&self, lines: &[&str]) -> Result<Range<usize>> {
        let is_match = |window: &[&str]| {
            window.iter().zip(&self.removed).all(|(line, removed)| line.trim() == removed)
        };
        let places =
            lines.windows(self.removed.len()).enumerate().filter(|(_, window)| is_match(window));
        let places: Vec<_> = places.map(|(at, _)| at).collect();
        let [at] = *places else {
            bail!("the removed lines occur {} times in {}", places.len(), self.file);
        };
        Ok(at..at + self.removed.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Prose: not a fault.\n\nfault: b is missing\nfile: src/a.rs\n- b();\n\
                        - c();\n+ c();\nfails: b_is_called\n";

    fn mutant() -> Mutant {
        parse(TEXT).expect("the text is well formed").remove(0)
    }

    const SOURCE: &str = "impl A {
    pub const fn f(
        self,
    ) -> u8 {
        a();
        b();
        c();
        d()
    }
}
";

    #[test]
    fn a_planted_fault_replaces_its_lines_when_selected() {
        let planted = plant(SOURCE, &[(7, &mutant())]).expect("the lines occur once");
        let expected = "impl A { pub fn f( self, ) -> u8 { match crate::planted_fault::number() { \
                        7 => { a(); c(); d() } _ => { a(); b(); c(); d() } } } }";
        assert_eq!(planted.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn a_fault_whose_lines_do_not_occur_once_is_an_error() {
        let gone = SOURCE.replace("b();", "");
        let error = plant(&gone, &[(1, &mutant())]).expect_err("b() does not occur");
        assert_eq!(error.to_string(), "the removed lines occur 0 times in src/a.rs");
        let twice = SOURCE.replace("d()", "b();\n        c();");
        assert!(plant(&twice, &[(1, &mutant())]).is_err());
    }
}
