//! Extracts the programs shown in a README.

/// Returns the fenced blocks in this language, in order.
pub(crate) fn blocks<'a>(page: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let head = format!("{language}\n");
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.filter_map(move |block| block.strip_prefix(head.as_str()))
}
