//! Command-line parser.

use crate::dts::Compilation;
use crate::help;
use crate::print::{self, ColorWhen, OutputArgs};
use crate::registers;
use crate::snapshot::SnapshotArgs;
use crate::source;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use doorbell_inspection::Source;
use doorbell_inspection::is_stdin;
use doorbell_machine::ControllerChoice;
use gic_firmware::lint::KnownRegisters;
use std::path::{Path, PathBuf};

/// Delivers every device's message-signaled interrupts on the machine that a firmware description
/// describes.
#[derive(Debug, Parser)]
#[command(name = "doorbell", version, args_conflicts_with_subcommands = true)]
#[command(after_help = help::ALL)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
    /// When to use colors; auto = on a terminal, unless `NO_COLOR` or `TERM=dumb` is set, or if
    /// `FORCE_COLOR` is set.
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto", global = true)]
    color: ColorWhen,
    /// Print nothing to standard output; the exit status tells the result. Files are written, and
    /// errors are printed.
    #[arg(short, long, global = true)]
    quiet: bool,
}

impl Cli {
    /// Returns the subcommand, `run` if none is given, and applies `--quiet`.
    pub(crate) fn into_command(self) -> Command {
        if self.quiet {
            print::silence();
        }
        self.command.unwrap_or(Command::Run(RunFileArgs { source: None, run: self.run }))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the machine, let the drivers program it, and deliver every device's interrupts (the
    /// default).
    #[command(after_help = help::RUN)]
    Run(RunFileArgs),
    /// List the embedded machines.
    #[command(after_help = help::MACHINES)]
    Machines(OutputArgs),
    /// Measure injection, acknowledgment, guest entries and exits, dispatch and route updates,
    /// relative to floors and peers that are measured in the same run.
    #[command(after_help = help::BENCH)]
    Bench(BenchArgs),
    /// Print the contents of a description: controllers, devices, routes.
    #[command(after_help = help::INSPECT)]
    Inspect(InspectArgs),
    /// Explain the way of a device's messages as firmware describes it: requester, IOMMU, DeviceID,
    /// doorbell, target.
    #[command(after_help = help::EXPLAIN)]
    Explain(ExplainArgs),
    /// Draw devices, IOMMUs, controllers and CPUs, as SVG.
    #[command(after_help = help::GRAPH)]
    Graph(GraphArgs),
    /// Write one HTML page for a reader without this tool: the picture, findings, tables, and where
    /// a run's interrupts arrived.
    #[command(after_help = help::REPORT)]
    Report(ReportArgs),
    /// Find mistakes in descriptions, each by a rule with a stable name.
    #[command(after_help = help::LINT)]
    Lint(LintArgs),
    /// Print what is known about a code or rule: cause, example, mend, source.
    #[command(after_help = help::WHY)]
    Why(WhyArgs),
    /// Print what changed between two descriptions: controllers, routes, isolation, findings.
    #[command(after_help = help::DIFF)]
    Diff(DiffArgs),
    /// Examine the saved state of a virtual GIC, in Doorbell's format or in that of Linux's KVM.
    #[command(after_help = help::SNAPSHOT)]
    Snapshot(SnapshotArgs),
    /// Compare the running Linux's interrupts with its firmware, and explain missing interrupts.
    #[command(after_help = help::LIVE)]
    Live(LiveArgs),
    /// Print a shell's completions for the arguments of this command.
    #[command(after_help = help::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print the manual page of this command, or of one of its subcommands.
    #[command(after_help = help::MAN)]
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell that reads the completions.
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Name of a subcommand; without it, the page of the whole command.
    pub(crate) subcommand: Option<String>,
}

/// The kinds of MSI controllers, with their names as arguments.
const CONTROLLERS: [(&str, &str, ControllerChoice); 7] = [
    ("auto", "All controllers of the description", ControllerChoice::Auto),
    ("its", "Interrupt Translation Services", ControllerChoice::Its),
    ("direct-lpi", "Redistributors, without an ITS", ControllerChoice::DirectLpi),
    ("mbi", "Message-based SPIs of the distributor", ControllerChoice::Mbi),
    ("v2m", "GICv2m frames", ControllerChoice::V2m),
    ("bridge-msi", "Controllers inside host bridges", ControllerChoice::BridgeMsi),
    ("hyperv-vpci", "Virtual PCI buses of Hyper-V", ControllerChoice::HypervVpci),
];

/// Returns the parser of a kind.
fn controller() -> impl TypedValueParser<Value = ControllerChoice> {
    let names = CONTROLLERS.map(|(name, help, _)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(names).map(|chosen| {
        let found = CONTROLLERS.iter().find(|(name, ..)| *name == chosen);
        found.map_or(ControllerChoice::Auto, |(_, _, choice)| *choice)
    })
}

/// The arguments of `run`, which can also name the description as other subcommands do.
#[derive(Debug, Args)]
pub(crate) struct RunFileArgs {
    /// Flattened devicetree or its source; folder, dump or source of ACPI tables; `-` is standard
    /// input.
    #[arg(value_name = "SOURCE", conflicts_with_all = ["machine", "dtb", "acpi", "running"])]
    pub(crate) source: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Embedded machine (see `doorbell machines`); without it, the first one.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["dtb", "acpi", "running"])]
    pub(crate) machine: Option<String>,
    /// Flattened devicetree of at most 16 MiB, or its source; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["acpi", "running"])]
    pub(crate) dtb: Option<PathBuf>,
    /// Folder of ACPI tables: `APIC`, `IORT`, `MCFG`, named as by Linux or `acpixtract`.
    #[arg(long, value_name = "DIR", conflicts_with = "running")]
    pub(crate) acpi: Option<PathBuf>,
    /// Firmware of the running machine.
    #[arg(long)]
    pub(crate) running: bool,
    #[command(flatten)]
    pub(crate) include: IncludeArgs,
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    /// Write a trace of every message to this file, in Chrome's trace format, which Perfetto opens.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Show each vector: its interrupt, and the runs of its handler on each CPU.
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
    /// Use only the devices that firmware routes to controllers of this kind; auto = all.
    #[arg(long, value_name = "KIND", value_parser = controller(), default_value = "auto")]
    pub(crate) controller: ControllerChoice,
    /// Number of messages that each vector sends.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) messages: Option<u32>,
    /// Seed of every random choice: devices, targets, moves.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Disturbances while devices send and affinities move, separated by commas.
    #[arg(long, value_name = "KINDS", value_enum, value_delimiter = ',')]
    pub(crate) disturb: Vec<Disturbance>,
    /// Run on a single thread, in an order that depends on the seed alone.
    #[arg(long)]
    pub(crate) simulate: bool,
}

