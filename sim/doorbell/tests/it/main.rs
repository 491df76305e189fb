//! Tests of the `doorbell` command.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing to unwrap has failed")]

mod contract;
mod diff;
mod explain;
mod graph;
mod inspect;
mod json;
mod lint;
mod lint_team;
mod live;
mod manual;
mod omissions;
mod output;
mod overlays;
mod report;
mod run;
mod snapshot;
mod sources;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn doorbell(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_doorbell")).args(arguments).output().unwrap()
}

/// Returns a path from the folder of this package.
fn path(relative: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative).to_str().unwrap().to_owned()
}

/// Returns the path of a file in `gic-firmware`'s tests.
fn test_data(name: &str) -> String {
    path(&format!("../../crates/gic-firmware/tests/data/{name}"))
}

/// Returns the folder of the ACPI tables of `marina`.
fn marina() -> String {
    path("../machine/machines/marina")
}

/// Returns a path that only this process uses.
fn temporary(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("doorbell-{}-{name}", std::process::id()));
    drop(std::fs::remove_file(&path));
    path
}
