//! Removes comments, strings and character literals from Rust code.

/// Returns `text` with the content of comments, strings and character literals blanked. Line
/// numbers are preserved.
///
/// Handles line comments, nested block comments, strings with escapes, and raw strings.
/// Distinguishes character literals from lifetimes.
pub fn code_only(text: &str) -> String {
    blanked(text, |_| true)
}

/// Returns the words of Rust code, such as names and keywords, each with its line number.
pub fn words(text: &str) -> Vec<(usize, String)> {
    let code = code_only(text);
    let words = (1..).zip(code.lines()).flat_map(|(number, line)| {
        let words = line.split(|c: char| c != '_' && !c.is_alphanumeric());
        words.filter(|word| !word.is_empty()).map(move |word| (number, word.to_owned()))
    });
    words.collect()
}

/// Returns `text` with comments blanked.
pub fn without_comments(text: &str) -> String {
    blanked(text, |this| this.starts_with("//") || this.starts_with("/*"))
}

/// Returns `text` with the comments, strings and character literals that `chosen` accepts blanked.
fn blanked(text: &str, chosen: fn(&str) -> bool) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let (length, kept) = token(rest, next, &code);
        let (this, after) = rest.split_at(length);
        if kept || !chosen(this) {
            code.push_str(this);
        } else {
            code.extend(this.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    code
}

/// Returns the length of the token at the start of `rest` in bytes, and whether it is code.
fn token(rest: &str, next: char, before: &str) -> (usize, bool) {
    let in_word = before.ends_with(|c: char| c == '_' || c.is_alphanumeric());
    if rest.starts_with("//") {
        (rest.find('\n').unwrap_or(rest.len()), false)
    } else if rest.starts_with("/*") {
        (block_comment(rest), false)
    } else if next == '"' {
        (quoted(rest, '"'), false)
    } else if next == 'r'
        && !in_word
        && let Some(length) = raw_string(rest)
    {
        (length, false)
    } else if next == '\'' && is_character(rest) {
        (quoted(rest, '\''), false)
    } else {
        (next.len_utf8(), true)
    }
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    for (at, _) in rest.char_indices() {
        if rest[at..].starts_with("/*") {
            depth += 1;
        } else if rest[at..].starts_with("*/") {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return at + 2;
            }
        }
    }
    rest.len()
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

fn raw_string(rest: &str) -> Option<usize> {
    let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
    let body = rest[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&end).map_or(rest.len(), |at| 2 + hashes + at + end.len()))
}

/// Returns `true` if a quote starts a character literal rather than a lifetime: it is followed by
/// an escape, or by one character and another quote.
fn is_character(rest: &str) -> bool {
    let mut following = rest.chars().skip(1);
    following.next() == Some('\\') || following.next() == Some('\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_removed() {
        let text =
            "a // b\n/* c /* d */ e */ f \"g\\\" h\" 'i' '\\'' r#\"j \" k\"# l<'m>(r) for_r\"n\"";
        let words = code_only(text);
        assert_eq!(words.split_whitespace().collect::<Vec<_>>(), ["a", "f", "l<'m>(r)", "for_r"]);
    }

    #[test]
    fn each_word_is_returned_with_its_line_number() {
        let words = [(1, "unsafe".to_owned()), (3, "a_1".to_owned()), (4, "b".to_owned())];
        assert_eq!(super::words("unsafe {\n// c\na_1(\"d\ne\", b)"), words);
    }
}
