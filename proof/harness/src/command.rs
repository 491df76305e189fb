//! Builds the `doorbell` command and checks the totals that a run reports.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;
use crate::workspace::Workspace;

/// Builds the command and returns its path.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = process::cargo(&workspace.root);
    process::must(cargo.args(["build", "--release", "--package", "doorbell"]))?;
    Ok(workspace.target.join("release/doorbell"))
}

/// The command, as the suites run it.
#[derive(Debug)]
pub struct Doorbell(PathBuf);

impl Doorbell {
    /// Builds the command.
    pub fn build(workspace: &Workspace) -> Result<Self> {
        build(workspace).map(Self)
    }

    /// Returns a command that runs it outside of the repository.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = process::command(&self.0.to_string_lossy(), Path::new("/"));
        command.args(arguments);
        command
    }

    /// Returns the JSON that it prints about a source. Its exit status may state findings.
    ///
    /// # Errors
    /// Fails with the standard error if it ends unexpectedly or prints no JSON.
    pub fn json(&self, arguments: &[&str], source: &Path) -> Result<Value> {
        let output = process::output(self.command(arguments).arg(source))?;
        let said = || format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        ensure!(matches!(output.status.code(), Some(0 | 1)), "{}", said());
        let printed = serde_json::from_slice(&output.stdout);
        printed.with_context(said)
    }

    /// Returns its description of a source.
    pub fn inspect(&self, source: &Path) -> Result<Value> {
        self.json(&["inspect", "--json"], source)
    }
}

/// Checks that messages were sent and that none was lost, spurious or delivered to the wrong CPU.
/// Returns a one-line summary.
pub fn judge_totals(totals: &Value) -> Result<String> {
    let number =
        |name: &str| totals[name].as_u64().with_context(|| format!("the totals have no `{name}`"));
    for fault in ["lost", "spurious", "wrong_cpu", "guest_faults", "no_doorbell"] {
        let count = number(fault)?;
        ensure!(count == 0, "{fault}: {count}");
    }
    let (vectors, sent) = (number("vectors")?, number("sent")?);
    let (delivered, coalesced) = (number("delivered")?, number("coalesced")?);
    ensure!(vectors > 0 && sent > 0, "no messages were sent");
    ensure!(
        delivered + coalesced == sent,
        "{sent} sent, {delivered} delivered, {coalesced} coalesced"
    );
    Ok(format!("{vectors} vectors, {sent} sent, {delivered} delivered"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn totals(lost: u64, coalesced: u64) -> Value {
        json!({
            "vectors": 2, "sent": 10, "delivered": 9, "coalesced": coalesced, "lost": lost,
            "spurious": 0, "wrong_cpu": 0, "guest_faults": 0, "no_doorbell": 0,
        })
    }

    #[test]
    fn totals_that_account_for_every_message_pass() {
        assert!(judge_totals(&totals(0, 1)).is_ok());
    }

    #[test]
    fn totals_with_lost_or_unaccounted_messages_are_refused() {
        assert!(judge_totals(&totals(1, 1)).is_err());
        assert!(judge_totals(&totals(0, 0)).is_err());
        assert!(judge_totals(&json!({ "lost": 0 })).is_err());
    }
}
