//! The suites that carry out programs of the virtual GIC: a machine, a judge, and how much a run
//! does. The suites run these amounts, and `docs/reliability.md` has the same table.

/// Number of machines that carry out programs in `crates/vgic/tests/programs`.
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

    /// Returns the rows of the table, each with machines, their judge, and what an ordinary and a
    /// long run do.
    fn table() -> String {
        let [scopes, long_scopes] = SCOPES.map(<[_]>::len);
        let (minutes, wired) = (SCOPE_MINUTES[1], number(WIRED_PROGRAMS));
        let rows = [
            format!(
                "a software CPU interface; 16 list registers, also with an exit after each \
                 access, and with vCPU 0 in software; 1 or 3 list registers; or 4 list \
                 registers with an exit after each access; each plain, restored after each \
                 step, moved to another machine after each step, with as little work per access \
                 as possible, or with vCPUs that never sleep, where half of the messages reach \
                 list registers without an exit if possible ({MACHINES} machines) | abstract \
                 GIC; a vCPU must not sleep while an interrupt is signaled to it | all kept \
                 programs on each machine, and {PROGRAMS} random programs with {STEPS} random \
                 steps each, in turn: \
                 `machines_run_stored_programs_as_an_abstract_gic_allows`, \
                 `machines_run_random_programs_as_an_abstract_gic_allows` | –"
            ),
            format!(
                "the same, with SGIs, PPIs, SPIs and direct LPIs, also in the Non-secure view (in \
                 software), with 1-of-N SPIs and with linked physical interrupts | the rules for \
                 wired interrupts: signals to each vCPU after each step, and all registers at the \
                 end | {wired} random programs with {STEPS} random steps each: \
                 `machines_run_random_wired_programs_as_an_abstract_gic_allows`; every sequence of \
                 4 to 6 operations on a linked interrupt: \
                 `machines_run_every_short_sequence_on_linked_interrupts` | –"
            ),
            "moved by KVM's attributes and tables after each step | abstract GIC | kept programs, \
             except those whose states KVM's format cannot hold: \
             `kept_programs_continue_from_kvms_attributes` | –"
                .into(),
            format!(
                "every state of a small machine | the same, also without restores | \
                 `exhaustive`: {scopes} scopes | {long_scopes} more scope, for {minutes} minutes"
            ),
            format!(
                "the same guest, but with commands of a fuzzer | limits of reads, writes, memory \
                 and kicks | – | `programs` and `restore`: {FUZZ_MINUTES} minutes each"
            ),
        ];
        rows.map(|row| format!("| {row} |\n")).concat()
    }

    /// Formats a number with commas.
    fn number(value: u64) -> String {
        match value / 1000 {
            0 => value.to_string(),
            thousands => format!("{},{:03}", number(thousands), value % 1000),
        }
    }

    #[test]
    fn the_reliability_page_matches_the_suites() {
        let page = include_str!("../../../docs/reliability.md");
        let [messages, long] = MESSAGES.map(number);
        let soak = format!("`soak`: {messages} messages | {long} messages");
        let fuzz = format!("`fuzz-long`: {FUZZ_MINUTES} min for each target");
        for text in [table(), soak, fuzz] {
            assert!(page.contains(&text), "docs/reliability.md must contain\n{text}");
        }
    }
}
