//! The end of each help text: exit statuses and examples.

/// Formats the meaning of exit status 0, that of 1 if the command uses it, and example commands.
macro_rules! help {
    ($good:literal $(, $findings:literal)?; $($example:literal),+) => {
        concat!(
            "Exit status:\n  0  ", $good, $("\n  1  ", $findings,)?
            "\n  2  cannot run, read the input, or write the output\n\nExample:",
            $("\n  ", $example),+
        )
    };
}

pub(crate) const ALL: &str = help!(
    "good; each subcommand states what this means", "findings, or a run that was not clean";
    "doorbell", "doorbell lint board.dtb"
);
pub(crate) const RUN: &str = help!(
    "the run was clean", "the run was not clean";
    "doorbell run --dtb board.dtb --disturb hotplug,migrate"
);
pub(crate) const MACHINES: &str = help!("success"; "doorbell machines");
pub(crate) const BENCH: &str = help!("success"; "doorbell bench --processes 1 --rounds 11");
pub(crate) const INSPECT: &str =
    help!("success, even if the description has mistakes"; "doorbell inspect board.dtb");
pub(crate) const EXPLAIN: &str = help!(
    "neither an obstacle nor an error or a warning on the way",
    "an obstacle, an error or a warning";
    "doorbell explain board.dtb 01:00.0",
    "doorbell explain tables/ '\\_SB.DMA0'",
    "doorbell explain board.dtb 0x100"
);
pub(crate) const GRAPH: &str = help!("success"; "doorbell graph board.dtb -o board.svg");
pub(crate) const REPORT: &str = help!(
    "no errors or warnings; the run, if any, was clean",
    "errors, warnings, or a run that was not clean";
    "doorbell report board.dtb -o board.html"
);
pub(crate) const LINT: &str = help!(
    "neither errors nor warnings", "errors or warnings";
    "doorbell lint board.dtb --deny all"
);
pub(crate) const WHY: &str = help!("success"; "doorbell why DB0107", "doorbell why mbi-range");
pub(crate) const DIFF: &str =
    help!("no differences", "differences"; "doorbell diff old.dtb new.dtb");
pub(crate) const SNAPSHOT: &str = help!(
    "good; each subcommand states what this means", "findings, differences, or an obstacle";
    "doorbell snapshot lint state.json"
);
pub(crate) const SNAPSHOT_INSPECT: &str =
    help!("success, even if the state has mistakes"; "doorbell snapshot inspect state.json");
pub(crate) const SNAPSHOT_LINT: &str =
    help!("neither errors nor warnings", "errors or warnings"; "doorbell snapshot lint state.json");
pub(crate) const SNAPSHOT_DIFF: &str =
    help!("no differences", "differences"; "doorbell snapshot diff saved.json restored.json");
pub(crate) const SNAPSHOT_EXPLAIN: &str = help!(
    "neither an obstacle nor an error or a warning on the way",
    "an obstacle, an error or a warning";
    "doorbell snapshot explain state.json --device 0x10 --event 0"
);
pub(crate) const LIVE: &str = help!(
    "neither a fault nor a difference between firmware and Linux", "a fault or a difference";
    "doorbell live --explain 0000:01:00.0", "doorbell live --watch 10"
);
pub(crate) const COMPLETIONS: &str = help!("success"; "doorbell completions bash");
pub(crate) const MAN: &str = help!("success"; "doorbell man lint");

#[cfg(test)]
mod tests {
    use crate::cli::Cli;
    use clap::{Command, CommandFactory, Parser};

    fn check(command: &Command, path: &str) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Exit status:\n  0  "), "{path} has no exit statuses: {help}");
        assert!(help.lines().all(|line| line.len() <= 80), "{path}: {help}");
        let (_, examples) = help.split_once("Example:\n").expect(path);
        for example in examples.lines() {
            assert!(example.trim_start().starts_with(path), "{path}: {example}");
            let words = example.split_whitespace().map(|word| word.trim_matches('\''));
            assert!(Cli::try_parse_from(words).is_ok(), "the parser refuses {example}");
        }
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            check(inner, &format!("{path} {}", inner.get_name()));
        }
    }

    #[test]
    fn every_help_text_has_exit_statuses_and_an_example_that_parses() {
        check(&Cli::command(), "doorbell");
    }
}
