//! The random programs of `proof/soak`.

use std::process::Command;

use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// Builds the program with all optimizations, or with the dependencies that the tests have, and
/// returns the command that runs it. The caller adds the program's arguments.
///
/// # Errors
/// Fails if cargo fails.
pub fn program(workspace: &Workspace, optimized: bool) -> anyhow::Result<Command> {
    const NAME: &str = "doorbell-soak";
    // A test among the targets selects the features that the tests' dependencies have.
    const TESTED: &[&str] = &["--workspace", "--all-features", "--bin", NAME, "--test", "soak"];
    let arguments = if optimized { &["--release", "--package", NAME][..] } else { TESTED };
    process::must(process::cargo(&workspace.root).args(["build", "--quiet"]).args(arguments))?;
    Ok(Command::new(workspace.target.join(if optimized { "release" } else { "debug" }).join(NAME)))
}