/// A disturbance of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Disturbance {
    /// Save the interrupt controller, and restore it into a new one.
    Migrate,
    /// Take CPUs offline and online again.
    Hotplug,
    /// Remove devices, orderly or by surprise, and add them again.
    Remove,
    /// Suspend the machine to RAM, which loses the registers of its interrupt controllers and PCI
    /// functions, and resume it.
    Suspend,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Number of processes, which measure one after the other with different memory layouts; the
    /// median of their medians and the least value are shown.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    pub(crate) processes: u32,
    /// Number of samples of each case in each process.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 101,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(crate) rounds: u32,
    /// Program that measures something else, such as `peers/arm-vgic`; it is sampled alternately
    /// with the built-in cases.
    #[arg(long = "peer", value_name = "PROGRAM")]
    pub(crate) peers: Vec<PathBuf>,
    /// Print the tables of docs/measurements.md, which contain only ratios.
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// A source format for descriptions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Form {
    /// Devicetree source.
    Dts,
    /// Source of an IORT.
    Iort,
}

/// Folders of a devicetree source's includes.
#[derive(Debug, Args)]
pub(crate) struct IncludeArgs {
    /// Search this folder for files that a devicetree source includes. A source can only read files
    /// in its own folder and in these.
    #[arg(short = 'I', long = "include", value_name = "DIR")]
    folders: Vec<PathBuf>,
}

