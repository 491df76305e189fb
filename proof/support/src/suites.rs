//! The suites that carry out programs of the virtual GIC: a machine, a judge, and how much a run
//! does. The suites run these amounts, and `docs/reliability.md` states them in its table.

/// Number of machines that carry out programs in `crates/vgic/tests/it/programs.rs`.
pub const MACHINES: usize = 35;
/// Number of random programs there.
pub const PROGRAMS: u64 = 160;
/// Number of random programs with wired interrupts there.
pub const WIRED_PROGRAMS: u64 = 2400;
/// Number of random steps of each of these programs.
pub const STEPS: usize = 120;
/// Number of messages of `proof/soak`, in an ordinary and in a long run.
pub const MESSAGES: [u64; 2] = [20_000, 2_000_000];
/// The scopes that `proof/exhaustive` explores in an ordinary and in a long run, ordered so that no
/// CPU is idle at the end.
pub const SCOPES: [&[&str]; 2] =
    [&["direct-lpis", "two-events", "one-event"], &["two-masked-events"]];
/// Minutes after which an exploration of a scope stops and prints its frontier.
pub const SCOPE_MINUTES: [u64; 2] = [15, 110];
/// Minutes for each target of `proof/fuzz` in a long run.
pub const FUZZ_MINUTES: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Formats a number with commas.
    fn number(value: u64) -> String {
        match value / 1000 {
            0 => value.to_string(),
            thousands => format!("{},{:03}", number(thousands), value % 1000),
        }
    }

    #[test]
    fn the_reliability_page_states_the_suites_amounts() {
        let page = include_str!("../../../docs/reliability.md");
        let [messages, long] = MESSAGES.map(number);
        let [scopes, long_scopes] = SCOPES.map(<[_]>::len);
        let (minutes, wired) = (SCOPE_MINUTES[1], number(WIRED_PROGRAMS));
        for text in [
            format!("({MACHINES} machines)"),
            format!("{PROGRAMS} random programs with {STEPS} random steps each"),
            format!("{wired} random programs with {STEPS} random steps each"),
            format!(
                "`exhaustive`: {scopes} scopes | {long_scopes} more scope, for {minutes} minutes"
            ),
            format!("`programs` and `restore`: {FUZZ_MINUTES} minutes each"),
            format!("`soak`: {messages} messages | {long} messages"),
            format!("`fuzz-long`: {FUZZ_MINUTES} min for each target"),
        ] {
            assert!(page.contains(&text), "docs/reliability.md must contain\n{text}");
        }
    }
}
