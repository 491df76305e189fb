//! Measurements of this tree: commits, line widths, names, import circles between files.

pub(crate) mod graph;
mod imports;
mod names;

use std::process::ExitCode;

use anyhow::Result;

use crate::lint::width;
use crate::process;
use crate::workspace::Workspace;

/// Longest subject of a commit.
const SUBJECT: usize = 72;

/// Prints a table of the measurements. Only commits after `since` are counted.
pub(crate) fn run(workspace: &Workspace, since: Option<&str>) -> Result<ExitCode> {
    let commits = Commits::read(workspace, since)?;
    row("commits with a body", &format!("{} of {}", commits.with_body, commits.all));
    row(&format!("commit subjects over {SUBJECT} characters"), &commits.long_subjects.to_string());
    let wide = width::check(workspace)?.len();
    row(&format!("lines wider than {} columns", width::MOST), &wide.to_string());
    let names = names::read(workspace)?;
    row("median test name, characters", &names.median_test.to_string());
    let vague: Vec<_> = names.vague.iter().map(|(name, count)| format!("{name} {count}")).collect();
    row("types with a vague name", &vague.join(", "));
    for package in &workspace.packages {
        let circles = graph::circles(package)?;
        row(&format!("circles between files of {}", package.name), &circles.len().to_string());
        for circle in circles {
            println!("  {}", circle.join(", "));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(measure: &str, value: &str) {
    println!("{measure:44} {value}");
}

/// Counts of commits.
#[derive(Debug, Default, PartialEq, Eq)]
struct Commits {
    all: usize,
    with_body: usize,
    long_subjects: usize,
}

impl Commits {
    fn read(workspace: &Workspace, since: Option<&str>) -> Result<Self> {
        let range = since.map_or_else(|| "HEAD".to_owned(), |since| format!("{since}..HEAD"));
        let mut git = process::command("git", &workspace.root);
        let log =
            process::capture(git.args(["log", "--no-merges", "--format=%s%x1f%b%x1e", &range]))?;
        Ok(Self::of(&log))
    }

    fn of(log: &str) -> Self {
        let mut commits = Self::default();
        for (subject, body) in log.split('\x1e').filter_map(|commit| commit.split_once('\x1f')) {
            commits.all += 1;
            commits.with_body += usize::from(!body.trim().is_empty());
            commits.long_subjects += usize::from(subject.trim_start().chars().count() > SUBJECT);
        }
        commits
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn bodies_and_long_subjects_are_counted() {
        let log = format!("a: b\x1fWhy.\n\x1e\nc: d\x1f\x1e\n{}\x1f\n\x1e\n", "e".repeat(73));
        assert_eq!(Commits::of(&log), Commits { all: 3, with_body: 1, long_subjects: 1 });
    }
}
