//! Numbers and names in messages.

use gic_firmware::Coherence;

/// Minimum similarity of a suggested name. Clap has the same threshold for options.
const SIMILAR: f64 = 0.7;

/// Formats a number with its noun, such as `1 CPU` and `2 CPUs`. The plural must only add an "s".
pub(crate) fn counted(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Names what firmware says about the coherence of a controller's memory accesses.
pub(crate) const fn coherence(of: Coherence) -> &'static str {
    match of {
        Coherence::ByRegister => "by register",
        Coherence::NonCoherent => "not coherent",
    }
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
