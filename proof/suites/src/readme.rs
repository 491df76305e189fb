//! Extracts the programs shown in a README.

/// Returns the fenced blocks in this language, in order.
pub(crate) fn blocks<'a>(page: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let head = format!("{language}\n");
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.filter_map(move |block| block.strip_prefix(head.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_by_their_language() {
        let page = "text\n```toml\na = 1\n```\n\n```rust\nmod b;\n```\n\n```rust\nfn b() {}\n```\n";
        let found = |language| blocks(page, language).collect::<Vec<_>>();
        assert_eq!(found("rust"), ["mod b;\n", "fn b() {}\n"]);
        assert_eq!(found("toml"), ["a = 1\n"]);
        assert!(found("console").is_empty());
    }
}
