//! The suites that carry out programs of the virtual GIC: a machine, a judge, and how much a run
//! does.

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
pub const SCOPE_MINUTES: [u64; 2] = [15, 30];
/// Minutes for each target of `proof/fuzz` in a long run.
pub const FUZZ_MINUTES: u64 = 5;
