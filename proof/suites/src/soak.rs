//! The random programs of `proof/soak`.

use std::process::Command;

use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// The parts of the soak.
pub const PARTS: [&str; 6] = ["chaos", "its", "levels", "msix", "machine", KVM];
/// The part that needs the host's KVM.
pub const KVM: &str = "kvm";

/// Returns the command that builds the program with a cargo profile and runs it. The caller adds
/// the program's arguments.
pub fn program(workspace: &Workspace, profile: &str) -> Command {
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["run", "--quiet", "--profile", profile, "--package", "doorbell-soak", "--"]);
    cargo
}
