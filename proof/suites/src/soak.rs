//! The random programs of `proof/soak`.

use std::process::Command;

use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// The parts of the soak.
pub const PARTS: [&str; 5] = ["chaos", "its", "levels", "msix", "machine"];

/// Returns the command that builds the program with optimization and runs it. The caller adds the
/// program's arguments.
pub fn program(workspace: &Workspace) -> Command {
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["run", "--quiet", "--release", "--package", "doorbell-soak", "--"]);
    cargo
}
