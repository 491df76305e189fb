//! Compares the command's output for fixed input. Run `TRYCMD=overwrite cargo test -p doorbell
//! --test it recorded` to accept a change.

use std::process::Command;

#[test]
fn commands_print_their_recorded_text() {
    trycmd::TestCases::new().case("tests/cmd/*.toml").case("tests/cmd/*.trycmd");
}

/// The guide writes its baseline with this command.
#[test]
fn lint_prints_the_baseline_of_the_guide() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guides/lint-in-ci.in");
    let mut lint = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    lint.current_dir(folder).args(["lint", "--json", "build", "acpi/heron-a"]);
    let printed = String::from_utf8(lint.output().unwrap().stdout).unwrap();
    assert_eq!(printed, include_str!("../../../../docs/guides/lint-in-ci.in/known-findings.json"));
}

/// Runs the guide's `console` blocks in the adjacent folder `lint-in-ci.in`.
#[test]
fn commands_in_the_lint_guide_print_the_shown_output() {
    trycmd::TestCases::new().case("../../docs/guides/lint-in-ci.md");
}

#[test]
fn the_guide_to_lint_shows_the_files_in_its_folder() {
    let guide = include_str!("../../../../docs/guides/lint-in-ci.md");
    for (language, file) in [
        ("sh", include_str!("../../../../docs/guides/lint-in-ci.in/lint.sh")),
        ("yaml", include_str!("../../../../docs/guides/lint-in-ci.in/firmware.yml")),
        ("json", include_str!("../../../../docs/guides/lint-in-ci.in/registers.json")),
        ("text", include_str!("../../../../docs/guides/lint-in-ci.in/accepted.txt")),
    ] {
        let block = format!("```{language}\n{file}```\n");
        assert!(guide.contains(&block), "not in the guide:\n{file}");
    }
}
