//! Faults described as text: the lines to remove from a file, and the lines to add.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};

/// A fault, and the checks that must find it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mutant {
    /// Description of the fault.
    pub name: String,
    /// Path relative to the package.
    pub file: String,
    removed: Vec<String>,
    added: Vec<String>,
    /// The checks that must fail.
    pub checks: Vec<String>,
}

/// Parses the faults in a text. Paragraphs that do not start with `fault:` are ignored.
pub fn parse(text: &str) -> Result<Vec<Mutant>> {
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

/// Returns the first faults, in order, that make each check named by one of `faults` fail once.
pub fn covering(faults: Vec<Mutant>) -> Vec<Mutant> {
    let mut failed = HashSet::new();
    let mut is_first = |fault: &Mutant| {
        let new = fault.checks.iter().filter(|check| failed.insert((*check).clone()));
        new.count() > 0
    };
    faults.into_iter().filter(|fault| is_first(fault)).collect()
}

impl Mutant {
    /// Returns `source` with the fault applied.
    ///
    /// # Errors
    /// Fails unless the removed lines, compared without indentation, occur exactly once.
    pub fn apply(&self, source: &str) -> Result<String> {
        let lines: Vec<_> = source.lines().collect();
        let is_match = |window: &[&str]| {
            window.iter().zip(&self.removed).all(|(line, removed)| line.trim() == removed)
        };
        let places =
            lines.windows(self.removed.len()).enumerate().filter(|(_, window)| is_match(window));
        let places: Vec<_> = places.map(|(at, _)| at).collect();
        let [at] = *places else {
            bail!("the removed lines occur {} times in {}", places.len(), self.file);
        };
        let (before, rest) = lines.split_at(at);
        let after = rest.iter().skip(self.removed.len()).copied();
        let changed =
            before.iter().copied().chain(self.added.iter().map(String::as_str)).chain(after);
        Ok(changed.flat_map(|line| [line, "\n"]).collect())
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

    #[test]
    fn a_fault_replaces_its_lines() {
        assert_eq!(
            mutant().apply("a();\n  b();\n  c();\nd();\n").ok().as_deref(),
            Some("a();\n c();\nd();\n")
        );
    }

    #[test]
    fn each_check_keeps_its_first_fault() {
        let fault = |name: &str, checks: &[&str]| Mutant {
            name: name.into(),
            checks: checks.iter().map(|check| (*check).to_owned()).collect(),
            ..Mutant::default()
        };
        let faults = [fault("a", &["x"]), fault("b", &["x"]), fault("c", &["x", "y", "z"])];
        let names: Vec<_> = covering(faults.into()).into_iter().map(|fault| fault.name).collect();
        assert_eq!(names, ["a", "c"]);
    }

    #[test]
    fn lines_that_are_gone_are_an_error() {
        let error = mutant().apply("a();\nc();\n").expect_err("b() does not occur");
        assert_eq!(error.to_string(), "the removed lines occur 0 times in src/a.rs");
    }

    #[test]
    fn lines_that_occur_twice_are_an_error() {
        assert!(mutant().apply("b();\nc();\nb();\nc();\n").is_err());
    }

    #[test]
    fn a_fault_without_a_check_is_an_error() {
        assert!(parse("fault: a\nfile: b\n- c\n").is_err());
    }
}
