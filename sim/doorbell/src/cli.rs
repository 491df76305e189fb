//! The command line.

use crate::registers;
use clap::{Args, Parser, Subcommand, ValueEnum};
use doorbell_machine::ControllerChoice;
use gic_firmware::lint::KnownRegisters;
use std::path::PathBuf;

/// Delivers every device's message-signalled interrupts on the machine that a firmware description
/// describes.
#[derive(Debug, Parser)]
#[command(name = "doorbell", version, args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Exit status: 0 good; 1 findings, or a run that is not clean; 2 could not run, \
                  or could not write the output.\nA reader that closes the pipe early ends the \
                  output, and changes neither the exit status nor says anything."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

impl Cli {
    /// Returns the subcommand; `run` if none is given.
    pub(crate) fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Run(self.run))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the machine, let the drivers program it, and deliver every device's interrupts (the
    /// default).
    Run(RunArgs),
    /// List the embedded machines.
    Machines(OutputArgs),
    /// Measure injection, acknowledgement, dispatch, and each kind of controller, as ratios to
    /// floors in the same run.
    Bench(BenchArgs),
    /// Try every kind of endpoint on every kind of controller, behind every IOMMU layer, on bare
    /// metal and in guests.
    Matrix(OutputArgs),
    /// Print what a description says: controllers, devices, routes.
    Inspect(InspectArgs),
    /// Draw devices, IOMMUs, controllers and CPUs: SVG or DOT.
    Graph(GraphArgs),
    /// Write one HTML page for somebody without this tool: the picture, findings, tables, and where
    /// a run's interrupts went.
    Report(ReportArgs),
    /// Find mistakes in descriptions, each by a rule with a stable name.
    Lint(LintArgs),
    /// Speak QEMU's qtest protocol over a GICv3 and ITS in the memory map of QEMU's `virt` machine.
    Qtest(QtestArgs),
    /// Print a shell's completions of this command's arguments.
    Completions(CompletionsArgs),
    /// Print the manual page of this command, or of one of its subcommands.
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell that reads them.
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// A subcommand's name; the whole command if none is given.
    pub(crate) subcommand: Option<String>,
}

/// A kind of MSI controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Controller {
    /// All that the description has.
    Auto,
    /// Interrupt Translation Services.
    Its,
    /// The redistributors, without an ITS.
    DirectLpi,
    /// The distributor's message-based SPIs.
    Mbi,
    /// GICv2m frames.
    V2m,
    /// Virtual PCI buses of Hyper-V's.
    HypervVpci,
}

