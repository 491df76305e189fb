//! `doorbell snapshot`: examines the saved state of a virtual GIC, in Doorbell's or in KVM's
//! format.

mod cli;
mod config;
mod diff;
mod explain;
mod file;
mod inspect;
mod kvm;
mod lint;
mod machine;
mod memory;
#[cfg(test)]
mod tests;

use crate::exit::Outcome;
use anyhow::Result;
use cli::SnapshotCommand;

pub(crate) use cli::SnapshotArgs;
pub(crate) use lint::rules;

/// Runs a subcommand of `doorbell snapshot`.
pub(crate) fn snapshot(args: &SnapshotArgs) -> Result<Outcome> {
    match &args.command {
        SnapshotCommand::Inspect(args) => inspect::inspect(args),
        SnapshotCommand::Lint(args) => lint::lint(args),
        SnapshotCommand::Diff(args) => diff::diff(args),
        SnapshotCommand::Explain(args) => explain::explain(args),
    }
}
