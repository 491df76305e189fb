//! Comments that open with a question word: their subject comes late, or not at all.

use std::fs;

use anyhow::Result;

use super::files;
use crate::workspace::Workspace;

/// Words that a comment should not open with.
const QUESTIONS: [&str; 14] = [
    "who",
    "what",
    "where",
    "which",
    "whether",
    "how",
    "why",
    "when",
    "whoever",
    "whose",
    "whatever",
    "wherever",
    "whichever",
    "whenever",
];

/// Comment blocks of the whole tree, and those that open with a question word.
#[derive(Debug, Default)]
pub(crate) struct Openers {
    pub(crate) blocks: usize,
    places: Vec<String>,
}

impl Openers {
    /// Returns the number of blocks that open with a question word.
    pub(crate) fn questions(&self) -> usize {
        self.places.len()
    }
}

/// Returns every place.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    Ok(count(workspace)?.places)
}

/// Counts the comment blocks of all Rust files.
pub(crate) fn count(workspace: &Workspace) -> Result<Openers> {
    let mut openers = Openers::default();
    for file in files::with_extensions(workspace, &["rs"])? {
        let text = fs::read_to_string(&file)?;
        for (line, opener) in blocks(&text) {
            openers.blocks += 1;
            if is_question(opener) {
                let shown = workspace.relative(&file).display();
                openers.places.push(format!(
                    "{shown}:{line}: a comment opens with a question word: {opener}"
                ));
            }
        }
    }
    Ok(openers)
}

/// Returns the first line of each block of consecutive comment lines, without its slashes.
fn blocks(text: &str) -> Vec<(usize, &str)> {
    let mut blocks = Vec::new();
    let mut within = false;
    for (number, line) in (1..).zip(text.lines()) {
        let comment = line.trim_start().strip_prefix("//");
        if let Some(comment) = comment.filter(|_| !within) {
            blocks.push((number, comment.trim_start_matches(['/', '!']).trim()));
        }
        within = comment.is_some();
    }
    blocks
}

fn is_question(comment: &str) -> bool {
    let letters = comment.trim_start_matches(|c: char| !c.is_alphabetic());
    let end = letters.find(|c: char| !c.is_alphabetic() && c != '\'').unwrap_or(letters.len());
    QUESTIONS.contains(&&*letters[..end].to_lowercase())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn consecutive_lines_are_one_block() {
        let text = "//! One.\n//! What.\n\n/// Two.\nfn f() {\n    // Three.\n}\n";
        assert_eq!(blocks(text), [(1, "One."), (4, "Two."), (6, "Three.")]);
    }

    #[test]
    fn question_words_are_found_at_the_start() {
        assert!(is_question("What comes.") && is_question("(Which.)") && is_question("WHO"));
        assert!(
            !is_question("Says what comes.")
                && !is_question("Whatsoever")
                && !is_question("`x` is")
        );
    }
}
