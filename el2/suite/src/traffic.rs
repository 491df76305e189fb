//! Generates traffic in a guest: disk reads and pings. The test compares the MSIs that QEMU's
//! devices sent with the interrupts that the guest counted.
//!
//! QEMU logs each MSI. If a device sends a vector's next MSI only after the guest has acknowledged
//! the previous one, the counts must be equal. For other vectors, two MSIs may coalesce into one
//! interrupt.
//!
//! Without MSIs, the devices assert INTx. QEMU also logs each time that the disk asserts its line,
//! and the driver acknowledges completions at most once per interrupt and queue, so both numbers
//! limit that of the interrupts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::{fs, mem};

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Ending, LinuxFact};

use crate::board::Controller;

/// A disk with MSI-X, and a network that answers pings.
pub(crate) const DEVICES: [&str; 2] =
    ["nvme,serial=1,drive=disk", "virtio-net-pci,netdev=net,romfile="];
/// The same, with DMA that passes through an SMMU.
pub(crate) const TRANSLATED_DEVICES: [&str; 2] =
    [DEVICES[0], "virtio-net-pci,netdev=net,romfile=,iommu_platform=on,disable-legacy=on"];
/// Devices with a PCI MSI: one message, and up to 16.
pub(crate) const MSI_DEVICES: [&str; 2] = ["edu", "nec-usb-xhci,msi=on,msix=off"];
const BACKENDS: [&str; 4] = [
    "-blockdev",
    "driver=null-co,node-name=disk,size=1073741824,read-zeroes=on",
    "-netdev",
    "user,id=net,restrict=on",
];
/// Events in QEMU's log: MSIs of the two devices, the command after which Linux does not change its
/// disk's vectors again until it suspends, and the register that tells the disk which completions
/// the driver has seen. The handler of an interrupt writes this register at most once.
const NVME_MESSAGE: &str = "pci_nvme_irq_msix";
const NVME_LINE: &str = "pci_nvme_irq_pin";
const VIRTIO_MESSAGE: &str = "virtio_notify";
const VECTORS_STAY: &str = "pci_nvme_create_cq";
const NVME_SEEN: &str = "pci_nvme_mmio_doorbell_cq";
/// The ITS's commands: an event that was direct is discarded before a VSYNC, another before a SYNC.
const DISCARD: &str = "gicv3_its_cmd_discard";
const SYNC: &str = "gicv3_its_cmd_sync";
const VSYNC: &str = "gicv3_its_cmd_vsync";

/// Linux reads the first page to find a partition table.
pub(crate) const OWN_READS: u64 = 1;
/// Number of times that the guest's program takes all CPUs but the first offline and back online.
const TURNS: u64 = 2;

/// Adds the devices' backends to the command, and makes QEMU log the devices' MSIs.
pub(crate) fn logged(qemu: &mut Command, log: &Path) {
    qemu.args(BACKENDS);
    for event in [NVME_MESSAGE, NVME_LINE, VIRTIO_MESSAGE, VECTORS_STAY, NVME_SEEN] {
        qemu.args(["-trace", event]);
    }
    qemu.arg("-D").arg(log);
}

/// The MSIs that the devices sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// MSIs that the disk sent before the driver last set up its vectors. The driver then releases
    /// the vectors, so Linux discards their counts.
    early: u64,
    /// Number of the driver's writes to completion queue doorbells in the same time. Before a
    /// suspend, the driver deletes several queues at once, and the MSIs of two of these commands
    /// coalesce if the second is sent before the first is acknowledged. So the number of interrupts
    /// is between this number and that of the MSIs.
    early_seen: u64,
    /// Later writes to the doorbell of the admin completion queue. While all CPUs are online, the
    /// driver's initialization and its scan for disks issue commands at the same time, whose MSIs
    /// may coalesce.
    admin_seen: u64,
    /// Later MSIs of the disk, by vector.
    disk: BTreeMap<usize, u64>,
    /// Number of times that the disk asserted INTx.
    asserted: u64,
    /// Number of the driver's writes to the doorbell of the first I/O completion queue.
    completions_seen: u64,
    /// MSIs of the network card by queue address. The first queue is the receive queue.
    network: BTreeMap<u64, u64>,
    /// Number of times that the hypervisor took a direct event back, which then counts as pending,
    /// by the event.
    taken_back: BTreeMap<String, u64>,
}

