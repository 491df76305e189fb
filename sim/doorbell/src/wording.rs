//! Numbers and names in messages and arguments.

pub(crate) use doorbell_inspection::counted;
use std::num::ParseIntError;

/// Minimum similarity of a suggested name. Clap has the same threshold for options.
const SIMILAR: f64 = 0.7;

/// Parses a number of a device or an interrupt, in decimal or as 0x….
pub(crate) fn number(text: &str) -> Result<u32, ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

/// Formats a number with three significant digits.
pub(crate) fn three_digits(number: f64) -> String {
    let decimals = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.decimals$}")
}

/// Returns a question that suggests the most similar of `names`; empty if none is similar.
pub(crate) fn did_you_mean<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> String {
    similar(name, names).map(|meant| format!("did you mean {meant:?}? ")).unwrap_or_default()
}

/// Returns the name that is most similar to `name`; `None` if none is similar.
fn similar<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let likeness = |candidate: &'n str| {
        // A prefix such as `msi-over` also suggests the name.
        let is_start = name.len() > 3 && candidate.starts_with(name);
        let likeness = if is_start { 1.0 } else { strsim::jaro(name, candidate) };
        (likeness, candidate)
    };
    let best = names.map(likeness).max_by(|one, other| one.0.total_cmp(&other.0));
    best.filter(|(likeness, _)| *likeness > SIMILAR).map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_similar_names_are_suggested() {
        let names = ["mbi-range", "msi-over-wired", "unreadable-source", "all"];
        let meant = |name| similar(name, names.into_iter());
        assert_eq!(meant("msi-over"), Some("msi-over-wired"));
        assert_eq!(meant("msi-over-wierd"), Some("msi-over-wired"));
        assert_eq!(meant("unreadable-sources"), Some("unreadable-source"));
        assert_eq!(meant("al"), Some("all"));
        assert_eq!(meant("xyzzy"), None);
    }
}
