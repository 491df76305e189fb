//! Checks that certain parts of a package don't depend on each other: their files must not name
//! each other's modules.

use std::path::Path;

use doorbell_harness::source;

/// Path prefixes of files, with the modules that these files must not name, directly or as a prefix
/// of a type's name.
///
/// Direct LPIs and the ITS are independent of each other, and the LPI tables and their allocator
/// are independent of both.
const STRANGERS: &[(&str, &[&str])] = &[
    ("crates/gic-driver/src/direct_lpi", &["its", "mbi", "v2m"]),
    ("crates/gic-driver/src/its", &["direct_lpi", "mbi", "v2m"]),
    ("crates/gic-driver/src/lpi", &["its", "direct_lpi"]),
    ("crates/gic-driver/src/mbi", &["its", "direct_lpi", "lpi", "v2m"]),
    ("crates/gic-driver/src/v2m", &["its", "direct_lpi", "lpi", "mbi"]),
    ("crates/gic-driver/src/spi_messages", &["its", "direct_lpi", "lpi", "mbi", "v2m"]),
];

/// Returns the lines of code that name a forbidden module.
pub(crate) fn check(file: &Path, text: &str) -> Vec<(usize, String)> {
    let found = strangers_of(file).flat_map(|strangers| lines_with(text, strangers));
    found.map(|(line, word)| (line, format!("must not use `{word}`"))).collect()
}

/// Returns the modules that the file, or a file in the folder of that name, must not name.
fn strangers_of(file: &Path) -> impl Iterator<Item = &'static [&'static str]> {
    let stem = file.with_extension("");
    STRANGERS
        .iter()
        .filter(move |(block, _)| stem.starts_with(block))
        .map(|(_, strangers)| *strangers)
}

fn lines_with(text: &str, strangers: &[&str]) -> Vec<(usize, String)> {
    let is_stranger = |word: &str| strangers.iter().any(|stranger| is_named_after(word, stranger));
    source::words(text).into_iter().filter(|(_, word)| is_stranger(word)).collect()
}

/// Returns `true` for the module's name, and for a type's name that starts with it.
fn is_named_after(word: &str, module: &str) -> bool {
    let capitalized =
        module.split('_').map(|part| part[..1].to_uppercase() + &part[1..]).collect::<String>();
    let rest = word.strip_prefix(&capitalized);
    word == module || rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_their_types_are_found_in_code() {
        let text = "use crate::its::Commands;\n// its own\nfn f(_: ItsConfig, _: Item) {}\n\"its \
            registers\"";
        let found = [(1, "its".to_owned()), (3, "ItsConfig".to_owned())];
        assert_eq!(lines_with(text, &["its"]), found);
        assert_eq!(lines_with("DirectLpi", &["direct_lpi"]), [(1, "DirectLpi".to_owned())]);
    }

    #[test]
    fn a_block_consists_of_a_file_and_its_folder() {
        let strangers = |file: &str| strangers_of(Path::new(file)).count();
        assert_eq!(strangers("crates/gic-driver/src/lpi.rs"), 1);
        assert_eq!(strangers("crates/gic-driver/src/lpi/tables.rs"), 1);
        assert_eq!(strangers("crates/gic-driver/src/lpi_of_another.rs"), 0);
    }
}
