//! Checks that `doorbell snapshot lint` finds the mistakes of the procedures that saved a real
//! KVM's snapshots.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Fact, JudgeFact};
use doorbell_harness::command::Doorbell;
use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;
use serde_json::Value;

/// Procedures, each with the rule that must find its mistake, or `None` if the snapshot must be
/// clean.
const EXPECTED: [(&str, Option<&str>); 3] = [
    ("documented", None),
    ("first-cpu-for-all", Some("shared-pending-table")),
    ("pages-before-tables", Some("table-not-included")),
];

/// Snapshots in JSON, by the names of their procedures.
#[derive(Debug, Default)]
pub(super) struct Saved(BTreeMap<String, String>);

impl Saved {
    /// Adds the piece of a snapshot that a line of the console contains, if any.
    pub(super) fn line(&mut self, line: &str) {
        if let Some(Fact::Judge(JudgeFact::Json { procedure, json })) = Fact::parse(line) {
            self.0.entry(procedure.to_string()).or_default().push_str(&json);
        }
    }

    /// Checks that `doorbell snapshot lint` finds the mistake in each snapshot, and nothing in the
    /// snapshot of the documented procedure. Writes each snapshot to a file whose name starts with
    /// `stem`, and keeps the file.
    ///
    /// # Errors
    /// Fails if a snapshot is missing, or if the findings differ from the expected ones.
    pub(super) fn judge(&self, workspace: &Workspace, stem: &Path) -> Result<()> {
        let doorbell = Doorbell::build(workspace)?;
        for (procedure, rule) in EXPECTED {
            let json = self.0.get(procedure).with_context(|| format!("no {procedure} snapshot"))?;
            let file = stem.with_extension(format!("{procedure}.json"));
            fs::write(&file, json)?;
            let mut lint = doorbell.command(&["snapshot", "lint", "--json"]);
            let output = process::output(lint.arg(&file))?;
            let findings: Vec<Value> = serde_json::from_slice(&output.stdout)
                .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
            let rules: Vec<_> =
                findings.iter().filter_map(|found| found["rule"].as_str()).collect();
            let is_expected = match rule {
                None => rules.is_empty() && output.status.success(),
                Some(rule) => rules.first() == Some(&rule) && output.status.code() == Some(1),
            };
            ensure!(is_expected, "{procedure}: the findings are {findings:#?}");
            eprintln!("{procedure}: {rules:?}");
        }
        Ok(())
    }
}