impl IncludeArgs {
    /// Returns how to compile a source.
    pub(crate) fn compilation(&self) -> Compilation<'_> {
        Compilation { folders: &self.folders, with_symbols: false }
    }
}

/// The description that a command reads. All commands have the same default.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// Flattened devicetree or its source; folder, dump or source of ACPI tables; `-` is standard
    /// input. Without a source, the first embedded machine.
    #[arg(value_name = "SOURCE", conflicts_with_all = ["machine", "running"])]
    source: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
}

impl SourceArgs {
    /// Reads the description.
    pub(crate) fn open(&self) -> anyhow::Result<Source> {
        self.source.as_ref().map_or_else(|| self.machine.open(), |path| self.machine.at(path))
    }
}

/// A description without a file, and how to read one with a file.
#[derive(Debug, Args)]
struct MachineArgs {
    /// Embedded machine (see `doorbell machines`).
    #[arg(long, value_name = "NAME", conflicts_with = "running")]
    machine: Option<String>,
    /// Firmware of the running machine.
    #[arg(long)]
    running: bool,
    #[command(flatten)]
    include: IncludeArgs,
}

impl MachineArgs {
    fn at(&self, path: &Path) -> anyhow::Result<Source> {
        source::at(path, self.include.compilation())
    }

    fn open(&self) -> anyhow::Result<Source> {
        if self.running { source::running() } else { source::embedded(self.machine.as_deref()) }
    }
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Write the interrupt-related part in a source format: a devicetree for `dtc`, or an IORT for
    /// `iasl`.
    #[arg(long, value_name = "FORM", value_enum, conflicts_with = "json")]
    pub(crate) emit: Option<Form>,
    /// Write Direct LPI as this project's draft of an IORT node, in the format of `acpidump`:
    /// `iasl` knows no such node, and no operating system reads it.
    #[arg(long, requires = "emit")]
    pub(crate) draft: bool,
    #[command(flatten)]
    pub(crate) registers: RegistersArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A description, as for `inspect`, and a device: a node, or the end of its path if no other
    /// has it; a PCI function such as 0000:01:00.0, or with its host, "/pcie@10000000 01:00.0"; a
    /// requester of another bus, `NODE[0x1]`; or a DeviceID such as 0x100, which names all that
    /// have it. Without a device, the devices are listed.
    #[arg(value_names = ["SOURCE", "DEVICE"], num_args = 1..=2)]
    #[arg(required_unless_present_any = ["machine", "running"])]
    words: Vec<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl ExplainArgs {
    /// Reads the description, and returns it with the name of the device. A single word is a source
    /// if a file has this name.
    pub(crate) fn open(&self) -> anyhow::Result<(Source, Option<String>)> {
        let is_file = |path: &Path| path.exists() || is_stdin(path);
        let (source, device) = match self.words.as_slice() {
            [_, _] if self.names_machine() => anyhow::bail!("name a source or a machine, not both"),
            [source, device] => (self.machine.at(source)?, Some(device)),
            [source] if !self.names_machine() && is_file(source) => {
                (self.machine.at(source)?, None)
            }
            words => (self.machine.open()?, words.first()),
        };
        Ok((source, device.map(|device| device.to_string_lossy().into_owned())))
    }

    /// Returns `true` if an option names the machine.
    pub(crate) const fn names_machine(&self) -> bool {
        self.machine.machine.is_some() || self.machine.running
    }
}

#[derive(Debug, Args)]
pub(crate) struct RegistersArgs {
    /// Register values for facts that firmware does not state: a JSON object with `GICD_TYPER`, a
    /// list `GICR_TYPER`, and an object `GITS_TYPER` by ITS; numbers, or strings such as "0x1e000".
    #[arg(long = "registers", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl RegistersArgs {
    /// Reads the values; none are known without a file.
    pub(crate) fn read(&self) -> anyhow::Result<KnownRegisters> {
        self.file.as_deref().map_or_else(|| Ok(KnownRegisters::default()), registers::read)
    }
}

#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Write to this file; without it, to standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Write to this file; without it, to standard output.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Require a run: fail if the machine cannot be run. Without this option, the page states the
    /// reason.
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
    /// Devicetrees or their sources, each followed by the overlays to apply to it (`.dtbo`,
    /// `.dtso`), folders, dumps or sources of ACPI tables, or folders that contain devicetrees at
    /// any depth; `-` is standard input.
    #[arg(
        value_name = "SOURCE",
        required_unless_present_any = ["machine", "running", "rules", "explain"]
    )]
    pub(crate) sources: Vec<PathBuf>,
    /// Check an embedded machine (see `doorbell machines`).
    #[arg(long, value_name = "NAME")]
    pub(crate) machine: Option<String>,
    /// Check the firmware of the running machine.
    #[arg(long)]
    pub(crate) running: bool,
    #[command(flatten)]
    pub(crate) include: IncludeArgs,
    /// Treat the sources as descriptions of one machine, and compare each with the first.
    #[arg(long)]
    pub(crate) same_machine: bool,
    #[command(flatten)]
    pub(crate) registers: RegistersArgs,
    /// Do not report this rule, or its findings at one place, for a reason: `RULE@WHERE # REASON`;
    /// `all` stands for every rule that is not denied.
    #[arg(long, value_name = "RULE[@WHERE # REASON]")]
    pub(crate) allow: Vec<String>,
    /// Read `RULE@WHERE # REASON` from the lines of this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) allow_file: Vec<PathBuf>,
    /// Let only findings that this file does not contain decide the exit status. The file is the
    /// output of an earlier run with `--json`.
    #[arg(long, value_name = "FILE")]
    pub(crate) baseline: Option<PathBuf>,
    /// Report this rule as an error; `all` stands for every rule that is not allowed.
    #[arg(long, value_name = "RULE")]
    pub(crate) deny: Vec<String>,
    /// Explain a rule, with an example of the fault and of its fix.
    #[arg(long, value_name = "RULE", exclusive = true)]
    pub(crate) explain: Option<String>,
    /// List the rules.
    #[arg(long, exclusive = true)]
    pub(crate) rules: bool,
    /// Print only the number of findings of each rule.
    #[arg(long)]
    pub(crate) summary: bool,
    /// Print SARIF 2.1.0, for CI systems.
    #[arg(long, conflicts_with_all = ["json", "summary"])]
    pub(crate) sarif: bool,
    /// Print GitHub workflow commands, which annotate a run and its pull request.
    #[arg(long, conflicts_with_all = ["json", "sarif", "summary"])]
    pub(crate) github: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// A code such as DB0107, or the name of a rule; without it, all codes are listed.
    #[arg(value_name = "CODE")]
    pub(crate) code: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// First devicetree or its source; folder, dump or source of ACPI tables; `-` is standard
    /// input.
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,
    /// Second devicetree or its source; folder, dump or source of ACPI tables.
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,
    #[command(flatten)]
    pub(crate) include: IncludeArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LiveArgs {
    /// Read the files of Linux below this folder, for example from a copy of `/proc` and `/sys`.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Explain, stage by stage, why a PCI function's interrupts do not arrive, and how to fix it.
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) explain: Option<String>,
    /// Name the functions of which no interrupt arrives within this time, each with the reason.
    #[arg(long, value_name = "SECONDS", conflicts_with = "explain")]
    pub(crate) watch: Option<u32>,
    /// Print a block for a bug report, with the explanation of each fault.
    #[arg(long, conflicts_with_all = ["explain", "watch", "json"])]
    pub(crate) paste: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
