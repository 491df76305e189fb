//! `doorbell snapshot inspect`: prints a summary of a state that fits on a screen.

use super::cli::SnapshotInspectArgs;
use super::file;
use super::machine::{Machine, Origin, target};
use crate::exit::Outcome;
use crate::print::{self, Output};
use crate::table::Table;
use crate::wording::counted;
use anyhow::Result;
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser, Waker};
use gic_arch::gits::{self, Baser, Cbaser, Creadr, Cwriter};
use serde::Serialize;
use std::io::{self, Write};
use vgic::saved_state::{CpuState, InterruptState, ItsState, Property, PropertyName};

/// Maximum number of vCPUs in the text output.
const SHOWN: usize = 24;

/// Prints a snapshot.
pub(super) fn inspect(args: &SnapshotInspectArgs) -> Result<Outcome> {
    let summary = Summary::of(&file::read(&args.file)?);
    print::object(args.output.json, &summary, |out| summary.print(out))?;
    Ok(Outcome::Good)
}

/// Summary of a snapshot.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    source: String,
    /// `vgic` or `kvm`.
    format: &'static str,
    gicd_ctlr: u32,
    gicd_iidr: u32,
    /// Properties of the machine that no register shows; empty if unknown.
    shape: Vec<Property>,
    spis: Counts,
    pub(super) cpus: Vec<CpuRow>,
    pub(super) its: Vec<ItsRow>,
    /// Number of parts that a restore would refuse or lose. `doorbell snapshot lint` lists them.
    problems: usize,
}

/// Numbers of interrupts that are enabled, pending and active.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Counts {
    pub(super) enabled: usize,
    pub(super) pending: usize,
    pub(super) active: usize,
}

/// A vCPU.
#[derive(Debug, Serialize)]
pub(super) struct CpuRow {
    pub(super) vcpu: usize,
    affinity: String,
    /// `true` if the vCPU is powered off; `null` if unknown.
    stopped: Option<bool>,
    asleep: bool,
    pub(super) private: Counts,
    pub(super) lpis_enabled: bool,
    pub(super) lpis_pending: usize,
    /// Address of the LPI configuration table.
    configuration: u64,
    id_bits: u8,
    /// Address of the LPI pending table.
    pending_table: u64,
    priority_mask: u8,
    groups: [bool; 2],
}

/// An ITS.
#[derive(Debug, Serialize)]
pub(super) struct ItsRow {
    base: u64,
    enabled: bool,
    /// Address of the command queue; `null` if `GITS_CBASER` is not valid.
    queue: Option<u64>,
    creadr: u32,
    cwriter: u32,
    stalled: bool,
    /// Addresses of the device table and the collection table; `null` if `GITS_BASER<n>` is not
    /// valid.
    tables: [Option<u64>; 2],
    pub(super) devices: usize,
    pub(super) events: usize,
    pub(super) events_pending: usize,
    pub(super) collections: usize,
}

impl Summary {
    pub(super) fn of(machine: &Machine) -> Self {
        let distributor = &machine.state.distributor;
        let cpus = machine.cpus();
        Self {
            source: machine.name.clone(),
            format: match machine.origin {
                Origin::Model => "vgic",
                Origin::Kvm => "kvm",
            },
            gicd_ctlr: distributor.ctlr,
            gicd_iidr: distributor.iidr,
            shape: machine.shape.clone(),
            spis: Counts::of(&distributor.interrupts),
            cpus: cpus.into_iter().map(|cpu| CpuRow::of(machine, cpu)).collect(),
            its: machine.state.its.iter().map(ItsRow::of).collect(),
            problems: machine.problems.len(),
        }
    }