impl From<Controller> for ControllerChoice {
    fn from(chosen: Controller) -> Self {
        match chosen {
            Controller::Auto => Self::Auto,
            Controller::Its => Self::Its,
            Controller::DirectLpi => Self::DirectLpi,
            Controller::Mbi => Self::Mbi,
            Controller::V2m => Self::V2m,
            Controller::HypervVpci => Self::HypervVpci,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// An embedded machine (see `doorbell machines`); without it, the first.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["dtb", "acpi"])]
    pub(crate) machine: Option<String>,
    /// A flattened devicetree, of at most 16 MiB.
    #[arg(long, value_name = "FILE", conflicts_with = "acpi")]
    pub(crate) dtb: Option<PathBuf>,
    /// A folder of ACPI tables: `APIC`, `IORT`, `MCFG`, as Linux or `acpixtract` name them.
    #[arg(long, value_name = "DIR")]
    pub(crate) acpi: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    /// Write the events of a simulation, a line for each.
    #[arg(long, value_name = "FILE", requires = "simulate")]
    pub(crate) trace: Option<PathBuf>,
    /// Show each vector: its interrupt, and its handler's runs on each CPU.
    #[arg(long, conflicts_with = "json")]
    pub(crate) vectors: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Options of every run.
#[derive(Debug, Args)]
pub(crate) struct WorkloadArgs {
    /// Use at most this many of the machine's CPUs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) cpus: Option<u32>,
    /// Only the devices that firmware sends to controllers of this kind; auto = all.
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Controller::Auto)]
    pub(crate) controller: Controller,
    /// Messages that each vector sends.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) messages: Option<u32>,
    /// Seed of every choice: devices, targets, moves.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Disturbances while devices send and affinities move, separated by commas.
    #[arg(long, value_name = "KINDS", value_enum, value_delimiter = ',')]
    pub(crate) disturb: Vec<Disturbance>,
    /// Run on one thread, in an order that the seed alone decides.
    #[arg(long)]
    pub(crate) simulate: bool,
}

/// A disturbance of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Disturbance {
    /// The interrupt controller is saved, and restored into a fresh one.
    Migrate,
    /// CPUs go off line and come back.
    Hotplug,
    /// Devices are removed, orderly or by surprise, and added again.
    Remove,
    /// The machine suspends to RAM, loses the registers of its interrupt controllers and PCI
    /// functions, and resumes.
    Suspend,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Processes that measure one after the other: the median of their medians and the least are
    /// shown. Memory lies elsewhere in each.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub(crate) processes: u32,
    /// Samples of each case in each process.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 101,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(crate) rounds: u32,
    /// A program that measures something else, such as `peers/arm-vgic`: sampled in turn with the
    /// cases here.
    #[arg(long = "peer", value_name = "PROGRAM")]
    pub(crate) peers: Vec<PathBuf>,
    /// Print the tables of docs/measurements.md: ratios alone.
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// A form of description.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Form {
    /// Devicetree source.
    Dts,
    /// The source of an IORT.
    Iort,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A flattened devicetree, or a folder of ACPI tables; without it, this machine's own firmware.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: Option<PathBuf>,
    /// Write the interrupt part as source of another form: a devicetree for `dtc`, an IORT for
    /// `iasl`.
    #[arg(long, value_name = "FORM", value_enum, conflicts_with = "json")]
    pub(crate) emit: Option<Form>,
    #[command(flatten)]
    pub(crate) registers: RegistersArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RegistersArgs {
    /// Values of registers, for what only they tell: a JSON object with `GICD_TYPER`, a list
    /// `GICR_TYPER`, and an object `GITS_TYPER` by ITS; numbers, or strings such as "0x1e000".
    #[arg(long = "registers", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl RegistersArgs {
    /// The values, none without a file.
    pub(crate) fn read(&self) -> anyhow::Result<KnownRegisters> {
        self.file.as_deref().map_or_else(|| Ok(KnownRegisters::default()), registers::read)
    }
}

#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    /// A flattened devicetree, or a folder of ACPI tables; without it, this machine's own firmware.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: Option<PathBuf>,
    /// Write to this file, in DOT if its name ends with `.dot`; else to standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write DOT, whatever the file is called.
    #[arg(long)]
    pub(crate) dot: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// A flattened devicetree, or a folder of ACPI tables; without it, this machine's own firmware.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: Option<PathBuf>,
    /// Write to this file; else to standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Run the machine, or write no page if it cannot be run. Without this, the page says why.
    #[arg(long)]
    pub(crate) run: bool,
    /// Do not run the machine.
    #[arg(long, conflicts_with = "run")]
    pub(crate) no_run: bool,
    #[command(flatten)]
    pub(crate) registers: RegistersArgs,
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// Devicetrees, folders of ACPI tables, or folders with devicetrees below them; without any,
    /// this machine's own firmware.
    #[arg(value_name = "SOURCE")]
    pub(crate) sources: Vec<PathBuf>,
    /// The sources describe one machine: hold them against the first.
    #[arg(long)]
    pub(crate) same_machine: bool,
    #[command(flatten)]
    pub(crate) registers: RegistersArgs,
    /// Do not report this rule; `all` is every one that is not denied.
    #[arg(long, value_name = "RULE")]
    pub(crate) allow: Vec<String>,
    /// Count this rule as an error; `all` is every one that is not allowed.
    #[arg(long, value_name = "RULE")]
    pub(crate) deny: Vec<String>,
    /// Explain a rule, with an example of the fault and of the mend.
    #[arg(long, value_name = "RULE", exclusive = true)]
    pub(crate) explain: Option<String>,
    /// List the rules.
    #[arg(long, exclusive = true)]
    pub(crate) rules: bool,
    /// Print the number of findings of each rule alone.
    #[arg(long)]
    pub(crate) summary: bool,
    /// Print SARIF 2.1.0, for CI systems.
    #[arg(long, conflicts_with_all = ["json", "summary"])]
    pub(crate) sarif: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Number of a GIC's security states.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum SecurityStates {
    /// `GICD_CTLR.DS` is 1.
    One,
    /// `GICD_CTLR.DS` is 0.
    Two,
}

#[derive(Debug, Args)]
pub(crate) struct QtestArgs {
    /// CPUs, and so redistributors.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=512)
    )]
    pub(crate) cpus: u16,
    /// Security states of the GIC; of two, the script sees what Non-secure software does.
    #[arg(long, value_enum, default_value = "one")]
    pub(crate) security: SecurityStates,
    /// Let the CPUs take interrupts of every group and priority: their interfaces, which the
    /// protocol does not reach, come up with all of that off.
    #[arg(long)]
    pub(crate) unmask: bool,
    /// Connect to a Unix socket instead of standard input and output; with `,server=on`, wait there
    /// for a connection.
    #[arg(long, value_name = "[unix:]PATH[,server=on]")]
    pub(crate) socket: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}