impl Sent {
    pub(crate) fn read(log: &Path) -> Result<Self> {
        let text = fs::read_to_string(log);
        Ok(Self::parse(&text.with_context(|| format!("cannot read {}", log.display()))?))
    }

    fn parse(log: &str) -> Self {
        let mut sent = Self::default();
        let (mut seen, mut discarded) = (0, "");
        for line in log.lines() {
            let (event, detail) = line.split_once(' ').unwrap_or((line, ""));
            let last = detail.rsplit(' ').next().unwrap_or_default();
            match event {
                VECTORS_STAY if detail.contains("cqid=1,") => {
                    sent.early += mem::take(&mut sent.disk).values().sum::<u64>();
                    sent.early_seen += mem::take(&mut seen);
                    sent.admin_seen = 0;
                }
                NVME_SEEN => {
                    seen += 1;
                    sent.admin_seen += u64::from(detail.starts_with("cqid 0 "));
                    sent.completions_seen += u64::from(detail.starts_with("cqid 1 "));
                }
                NVME_MESSAGE => {
                    let Ok(vector) = last.parse() else { continue };
                    *sent.disk.entry(vector).or_default() += 1;
                }
                NVME_LINE => sent.asserted += 1,
                DISCARD => discarded = detail,
                SYNC => discarded = "",
                VSYNC if !discarded.is_empty() => {
                    *sent.taken_back.entry(mem::take(&mut discarded).into()).or_default() += 1;
                }
                VIRTIO_MESSAGE => {
                    let address = last.trim_start_matches("0x");
                    let Ok(queue) = u64::from_str_radix(address, 16) else { continue };
                    *sent.network.entry(queue).or_default() += 1;
                }
                _ => {}
            }
        }
        sent
    }

    /// Returns the maximum number of interrupts of a vector that sent this number of MSIs.
    fn most(&self, messages: u64) -> u64 {
        messages + self.taken_back.values().max().unwrap_or(&0)
    }
}

/// A row of the guest's `/proc/interrupts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) label: String,
    /// One count for each CPU.
    pub(crate) counts: Vec<u64>,
    /// The interrupt's controller, number and driver.
    pub(crate) name: String,
}

impl Row {
    fn parse(text: &str) -> Option<Self> {
        let (label, rest) = text.split_once(':')?;
        let words: Vec<_> = rest.split_whitespace().collect();
        let counts: Vec<_> = words.iter().map_while(|word| word.parse().ok()).collect();
        let name = words[counts.len()..].join(" ");
        Some(Self { label: label.trim().into(), counts, name })
    }

    fn is_of(&self, driver: &str) -> bool {
        self.name.rsplit(' ').next() == Some(driver)
    }

    /// Returns `true` if the interrupt is an MSI of a device.
    fn has_messages(&self) -> bool {
        self.name.starts_with("MSI ") || ["-MSI", "-pMSI"].iter().any(|it| self.name.contains(it))
    }

    /// Returns `true` if the interrupt is an SPI that a device asserts.
    fn is_wired(&self) -> bool {
        self.name.contains(" Level ") && !self.is_of("arch_timer")
    }

