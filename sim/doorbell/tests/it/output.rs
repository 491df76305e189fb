//! Tests of the command with a closed pipe, a full disk, and endless input.

use crate::{Folder, Said, command, doorbell, printed};
use std::fs::{self, File};
use std::io::pipe;
use std::process::{Output, Stdio};

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

/// Runs the command without an input, with the given standard output.
fn written_to(arguments: &[&str], stdout: impl Into<Stdio>) -> Said {
    let mut child = command(arguments);
    child.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    Said::of(child.spawn().unwrap().wait_with_output().unwrap())
}

/// Opens a file on a device without space.
fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn a_closed_pipe_ends_the_output_quietly() {
    for (arguments, status) in COMMANDS {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let said = written_to(arguments, writer).with_status(status).err;
        assert!(!said.contains("panicked") && !said.contains("pipe"), "{arguments:?}: {said}");
        assert_eq!(said.is_empty(), status == 0, "{arguments:?}: {said}");
    }
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn output_that_cannot_be_stored_is_an_error() {
    for (arguments, _) in COMMANDS {
        let said = written_to(arguments, full()).with_status(2).err;
        let is_told = said.starts_with("doorbell: ") && said.contains("No space left");
        assert!(is_told, "{arguments:?}: {said}");
    }
}

#[test]
fn the_exit_status_is_set_even_if_the_error_cannot_be_written() {
    for arguments in
        [["run", "--machine=atlantis"], ["inspect", "/nonexistent"], ["run", "--cpus=0"]]
    {
        let status = command(&arguments).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn endless_input_is_refused() {
    let path = "/dev/zero";
    for arguments in [&["inspect", path][..], &["inspect", "--json", path], &["run", "--dtb", path]]
    {
        let Said { out, err, .. } = doorbell(arguments).with_status(2);
        let is_told = err.contains(path) && err.contains("larger than 16 MiB");
        assert!(out.is_empty() && is_told, "{arguments:?}: {err}");
    }
}

#[test]
fn bytes_after_a_devicetree_are_ignored() {
    let folder = Folder::new("output-padded");
    folder.write("padded", fs::read(DEVICETREE).unwrap());
    let path = folder.path("padded");
    File::options().write(true).open(&path).unwrap().set_len(16 << 20).unwrap();
    printed(&["inspect", &path]);
}

#[test]
fn common_options_may_precede_the_subcommand() {
    for first in [&["--color", "never"][..], &["--color=never", "-q"], &["--quiet"], &[]] {
        printed(&[first, &["machines"]].concat());
    }
    doorbell(&["--color", "blue", "machines"]).with_status(2);
}

#[test]
fn a_quiet_command_prints_only_errors() {
    let Said { out, err, .. } = doorbell(&["lint", "-q", MISTAKES]).with_status(1);
    assert_eq!((out.as_str(), err.as_str()), ("", ""));
    assert_eq!(printed(&["--quiet", "inspect", "--json", DEVICETREE]), "");
    let Said { out, err, .. } = doorbell(&["-q", "inspect", "no-such-file"]).with_status(2);
    assert!(out.is_empty() && err.contains("no-such-file"), "{err}");
}

#[test]
fn the_environment_may_force_colors() {
    let is_colored = |variables: &[(&str, &str)], more: &[&str]| {
        let mut lint = command(&[&["lint", MISTAKES], more].concat());
        for name in ["NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR"] {
            lint.env_remove(name);
        }
        let Output { stdout, .. } = lint.envs(variables.iter().copied()).output().unwrap();
        stdout.contains(&0x1b)
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
    let folder = Folder::new("output-trace");
    folder.write("a.json", "earlier");
    let trace = || fs::read_to_string(folder.0.join("a.json")).unwrap();
    folder.run(&["run", "--dtb", GICV2, "--trace", "a.json"]).with_status(2);
    assert_eq!(trace(), "earlier");
    folder.run(&["run", "--simulate", "--messages", "1", "--trace", "a.json"]).with_status(0);
    assert!(trace().len() > 1000);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}
