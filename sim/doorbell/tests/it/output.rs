//! Tests of the command with a closed pipe, a full disk, and endless input.

use std::fs::{self, File};
use std::io::pipe;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const DEVICETREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../machine/machines/harbour.dtb");
const MISTAKES: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/gic-firmware/tests/data/mistakes.dtb");
const GICV2: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/gic-firmware/tests/data/gicv2m.dtb");

/// Every subcommand in each of its modes, and its exit status on success.
const COMMANDS: [(&[&str], i32); 13] = [
    (&["--messages", "1"], 0),
    (&["run", "--json", "--messages", "1"], 0),
    (&["run", "--dtb", GICV2], 2),
    (&["run", "--json", "--dtb", GICV2], 2),
    (&["machines"], 0),
    (&["machines", "--json"], 0),
    (&["inspect", DEVICETREE], 0),
    (&["inspect", "--json", DEVICETREE], 0),
    (&["bench", "--rounds", "1", "--processes", "1"], 0),
    (&["bench", "--markdown", "--rounds", "1", "--processes", "1"], 0),
    (&["bench", "--json", "--rounds", "1", "--processes", "1"], 0),
    (&["--help"], 0),
    (&["--version"], 0),
];

/// Runs the command with the given standard output.
fn doorbell(arguments: &[&str], stdin: impl Into<Stdio>, stdout: impl Into<Stdio>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    let child = command.args(arguments).stdin(stdin).stdout(stdout).stderr(Stdio::piped()).spawn();
    child.unwrap().wait_with_output().unwrap()
}

/// Returns the command's standard error.
fn said(output: Output) -> String {
    String::from_utf8(output.stderr).unwrap()
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn a_closed_pipe_ends_the_output_quietly() {
    for (arguments, status) in COMMANDS {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let output = doorbell(arguments, Stdio::null(), writer);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        let said = said(output);
        assert!(!said.contains("panicked") && !said.contains("pipe"), "{arguments:?}: {said}");
        assert_eq!(said.is_empty(), status == 0, "{arguments:?}: {said}");
    }
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn output_that_cannot_be_stored_is_an_error() {
    for (arguments, _) in COMMANDS {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = doorbell(arguments, Stdio::null(), full);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = said(output);
        assert!(
            said.starts_with("doorbell: ") && said.contains("No space left"),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn the_exit_status_is_set_even_if_the_error_cannot_be_written() {
    for arguments in
        [["run", "--machine=atlantis"], ["inspect", "/nonexistent"], ["run", "--cpus=0"]]
    {
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
        let status = command.args(arguments).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(2), "{arguments:?}");
    }
}

#[track_caller]
fn is_too_large(path: &str) {
    for arguments in
        [vec!["inspect", path], vec!["inspect", "--json", path], vec!["run", "--dtb", path]]
    {
        let output = doorbell(&arguments, Stdio::null(), Stdio::piped());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        let said = said(output);
        assert!(
            said.contains(path) && said.contains("larger than 16 MiB"),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn endless_input_is_refused() {
    is_too_large("/dev/zero");
}

#[test]
fn a_huge_file_is_refused() {
    let path = crate::temporary("huge");
    // A ten-gigabyte file that starts like a devicetree.
    fs::copy(DEVICETREE, &path).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(10 << 30).unwrap();
    is_too_large(path.to_str().unwrap());
    fs::remove_file(path).unwrap();
}

#[test]
fn bytes_after_a_devicetree_are_ignored() {
    let path = crate::temporary("padded");
    fs::copy(DEVICETREE, &path).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(16 << 20).unwrap();
    let output = doorbell(&["inspect", path.to_str().unwrap()], Stdio::null(), Stdio::piped());
    assert_eq!(output.status.code(), Some(0));
    fs::remove_file(path).unwrap();
}

#[test]
fn common_options_may_precede_the_subcommand() {
    for first in [&["--color", "never"][..], &["--color=never", "-q"], &["--quiet"], &[]] {
        let output = doorbell(&[first, &["machines"]].concat(), Stdio::null(), Stdio::piped());
        assert_eq!(output.status.code(), Some(0), "{first:?}");
    }
    let output = doorbell(&["--color", "blue", "machines"], Stdio::null(), Stdio::piped());
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_quiet_command_prints_only_errors() {
    let run = |arguments: &[&str]| doorbell(arguments, Stdio::null(), Stdio::piped());
    let found = run(&["lint", "-q", MISTAKES]);
    assert_eq!(
        (found.status.code(), &*found.stdout, &*found.stderr),
        (Some(1), &b""[..], &b""[..])
    );
    let json = run(&["--quiet", "inspect", "--json", DEVICETREE]);
    assert_eq!((json.status.code(), &*json.stdout), (Some(0), &b""[..]));
    let absent = run(&["-q", "inspect", "no-such-file"]);
    assert_eq!((absent.status.code(), &*absent.stdout), (Some(2), &b""[..]));
    assert!(said(absent).contains("no-such-file"));
}

#[test]
fn the_environment_may_force_colors() {
    let is_colored = |variables: &[(&str, &str)], more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
        for name in ["NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR"] {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied()).args(["lint", MISTAKES]);
        command.args(more).output().unwrap().stdout.contains(&0x1b)
    };
    let force = ("FORCE_COLOR", "1");
    assert!(!is_colored(&[], &[]) && is_colored(&[force], &[]));
    assert!(!is_colored(&[force], &["--color", "never"]));
    assert!(!is_colored(&[force, ("NO_COLOR", "1")], &[]));
    assert!(!is_colored(&[("FORCE_COLOR", "")], &[]));
}

/// The earlier trace stays until the new one is complete.
#[test]
fn a_trace_replaces_an_earlier_one_atomically() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("trace-at-once");
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    let trace = folder.join("a.txt");
    fs::write(&trace, "earlier").unwrap();
    let path = trace.to_str().unwrap();
    let refused = ["run", "--dtb", GICV2, "--trace", path];
    assert_eq!(doorbell(&refused, Stdio::null(), Stdio::piped()).status.code(), Some(2));
    assert_eq!(fs::read_to_string(&trace).unwrap(), "earlier");
    let run = ["run", "--simulate", "--messages", "1", "--trace", path];
    assert_eq!(doorbell(&run, Stdio::null(), Stdio::piped()).status.code(), Some(0));
    assert!(fs::read_to_string(&trace).unwrap().len() > 1000);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files, [trace]);
}
