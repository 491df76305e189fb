//! Compares the guide for missing interrupts with the output of the code.

use std::fs;

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/no-interrupt.md");

/// Checks that the blocks ` ```text {reader} ` of `docs/no-interrupt.md` are parts of these texts, in
/// any order, and that each text has a block. A block may leave out lines.
///
/// # Panics
/// Panics if the guide cannot be read, lacks a text, or shows a block that is not of the texts.
pub fn check_guide(reader: &str, printed: &[String]) {
    let guide = read();
    let start = format!("```text {reader}\n");
    let blocks = guide.split(&start).skip(1);
    let shown: Vec<_> = blocks.filter_map(|block| Some(block.split_once("```")?.0)).collect();
    let is_part = |block: &str, text: &str| {
        let mut lines = text.lines();
        block.lines().all(|line| lines.any(|printed| printed == line))
    };
    for text in printed {
        assert!(shown.iter().any(|block| is_part(block, text)), "not in the guide:\n{text}");
    }
    for block in shown {
        assert!(printed.iter().any(|text| is_part(block, text)), "not printed:\n{block}");
    }
}

/// Checks that the sentences which the prose of `docs/no-interrupt.md` quotes are exactly these, in
/// this order. A code span of four or more words is a sentence. `0x…` stands for any number.
///
/// # Panics
/// Panics if the guide cannot be read or quotes other sentences.
pub fn check_guide_quotes(printed: &[String]) {
    let guide = read();
    let prose: String = guide.split("```").step_by(2).collect();
    let spans = prose.split('`').skip(1).step_by(2);
    let spans = spans.map(|span| span.split_whitespace().collect::<Vec<_>>());
    let quoted = spans.filter(|words| words.len() >= 4).map(|words| words.join(" "));
    assert_eq!(quoted.collect::<Vec<_>>(), printed);
}

/// Checks that `docs/no-interrupt.md` has this row in a table.
pub(crate) fn check_guide_row(row: &str) {
    assert!(read().lines().any(|line| line == row), "not in the guide:\n{row}");
}

fn read() -> String {
    fs::read_to_string(GUIDE).unwrap_or_else(|error| panic!("{GUIDE}: {error}"))
}