    fn sum(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The report of a guest.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Numbers of CPUs, and texts that the guest heard: at first, and again.
    pub(crate) cpus: [usize; 2],
    pub(crate) heard: [String; 2],
    pub(crate) absent_device: u32,
    /// Lines about MSI controllers in the kernel's log.
    pub(crate) controllers: Vec<String>,
    /// Lines about PCI's windows and the addresses of devices in the kernel's log.
    pub(crate) pci_memory: Vec<String>,
    /// Descriptions of failures.
    pub(crate) complaints: Vec<String>,
    pub(crate) ending: Option<Ending>,
    pub(crate) rows: Vec<Row>,
    /// Reads requested by the guest's programs, and reads that the disk completed.
    reads: Option<(u64, u64)>,
    /// Pings and answers.
    pings: Option<(u64, u64)>,
    /// Number of vectors that were moved to the requested CPU.
    moved: u64,
    /// Number of times that CPUs went offline and back online.
    turns: u64,
    /// Number of times that the guest's program made an interrupt pending and the interrupt was
    /// then taken.
    retriggered: Option<u64>,
    /// Messages of the guest's kernel itself, by interrupt: it sends a message again if it does not
    /// know whether a CPU that went offline has taken it.
    own: BTreeMap<String, u64>,
    /// Messages of a kernel that another one replaced, likewise. Its rows were not reported.
    early_own: u64,
}

/// Expected report of a guest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expected<'a> {
    pub(crate) cpus: usize,
    /// The guest's MSI controller.
    pub(crate) controller: Controller,
    pub(crate) load: Load<'a>,
    /// `true` if the devices assert INTx, because Linux does not use MSIs.
    pub(crate) has_lines: bool,
    /// Minimum number of moves of the guest from one GIC to another.
    pub(crate) moves: u64,
}

/// The devices of a guest, and the operations on them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Load<'a> {
    /// No load: no MSIs can arrive.
    #[default]
    None,
    /// Each vCPU reads random bytes this number of times.
    Random { reads: u64 },
    /// The vCPUs read a disk, and send pings.
    Traffic(Reads<'a>),
}

/// Reads of a disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reads<'a> {
    /// Minimum number of reads of all CPUs together.
    pub(crate) fewest: u64,
    /// Number of reads whose interrupts Linux discarded when it released the disk's vectors.
    pub(crate) discarded: u64,
    /// File to which QEMU logs MSIs.
    pub(crate) log: &'a Path,
}

/// Known data about a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) report: &'a Report,
    pub(crate) sent: &'a Sent,
    pub(crate) expected: &'a Expected<'a>,
    pub(crate) reads: Reads<'a>,
    /// Number of interrupts of the controller's kind (LPIs or SPIs; SPIs for INTx) that the guest
    /// took, according to the hypervisor. `None` without a hypervisor.
    pub(crate) taken: Option<u64>,
}

impl Report {
    /// Processes a fact that the guest reports.
    pub(crate) fn fact(&mut self, fact: &LinuxFact) {
        match *fact {
            LinuxFact::Cpus { online, again } => self.cpus[usize::from(again)] = online,
            LinuxFact::Heard { ref text, again } => {
                self.heard[usize::from(again)] = text.to_string();
            }
            LinuxFact::AbsentDevice { status } => self.absent_device = status,
            LinuxFact::Controller { ref line } => self.controllers.push(line.to_string()),
            LinuxFact::PciMemory { ref line } => self.pci_memory.push(line.to_string()),
            LinuxFact::Complaint { ref line } => self.complaints.push(line.to_string()),
            LinuxFact::Reads { requested, completed } => self.reads = Some((requested, completed)),
            LinuxFact::Pings { sent, answered } => self.pings = Some((sent, answered)),
            LinuxFact::Affinities { moved } => self.moved = moved,
            LinuxFact::Hotplugs { turns } => self.turns = turns,
            LinuxFact::Row { ref line } => self.rows.extend(Row::parse(line)),
            LinuxFact::Replaces { resent } => self.early_own += resent,
            LinuxFact::Resent { interrupt } => self.count_own(interrupt, 1),
            LinuxFact::Retriggered { interrupt, taken } => {
                self.retriggered = Some(taken);
                self.count_own(interrupt, taken);
            }
            LinuxFact::Listens {} => {}
        }
    }

    fn count_own(&mut self, interrupt: u32, times: u64) {
        *self.own.entry(interrupt.to_string()).or_default() += times;
    }

    pub(crate) fn counts(&self, name: &str) -> &[u64] {
        let row = self.rows.iter().find(|row| row.name.ends_with(name));
        row.map_or(&[], |row| &row.counts)
    }

