//! Arguments of `doorbell snapshot`.

use crate::help;
use crate::print::OutputArgs;
use crate::wording::number;
use clap::{ArgGroup, Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    pub(super) command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum SnapshotCommand {
    /// Print a one-screen summary of the state: vCPUs, interrupts, ITSes, tables.
    #[command(after_help = help::SNAPSHOT_INSPECT)]
    Inspect(SnapshotInspectArgs),
    /// Check for states that lose interrupts after a restore, each by a rule with a stable name.
    #[command(after_help = help::SNAPSHOT_LINT)]
    Lint(SnapshotLintArgs),
    /// Print the objects and fields in which two states differ.
    #[command(after_help = help::SNAPSHOT_DIFF)]
    Diff(SnapshotDiffArgs),
    /// Restore the state into the model, and explain why an interrupt does not arrive.
    #[command(after_help = help::SNAPSHOT_EXPLAIN)]
    Explain(SnapshotExplainArgs),
}

#[derive(Debug, Args)]
pub(super) struct SnapshotInspectArgs {
    /// JSON of vgic's saved state, or of KVM's attributes and tables.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct SnapshotLintArgs {
    /// JSON of vgic's saved state, or of KVM's attributes and tables.
    #[arg(value_name = "FILE", required_unless_present = "rules")]
    pub(super) files: Vec<PathBuf>,
    /// Do not report this rule.
    #[arg(long, value_name = "RULE")]
    pub(super) allow: Vec<String>,
    /// List the rules.
    #[arg(long, exclusive = true)]
    pub(super) rules: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct SnapshotDiffArgs {
    /// The first state.
    #[arg(value_name = "A")]
    pub(super) before: PathBuf,
    /// The second state.
    #[arg(value_name = "B")]
    pub(super) after: PathBuf,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("interrupt").args(["device", "intid"]).required(true)))]
pub(super) struct SnapshotExplainArgs {
    /// JSON of vgic's saved state, or of KVM's attributes and tables.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// DeviceID, in decimal or as 0x….
    #[arg(long, value_name = "D", value_parser = number, requires = "event")]
    pub(super) device: Option<u32>,
    /// EventID of the device, in decimal or as 0x….
    #[arg(long, value_name = "E", value_parser = number, requires = "device")]
    pub(super) event: Option<u32>,
    /// Index of the ITS that receives the device's messages.
    #[arg(long, value_name = "I", default_value_t = 0, requires = "device")]
    pub(super) its: usize,
    /// INTID, in decimal or as 0x….
    #[arg(long, value_name = "N", value_parser = number, requires = "vcpu")]
    pub(super) intid: Option<u32>,
    /// Number of the vCPU that should receive the INTID.
    #[arg(long, value_name = "V", requires = "intid")]
    pub(super) vcpu: Option<u32>,
    /// If the interrupt is not pending, explain what would stop it if it were.
    #[arg(long)]
    pub(super) as_if_pending: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}
