//! Tests of the `doorbell` command.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing to unwrap has failed")]

mod contract;
mod diff;
mod dumps;
mod explain;
mod explain_changes;
mod graph;
mod inspect;
mod json;
mod lint;
mod lint_team;
mod live;
mod manual;
mod omissions;
mod output;
mod recorded;
mod report;
mod run;
mod said;
mod snapshot;
mod sources;

use doorbell_machine::embedded;
use gic_firmware::{Description, devicetree};
use said::{Said, command, rows};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Runs the command in the folder of this package.
fn doorbell(arguments: &[&str]) -> Said {
    Said::of(command(arguments).output().unwrap())
}

/// Runs a command that must succeed, and returns its standard output.
#[track_caller]
fn printed(arguments: &[&str]) -> String {
    doorbell(arguments).with_status(0).out
}

/// Runs a command that cannot do its work, and returns its standard error.
#[track_caller]
fn refusal(arguments: &[&str]) -> String {
    doorbell(arguments).with_status(2).err
}

/// A folder of a test, in which commands run.
struct Folder(PathBuf);

impl Folder {
    /// Creates an empty folder.
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    /// Writes a devicetree.
    fn describe(&self, name: &str, description: &Description) {
        self.write(name, devicetree::write(description).unwrap());
    }

    fn run(&self, arguments: &[&str]) -> Said {
        Said::of(command(arguments).current_dir(&self.0).output().unwrap())
    }

    /// Runs a command whose standard input is a file of the folder.
    fn run_on(&self, input: &str, arguments: &[&str]) -> Said {
        let input = File::open(self.0.join(input)).unwrap();
        Said::of(command(arguments).current_dir(&self.0).stdin(input).output().unwrap())
    }

    /// Returns the path of a file.
    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn lint(&self, arguments: &[&str]) -> Said {
        self.run(&[&["lint"], arguments].concat())
    }
}

/// Returns the description of an embedded machine.
fn board(name: &str) -> Description {
    embedded::machine(name).unwrap().firmware.describe().unwrap()
}

/// Returns a table of `marina`, such as `apic`.
fn table(name: &str) -> Vec<u8> {
    fs::read(Path::new(&marina()).join(format!("{name}.aml"))).unwrap()
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