    fn print(&self, out: &mut Output) -> io::Result<()> {
        let Self { source, format, gicd_ctlr, gicd_iidr, spis, .. } = self;
        writeln!(out, "{source}: {format}, GICD_CTLR {gicd_ctlr:#x}, GICD_IIDR {gicd_iidr:#x}")?;
        writeln!(out, "SPIs: {spis}")?;
        // The regions contain the redistributors, of which there may be hundreds.
        let shape = self.shape.iter().filter(|it| it.name != PropertyName::Redistributor);
        let shape = shape.map(|it| format!("{:?} of {:#x} {:#x}", it.name, it.of, it.value));
        writeln!(out, "shape: {}\n", shape.collect::<Vec<_>>().join(", "))?;
        writeln!(out, "{}", self.cpu_table())?;
        if let Some(more) = self.cpus.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            writeln!(out, " and {more} more vCPUs, which --json lists")?;
        }
        writeln!(out, "wired: enabled/pending/active SGIs and PPIs\n")?;
        writeln!(out, "{}", self.its_table())?;
        match self.problems {
            0 => Ok(()),
            count => {
                let parts = counted(count, "part");
                writeln!(out, "\n{parts} cannot be restored: see `doorbell snapshot lint`")
            }
        }
    }

    fn cpu_table(&self) -> Table {
        let mut table = Table::new([
            "vCPU",
            "affinity",
            "power",
            "wired",
            "LPIs",
            "pending",
            "configuration",
            "pending table",
            "PMR",
            "groups",
        ]);
        for cpu in self.cpus.iter().take(SHOWN) {
            let groups = ["0", "1"].into_iter().zip(cpu.groups);
            let groups: Vec<_> = groups.filter(|(_, on)| *on).map(|(name, _)| name).collect();
            let Counts { enabled, pending, active } = cpu.private;
            table.row([
                cpu.vcpu.to_string(),
                cpu.affinity.clone(),
                power(cpu.stopped, cpu.asleep).to_owned(),
                format!("{enabled}/{pending}/{active}"),
                if cpu.lpis_enabled { "on" } else { "off" }.to_owned(),
                cpu.lpis_pending.to_string(),
                format!("{:#x}/{}", cpu.configuration, cpu.id_bits),
                format!("{:#x}", cpu.pending_table),
                format!("{:#x}", cpu.priority_mask),
                if groups.is_empty() { "none".to_owned() } else { groups.join(",") },
            ]);
        }
        table
    }

    fn its_table(&self) -> Table {
        let mut table = Table::new([
            "ITS",
            "on",
            "queue",
            "read",
            "write",
            "devices",
            "events",
            "pending",
            "collections",
        ]);
        let address = |value: Option<u64>| value.map_or("none".to_owned(), |at| format!("{at:#x}"));
        let placed = |count: usize, table: Option<u64>| match table {
            Some(table) => format!("{count} at {table:#x}"),
            None => format!("{count}, no table"),
        };
        for its in &self.its {
            let stalled = if its.stalled { " stalled" } else { "" };
            table.row([
                format!("{:#x}", its.base),
                if its.enabled { "yes" } else { "no" }.to_owned(),
                address(its.queue),
                format!("{:#x}{stalled}", its.creadr),
                format!("{:#x}", its.cwriter),
                placed(its.devices, its.tables[0]),
                its.events.to_string(),
                its.events_pending.to_string(),
                placed(its.collections, its.tables[1]),
            ]);
        }
        table
    }
}

const fn power(stopped: Option<bool>, asleep: bool) -> &'static str {
    match (stopped, asleep) {
        (Some(true), _) => "off",
        (_, true) => "asleep",
        (Some(false), _) => "on",
        (None, _) => "?",
    }
}

impl Counts {
    fn of(interrupts: &[InterruptState]) -> Self {
        let count = |of: fn(&InterruptState) -> bool| {
            interrupts.iter().filter(|interrupt| of(interrupt)).count()
        };
        Self {
            enabled: count(|interrupt| interrupt.enabled),
            pending: count(|interrupt| {
                interrupt.latch || (!interrupt.edge && (interrupt.line || interrupt.message))
            }),
            active: count(|interrupt| interrupt.active),
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { enabled, pending, active } = self;
        write!(f, "{enabled} enabled, {pending} pending, {active} active")
    }
}

impl CpuRow {
    fn of(machine: &Machine, cpu: &CpuState) -> Self {
        let (redistributor, interface) = (&cpu.redistributor, &cpu.interface);
        let configuration = Propbaser::from(redistributor.propbaser);
        let events = machine
            .events()
            .filter(|(its, _, event)| event.pending && target(its, event) == Some(cpu.affinity));
        Self {
            vcpu: machine.number(cpu.affinity),
            affinity: cpu.affinity.to_string(),
            stopped: machine.stopped.get(&cpu.affinity).copied(),
            asleep: Waker::from(redistributor.waker).processor_sleep(),
            private: Counts::of(&redistributor.interrupts),
            lpis_enabled: Ctlr::from(redistributor.ctlr).enable_lpis(),
            lpis_pending: events.count() + redistributor.lpis.len(),
            configuration: configuration.address(),
            id_bits: configuration.id_bits(),
            pending_table: Pendbaser::from(redistributor.pendbaser).address(),
            priority_mask: interface.pmr,
            groups: [interface.igrpen0, interface.igrpen1],
        }
    }
}

impl ItsRow {
    fn of(its: &ItsState) -> Self {
        let [devices, collections, ..] = its.baser.map(Baser::from_bits);
        let (queue, read) = (Cbaser::from_bits(its.cbaser), Creadr::from_bits(its.creadr));
        let events = || its.devices.iter().flat_map(|device| &device.events);
        let valid = |table: Baser| table.valid().then(|| table.address());
        Self {
            base: its.base,
            enabled: gits::Ctlr::from(its.ctlr).enabled(),
            queue: queue.valid().then(|| queue.address()),
            creadr: read.offset(),
            cwriter: Cwriter::from_bits(its.cwriter).offset(),
            stalled: read.stalled(),
            tables: [valid(devices), valid(collections)],
            devices: its.devices.len(),
            events: events().count(),
            events_pending: events().filter(|event| event.pending).count(),
            collections: its.collections.len(),
        }
    }
}