    /// Returns the number of interrupts of a PL011, or of an i.MX's UART.
    pub(crate) fn of_uart(&self) -> u64 {
        ["uart-pl011", ".serial"].iter().flat_map(|name| self.counts(name)).sum()
    }

    pub(crate) fn ipis(&self) -> u64 {
        let rows = self.rows.iter().filter(|row| row.label.starts_with("IPI"));
        rows.flat_map(|row| &row.counts).sum()
    }
}

impl Known<'_> {
    /// Checks that no MSI was lost, that each counted interrupt has a corresponding MSI, and that
    /// vectors moved and CPUs went offline during the load.
    pub(crate) fn judge(&self) -> Result<()> {
        let (reads, completed) = self.report.reads.context("the guest did not report its reads")?;
        ensure!(reads >= self.reads.fewest, "{reads} reads, not {}", self.reads.fewest);
        ensure!(completed == reads + OWN_READS, "{reads} reads, but {completed} were completed");
        let (pings, answers) = self.report.pings.context("the guest did not report its pings")?;
        ensure!(pings > 0 && pings == answers, "{pings} pings, {answers} answers");
        if self.expected.has_lines {
            self.judge_lines()?;
        } else {
            self.judge_disk(completed)?;
            self.judge_network()?;
        }
        self.judge_taken()?;
        self.judge_disturbances()
    }

    fn judge_disturbances(&self) -> Result<()> {
        let Self { report, expected: Expected { cpus, controller, has_lines, .. }, .. } = self;
        let input = self.row(if *has_lines { "virtio0" } else { "virtio0-input.0" })?;
        let vectors = report.rows.iter().filter(|row| row.name.contains(" virtio0")).count() + 1;
        let fewest = (vectors * cpus) as u64;
        ensure!(report.moved >= fewest, "{} affinities moved, not {fewest}", report.moved);
        let reached = input.counts.iter().filter(|count| **count > 0).count();
        ensure!(*cpus == 1 || reached > 1, "all interrupts arrived at one CPU: {:?}", input.counts);
        ensure!(report.turns == TURNS, "CPUs went offline {} times", report.turns);
        if controller.is_direct() {
            let times = report.retriggered.context("the guest retriggered no interrupt")?;
            ensure!(times == 1, "a retriggered interrupt was taken {times} times");
        }
        Ok(())
    }

    fn row(&self, driver: &str) -> Result<&Row> {
        let row = self.report.rows.iter().find(|row| row.is_of(driver));
        let row = row.with_context(|| format!("no interrupt of {driver}"))?;
        if self.expected.has_lines {
            ensure!(row.is_wired(), "{driver}: {}", row.name);
            return Ok(row);
        }
        let all = [Controller::Its, Controller::DirectLpi].map(Controller::chip);
        let mut others =
            all.into_iter().filter(|chip| *chip != self.expected.controller.chip()).flatten();
        let is_of = |chip| row.name.starts_with(chip);
        let is_right = self.expected.controller.chip().is_none_or(is_of) && !others.any(is_of);
        ensure!(row.has_messages() && is_right, "{driver}: {}", row.name);
        Ok(row)
    }

    /// Returns the number of interrupts that devices' messages signaled.
    fn signaled(&self, row: &Row) -> Result<u64> {
        let own = self.report.own.get(&row.label).copied().unwrap_or_default();
        let signaled = row.sum().checked_sub(own);
        signaled.with_context(|| format!("{}: {own} own messages of {}", row.name, row.sum()))
    }

    /// Checks the disk's interrupts. Each vCPU has its own vector and at most one outstanding read.
    /// The number of interrupts of commands to the controller is exact unless MSIs coalesced. Linux
    /// chooses the vCPU of a vector (since 7.2, vector 1 need not be the first vCPU's).
    fn judge_disk(&self, completed: u64) -> Result<()> {
        let commands = self.signaled(self.row("nvme0q0")?)?;
        let messages = |vector| self.sent.disk.get(&vector).copied().unwrap_or_default();
        let taken = self.sent.admin_seen..=self.sent.most(messages(0));
        ensure!(taken.contains(&commands), "{commands} interrupts of {} commands", messages(0));
        let (mut reads, mut owners) = (0, BTreeSet::new());
        for vector in 1..=self.expected.cpus {
            let row = self.row(&format!("nvme0q{vector}"))?;
            let (taken, messages) = (self.signaled(row)?, messages(vector));
            let is_right = (messages..=self.sent.most(messages)).contains(&taken);
            ensure!(is_right, "{taken} interrupts of {messages} messages of vector {vector}");
            let most = (0..).zip(&row.counts).max_by_key(|(_, count)| **count);
            let (owner, own) = most.map_or((0, 0), |(cpu, count)| (cpu, *count));
            let fewest = self.reads.fewest / self.expected.cpus as u64;
            ensure!(own >= fewest, "vector {vector}: its own CPU has {own} interrupts");
            ensure!(owners.insert(owner), "vector {vector}: CPU {owner} also owns another vector");
            reads += messages;
        }
        ensure!(reads + self.reads.discarded == completed, "{reads} messages of {completed} reads");
        Ok(())
    }

    /// Checks the interrupts of both lines. Since there is one CPU, the disk executes one command
    /// at a time after its driver's initialization, so each read has its own interrupt. The network
    /// card's causes may coalesce.
    fn judge_lines(&self) -> Result<()> {
        let (disk, network) = (self.row("nvme0q1")?.sum(), self.row("virtio0")?.sum());
        let disks = self.sent.completions_seen.max(self.reads.fewest)..=self.sent.asserted;
        ensure!(disks.contains(&disk), "{disk} interrupts of the disk, not {disks:?}");
        let networks = 1..=self.sent.network.values().sum();
        ensure!(networks.contains(&network), "{network} interrupts of the network: {networks:?}");
        Ok(())
    }

    /// Checks the network's interrupts. The driver requests a queue's next MSI when it has emptied
    /// the queue, so a lost MSI stops the traffic, and pings are not answered. Two MSIs may
    /// nevertheless coalesce into one interrupt. On the transmit queue, the driver requests an MSI
    /// whenever it sends a packet. On the receive queue, two MSIs coalesce if the interrupt was
    /// moved to another CPU and is pending there while the polling CPU empties the queue and
    /// requests the next MSI.
    fn judge_network(&self) -> Result<()> {
        let mut queues = self.sent.network.values().copied();
        let mut queue = || queues.next().unwrap_or_default();
        let (receives, sends) = (queue(), queue());
        let input = self.signaled(self.row("virtio0-input.0")?)?;
        let output = self.signaled(self.row("virtio0-output.0")?)?;
        let fewest = if self.expected.cpus == 1 { receives.max(1) } else { 1 };
        let inputs = fewest..=self.sent.most(receives);
        ensure!(inputs.contains(&input), "{input} interrupts of {receives} messages");
        let outputs = 1..=self.sent.most(sends);
        ensure!(outputs.contains(&output), "{output} interrupts of {sends} sent packets");
        Ok(())
    }

    /// Checks that the hypervisor's count equals the guest's count plus the interrupts from the
    /// time before the driver set up its vectors, whose number is exact unless MSIs coalesced, and
    /// those of messages that a replaced kernel itself sent. The count of SPIs also includes the
    /// UART's interrupts.
    fn judge_taken(&self) -> Result<()> {
        let Some(taken) = self.taken else { return Ok(()) };
        let has_wired = self.expected.has_lines || !self.expected.controller.has_lpis();
        let counts = |row: &&Row| row.has_messages() || has_wired && row.is_wired();
        let counted = self.report.rows.iter().filter(counts).map(Row::sum).sum::<u64>()
            + self.report.early_own;
        let most = counted + self.sent.early;
        let fewest = counted + self.sent.early_seen.min(self.sent.early);
        ensure!(
            (fewest..=most).contains(&taken),
            "the guest took {taken} interrupts but counted {fewest} to {most}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests;
