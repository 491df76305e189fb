//! Builds the `doorbell` command and checks the totals that a run reports.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;
use crate::workspace::Workspace;

/// Builds the command and returns its path.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    process::must(process::cargo(&workspace.root).args([
        "build",
        "--release",
        "--package",
        "doorbell",
    ]))?;
    Ok(workspace.target.join("release/doorbell"))
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
