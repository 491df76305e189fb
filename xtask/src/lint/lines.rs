//! Counts the lines of code, and compares their sum with the number in `.ci/lines`. The number may
//! rise only if the change adds a word beside it: that of the issue which is worth the lines. The
//! format of the code is part of the rule.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use doorbell_harness::workspace::Workspace;
use doorbell_harness::{process, source};

/// The file with the number and the words.
const FILE: &str = ".ci/lines";
const FORMAT: &str = "edition = \"2024\"\nmax_width = 100\nuse_small_heuristics = \"Max\"\n";

/// Lines of code, and of tests and examples, by folder.
type Count = BTreeMap<String, [usize; 2]>;

/// Returns the violations of the rule.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let read = |file: &str| {
        fs::read_to_string(workspace.root.join(file)).with_context(|| format!("cannot read {file}"))
    };
    let now = read(FILE)?;
    let (most, lines) = (limit(&now)?, sum(&counted(workspace, 1)?));
    if lines > most {
        findings.push(format!("{FILE}: {lines} lines, more than {most}; see `cargo xtask lines`"));
    }
    if read("rustfmt.toml")? != FORMAT {
        findings.push("rustfmt.toml: another format counts other lines".to_owned());
    }
    let history = history(workspace).unwrap_or_default();
    let versions: Vec<_> = history.iter().map(String::as_str).chain([now.as_str()]).collect();
    for pair in versions.windows(2) {
        if rises_silently(pair[0], pair[1])? {
            findings.push(format!("{FILE}: rose to `{}` without an issue", pair[1].trim()));
        }
    }
    Ok(findings)
}

/// Returns the committed versions of the file, the oldest first. Fails in a shallow clone, whose
/// oldest commit is not the first, and outside a repository.
fn history(workspace: &Workspace) -> Result<Vec<String>> {
    let git =
        |words: &[&str]| process::capture(process::command("git", &workspace.root).args(words));
    ensure!(git(&["rev-parse", "--is-shallow-repository"])?.trim() == "false", "a shallow clone");
    let commits = git(&["log", "--reverse", "--format=%H", "--", FILE])?;
    commits.lines().map(|commit| git(&["show", &format!("{commit}:{FILE}")])).collect()
}

/// Returns the number at the start of the file.
fn limit(text: &str) -> Result<usize> {
    let number = text.split_whitespace().next().unwrap_or_default();
    number.parse().with_context(|| format!("{FILE}: `{number}` is not a number"))
}

/// Returns `true` if the number rose and the words beside it are the same as before.
fn rises_silently(before: &str, after: &str) -> Result<bool> {
    let words = |text: &str| text.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
    Ok(limit(after)? > limit(before)? && words(after) == words(before))
}

/// Prints the lines of each folder of a part, those of the part, and the sum beside the limit.
pub(crate) fn print(workspace: &Workspace) -> Result<()> {
    let (parts, folders) = (counted(workspace, 1)?, counted(workspace, 2)?);
    println!("{:<24} {:>8} {:>8}", "", "code", "tests");
    for (part, [code, tests]) in &parts {
        for (folder, [code, tests]) in folders.range(part.clone()..) {
            if !folder.starts_with(&format!("{part}/")) {
                break;
            }
            println!("{folder:<24} {code:>8} {tests:>8}");
        }
        println!("{part:<24} {code:>8} {tests:>8}\n");
    }
    let most = limit(&fs::read_to_string(workspace.root.join(FILE))?)?;
    println!("{} of {most}", sum(&parts));
    Ok(())
}

fn sum(count: &Count) -> usize {
    count.values().flatten().sum()
}

/// Counts the lines of all Rust files by the first components of their paths.
fn counted(workspace: &Workspace, components: usize) -> Result<Count> {
    let mut sums = Count::new();
    for file in workspace.files(&["rs"])? {
        let below = workspace.relative(&file);
        let folder = below.parent().unwrap_or(Path::new("")).components().take(components);
        let folder = folder.collect::<std::path::PathBuf>().display().to_string();
        let sum = sums.entry(folder).or_default();
        let [code, tests] = count(below, &fs::read_to_string(&file)?);
        *sum = [sum[0] + code, sum[1] + tests];
    }
    Ok(sums)
}

/// Counts a file's lines that are neither blank nor comments. Unit tests must be at its end.
fn count(file: &Path, text: &str) -> [usize; 2] {
    let is_test = file.with_extension("").iter().any(|part| part == "tests" || part == "examples");
    let start = if is_test { 0 } else { lines_before_tests(text) };
    let code = source::without_comments(text);
    let (mut before, mut after) = (0, 0);
    for (at, _) in code.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        *(if at < start { &mut before } else { &mut after }) += 1;
    }
    [before, after]
}

/// Returns the number of lines before the unit tests, which must be at the end of a file.
fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let begins = |pair: &[&str]| {
        let [condition, module] = pair else { return false };
        let is_test = ["#[cfg(test)", "#[cfg(all(test"].iter().any(|it| condition.starts_with(it));
        is_test && module.starts_with("mod ") && module.ends_with('{')
    };
    lines.windows(2).position(begins).unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_not_counted() {
        let text = concat!(
            "//! A\n\nfn f() {}\n/* b\n */\nconst S: &str = \"\n// c\n\";\n",
            "#[cfg(test)]\nmod t {\n}\n",
        );
        assert_eq!(count(Path::new("src/a.rs"), text), [4, 3]);
        assert_eq!(count(Path::new("tests/a.rs"), text), [0, 7]);
    }

    #[test]
    fn the_number_rises_only_beside_another_word() {
        for (before, after, is_silent) in [
            ("10\n", "11\n", true),
            ("10 soak\n", "11 soak\n", true),
            ("10\n", "11 soak\n", false),
            ("10 soak\n", "11 bench\n", false),
            ("10 soak\n", "9 soak\n", false),
        ] {
            assert_eq!(rises_silently(before, after).unwrap(), is_silent, "{before} {after}");
        }
        assert!(rises_silently("ten\n", "9\n").is_err());
    }
}
