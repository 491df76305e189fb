//! Numbers and names in messages.

use gic_firmware::Coherence;

/// Formats a number with its noun, such as `1 CPU` and `2 CPUs`. The plural must only add an "s".
pub fn counted(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Names what firmware says about the coherence of a controller's memory accesses.
pub const fn coherence(of: Coherence) -> &'static str {
    match of {
        Coherence::ByRegister => "by register",
        Coherence::NonCoherent => "not coherent",
    }
}
