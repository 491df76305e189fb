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
use doorbell_facts::LinuxFact;

use crate::controller::Controller;

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
}

impl Sent {
    pub(crate) fn read(log: &Path) -> Result<Self> {
        let text = fs::read_to_string(log);
        Ok(Self::parse(&text.with_context(|| format!("cannot read {}", log.display()))?))
    }

    fn parse(log: &str) -> Self {
        let mut sent = Self::default();
        let mut seen = 0;
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
    pub(crate) fn parse(text: &str) -> Option<Self> {
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
    pub(crate) fn has_messages(&self) -> bool {
        self.name.starts_with("MSI ") || ["-MSI", "-pMSI"].iter().any(|it| self.name.contains(it))
    }

    /// Returns `true` if the interrupt is an SPI that a device asserts.
    fn is_wired(&self) -> bool {
        self.name.contains(" Level ") && !self.is_of("arch_timer")
    }

    pub(crate) fn sum(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The guest's report about its traffic.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
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

/// Known data about a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) controller: Controller,
    pub(crate) cpus: usize,
    /// Minimum number of reads of all CPUs together.
    pub(crate) reads: u64,
    /// Number of reads whose interrupts Linux discarded when it released the disk's vectors.
    pub(crate) discarded: u64,
    pub(crate) rows: &'a [Row],
    /// `true` if the devices assert INTx, because Linux does not use MSIs.
    pub(crate) has_lines: bool,
    /// Messages that the guest itself sent, by interrupt.
    pub(crate) own: &'a BTreeMap<String, u64>,
    /// Number of interrupts of the controller's kind (LPIs or SPIs; SPIs for INTx) that the guest
    /// took, according to the hypervisor. `None` without a hypervisor.
    pub(crate) taken: Option<u64>,
}

impl Traffic {
    /// Processes a fact that the guest reports.
    pub(crate) fn fact(&mut self, fact: &LinuxFact) {
        match *fact {
            LinuxFact::Reads { requested, completed } => self.reads = Some((requested, completed)),
            LinuxFact::Pings { sent, answered } => self.pings = Some((sent, answered)),
            LinuxFact::Affinities { moved } => self.moved = moved,
            LinuxFact::Hotplugs { turns } => self.turns = turns,
            LinuxFact::Replaces { resent } => self.early_own += resent,
            LinuxFact::Resent { interrupt } => self.count_own(interrupt, 1),
            LinuxFact::Retriggered { interrupt, taken } => {
                self.retriggered = Some(taken);
                self.count_own(interrupt, taken);
            }
            _ => {}
        }
    }

    fn count_own(&mut self, interrupt: u32, times: u64) {
        *self.own.entry(interrupt.to_string()).or_default() += times;
    }

    /// Returns the messages that the guest itself sent, by interrupt.
    pub(crate) fn own(&self) -> &BTreeMap<String, u64> {
        &self.own
    }

    /// Returns a summary of the traffic.
    pub(crate) fn summary(&self) -> String {
        let ((_, reads), (pings, _)) =
            (self.reads.unwrap_or_default(), self.pings.unwrap_or_default());
        let own = self.own.values().sum::<u64>() + self.early_own;
        format!(
            "{reads} reads, {pings} pings, {} affinities, {} turns, {own} own messages",
            self.moved, self.turns
        )
    }

    /// Checks that no MSI was lost, that each counted interrupt has a corresponding MSI, and that
    /// vectors moved and CPUs went offline during the load.
    pub(crate) fn judge(&self, known: &Known<'_>, sent: &Sent) -> Result<()> {
        let (reads, completed) = self.reads.context("the guest did not report its reads")?;
        ensure!(reads >= known.reads, "{reads} reads, not {}", known.reads);
        ensure!(completed == reads + OWN_READS, "{reads} reads, but {completed} were completed");
        let (pings, answers) = self.pings.context("the guest did not report its pings")?;
        ensure!(pings > 0 && pings == answers, "{pings} pings, {answers} answers");
        if known.has_lines {
            known.judge_lines(sent)?;
        } else {
            known.judge_disk(sent, completed)?;
            known.judge_network(sent)?;
        }
        known.judge_taken(sent, self.early_own)?;
        self.judge_disturbances(known)
    }

    fn judge_disturbances(&self, known: &Known<'_>) -> Result<()> {
        let input = known.row(if known.has_lines { "virtio0" } else { "virtio0-input.0" })?;
        let vectors = known.rows.iter().filter(|row| row.name.contains(" virtio0")).count() + 1;
        let fewest = (vectors * known.cpus) as u64;
        ensure!(self.moved >= fewest, "{} affinities moved, not {fewest}", self.moved);
        let reached = input.counts.iter().filter(|count| **count > 0).count();
        ensure!(
            known.cpus == 1 || reached > 1,
            "all interrupts arrived at one CPU: {:?}",
            input.counts
        );
        ensure!(self.turns == TURNS, "CPUs went offline {} times", self.turns);
        if known.controller.is_direct() {
            let times = self.retriggered.context("the guest retriggered no interrupt")?;
            ensure!(times == 1, "a retriggered interrupt was taken {times} times");
        }
        Ok(())
    }
}

impl Known<'_> {
    fn row(&self, driver: &str) -> Result<&Row> {
        let row = self.rows.iter().find(|row| row.is_of(driver));
        let row = row.with_context(|| format!("no interrupt of {driver}"))?;
        if self.has_lines {
            ensure!(row.is_wired(), "{driver}: {}", row.name);
            return Ok(row);
        }
        let all = [Controller::Its, Controller::DirectLpi].map(Controller::chip);
        let mut others = all.into_iter().filter(|chip| *chip != self.controller.chip()).flatten();
        let is_of = |chip| row.name.starts_with(chip);
        let is_right = self.controller.chip().is_none_or(is_of) && !others.any(is_of);
        ensure!(row.has_messages() && is_right, "{driver}: {}", row.name);
        Ok(row)
    }

    /// Returns the number of interrupts that devices' messages signaled.
    fn signaled(&self, row: &Row) -> Result<u64> {
        let own = self.own.get(&row.label).copied().unwrap_or_default();
        let signaled = row.sum().checked_sub(own);
        signaled.with_context(|| format!("{}: {own} own messages of {}", row.name, row.sum()))
    }

    /// Checks the disk's interrupts. Each vCPU has its own vector and at most one outstanding read.
    /// The number of interrupts of commands to the controller is exact unless MSIs coalesced. Linux
    /// chooses the vCPU of a vector (since 7.2, vector 1 need not be the first vCPU's).
    fn judge_disk(&self, sent: &Sent, completed: u64) -> Result<()> {
        let commands = self.signaled(self.row("nvme0q0")?)?;
        let messages = |vector| sent.disk.get(&vector).copied().unwrap_or_default();
        let taken = sent.admin_seen..=messages(0);
        ensure!(taken.contains(&commands), "{commands} interrupts of {} commands", messages(0));
        let (mut reads, mut owners) = (0, BTreeSet::new());
        for vector in 1..=self.cpus {
            let row = self.row(&format!("nvme0q{vector}"))?;
            let (taken, sent) = (self.signaled(row)?, messages(vector));
            ensure!(taken == sent, "{taken} interrupts of {sent} messages of vector {vector}");
            let most = (0..).zip(&row.counts).max_by_key(|(_, count)| **count);
            let (owner, own) = most.map_or((0, 0), |(cpu, count)| (cpu, *count));
            let fewest = self.reads / self.cpus as u64;
            ensure!(own >= fewest, "vector {vector}: its own CPU has {own} interrupts");
            ensure!(owners.insert(owner), "vector {vector}: CPU {owner} also owns another vector");
            reads += taken;
        }
        ensure!(reads + self.discarded == completed, "{reads} interrupts of {completed} reads");
        Ok(())
    }

    /// Checks the interrupts of both lines. Since there is one CPU, the disk executes one command
    /// at a time after its driver's initialization, so each read has its own interrupt. The network
    /// card's causes may coalesce.
    fn judge_lines(&self, sent: &Sent) -> Result<()> {
        let (disk, network) = (self.row("nvme0q1")?.sum(), self.row("virtio0")?.sum());
        let disks = sent.completions_seen.max(self.reads)..=sent.asserted;
        ensure!(disks.contains(&disk), "{disk} interrupts of the disk, not {disks:?}");
        let networks = 1..=sent.network.values().sum();
        ensure!(networks.contains(&network), "{network} interrupts of the network: {networks:?}");
        Ok(())
    }

    /// Checks the network's interrupts. The driver requests a queue's next MSI when it has emptied
    /// the queue, so a lost MSI stops the traffic, and pings are not answered. Two MSIs may
    /// nevertheless coalesce into one interrupt. On the transmit queue, the driver requests an MSI
    /// whenever it sends a packet. On the receive queue, two MSIs coalesce if the interrupt was
    /// moved to another CPU and is pending there while the polling CPU empties the queue and
    /// requests the next MSI.
    fn judge_network(&self, sent: &Sent) -> Result<()> {
        let mut queues = sent.network.values().copied();
        let mut queue = || queues.next().unwrap_or_default();
        let (receives, sends) = (queue(), queue());
        let input = self.signaled(self.row("virtio0-input.0")?)?;
        let output = self.signaled(self.row("virtio0-output.0")?)?;
        let fewest = if self.cpus == 1 { receives.max(1) } else { 1 };
        let inputs = fewest..=receives;
        ensure!(inputs.contains(&input), "{input} interrupts of {receives} messages");
        ensure!((1..=sends).contains(&output), "{output} interrupts of {sends} sent packets");
        Ok(())
    }

    /// Checks that the hypervisor's count equals the guest's count plus the interrupts from the
    /// time before the driver set up its vectors, whose number is exact unless MSIs coalesced, and
    /// those of messages that a replaced kernel itself sent. The count of SPIs also includes the
    /// UART's interrupts.
    fn judge_taken(&self, sent: &Sent, early_own: u64) -> Result<()> {
        let Some(taken) = self.taken else { return Ok(()) };
        let has_wired = self.has_lines || !self.controller.has_lpis();
        let counts = |row: &&Row| row.has_messages() || has_wired && row.is_wired();
        let counted = self.rows.iter().filter(counts).map(Row::sum).sum::<u64>() + early_own;
        let most = counted + sent.early;
        let fewest = counted + sent.early_seen.min(sent.early);
        ensure!(
            (fewest..=most).contains(&taken),
            "the guest took {taken} interrupts but counted {fewest} to {most}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
pci_nvme_irq_msix raising MSI-X IRQ vector 0
pci_nvme_mmio_doorbell_cq cqid 0 new_head 1
pci_nvme_create_cq create completion queue, addr=0x6b660000, cqid=1, vector=1, qsize=1023
pci_nvme_irq_msix raising MSI-X IRQ vector 0
virtio_notify vdev 0x5587c440f7f0 vq 0x5587c441c048
virtio_notify vdev 0x5587c440f7f0 vq 0x5587c441bfb0
pci_nvme_mmio_doorbell_cq cqid 0 new_head 2
pci_nvme_irq_msix raising MSI-X IRQ vector 1
pci_nvme_irq_msix raising MSI-X IRQ vector 2
pci_nvme_irq_msix raising MSI-X IRQ vector 2
virtio_notify vdev 0x5587c440f7f0 vq 0x5587c441bfb0
virtio_notify vdev 0x5587c440f7f0 vq 0x5587c441c048
";
    const ROWS: &str = "\
 13:          1          0     GICv3  33 Level     uart-pl011
 15:          1          1   ITS-MSI 32769 Edge      virtio0-input.0
 16:          0          1   ITS-MSI 32770 Edge      virtio0-output.0
 17:          1          0   ITS-MSI 16384 Edge      nvme0q0
 18:          1          0   ITS-MSI 16385 Edge      nvme0q1
 19:          0          2   ITS-MSI 16386 Edge      nvme0q2
";
    const SAID: [LinuxFact; 4] = [
        LinuxFact::Reads { requested: 2, completed: 3 },
        LinuxFact::Pings { sent: 10, answered: 10 },
        LinuxFact::Affinities { moved: 6 },
        LinuxFact::Hotplugs { turns: 2 },
    ];
    const TAKEN: u64 = 8;

    fn judged(controller: Controller, change: impl Fn(&str) -> String, taken: u64) -> Result<()> {
        judged_of(&SAID, controller, change, taken)
    }

    fn judged_of(
        said: &[LinuxFact],
        controller: Controller,
        change: impl Fn(&str) -> String,
        taken: u64,
    ) -> Result<()> {
        let rows: Vec<_> = change(ROWS).lines().filter_map(Row::parse).collect();
        let mut traffic = Traffic::default();
        for fact in said {
            traffic.fact(fact);
        }
        let own = traffic.own();
        let known = Known {
            controller,
            cpus: 2,
            reads: 2,
            discarded: 0,
            rows: &rows,
            has_lines: rows.iter().any(|row| row.is_of("nvme0q1") && row.is_wired()),
            own,
            taken: Some(taken),
        };
        traffic.judge(&known, &Sent::parse(&change(LOG)))
    }

    #[test]
    fn messages_are_counted_by_vector_and_queue() {
        let expected = Sent {
            early: 1,
            early_seen: 1,
            admin_seen: 1,
            disk: [(0, 1), (1, 1), (2, 2)].into(),
            network: [(0x5587_c441_bfb0, 2), (0x5587_c441_c048, 2)].into(),
            ..Sent::default()
        };
        assert_eq!(Sent::parse(LOG), expected);
    }

    #[test]
    fn only_messages_after_the_last_suspend_are_counted_by_vector() {
        let once = Sent::parse(LOG);
        let twice = Sent::parse(&[LOG, LOG].concat());
        assert_eq!((twice.early, twice.early_seen, &twice.disk), (6, 3, &once.disk));
    }

    #[test]
    fn early_messages_may_coalesce_unless_the_driver_saw_each() {
        const MESSAGE: &str = "pci_nvme_irq_msix raising MSI-X IRQ vector 0\n";
        const SEEN: &str = "pci_nvme_mmio_doorbell_cq cqid 0 new_head 2\n";
        let judged = |early: &str, taken| {
            let log = |text: &str| text.replacen(MESSAGE, &[MESSAGE, early].concat(), 1);
            judged(Controller::Its, log, taken)
        };
        let both = [SEEN, MESSAGE].concat();
        judged(MESSAGE, TAKEN).unwrap();
        judged(MESSAGE, TAKEN + 1).unwrap();
        judged(&both, TAKEN + 1).unwrap();
        for (early, taken) in [(MESSAGE, TAKEN - 1), (MESSAGE, TAKEN + 2), (&both, TAKEN)] {
            assert!(judged(early, taken).is_err(), "{taken} passes");
        }
    }

    #[test]
    fn messages_of_commands_may_coalesce_unless_the_driver_saw_each() {
        const SEEN: &str = "pci_nvme_mmio_doorbell_cq cqid 0 new_head 2\n";
        const MESSAGE: &str = "pci_nvme_irq_msix raising MSI-X IRQ vector 0\n";
        let judged = |more: &str| {
            let log = |text: &str| text.replacen(SEEN, &[SEEN, more].concat(), 1);
            judged(Controller::Its, log, TAKEN)
        };
        judged(MESSAGE).unwrap();
        assert!(judged(&[MESSAGE, SEEN].concat()).is_err());
    }

    #[test]
    fn equal_counts_pass_on_each_controller() {
        judged(Controller::Its, ToOwned::to_owned, TAKEN).unwrap();
        let mbi = |text: &str| text.replace("ITS-MSI", "MSI");
        judged(Controller::Mbi, mbi, TAKEN + 1).unwrap();
        let newer = |text: &str| text.replace("ITS-MSI", "MBI-PCI-MSIX-0000:00:02.0");
        judged(Controller::Mbi, newer, TAKEN + 1).unwrap();
    }

    #[test]
    fn lines_have_an_interrupt_for_each_completion_and_none_without_a_cause() {
        let judged = |disk: u64, network: u64, taken| {
            let change = |text: &str| {
                if text == LOG {
                    let asserted = text.replace("pci_nvme_irq_msix", "pci_nvme_irq_pin");
                    return asserted + &"pci_nvme_mmio_doorbell_cq cqid 1 new_head 1\n".repeat(3);
                }
                format!(
                    " 13: 1 0 GICv3 33 Level uart-pl011\n 18: {disk} 0 GICv3 36 Level nvme0q0, \
                     nvme0q1\n 17: {network} 2 GICv3 37 Level virtio0\n"
                )
            };
            judged_of(&SAID, Controller::Its, change, taken)
        };
        judged(3, 1, 7).and(judged(5, 2, 10)).unwrap();
        for (disk, network, taken) in [(2, 1, 6), (6, 1, 10), (3, 3, 9), (3, 1, 6), (3, 1, 8)] {
            assert!(judged(disk, network, taken).is_err(), "{disk}, {network}, {taken} pass");
        }
    }

    #[test]
    fn messages_of_the_guest_itself_are_not_the_devices() {
        let judged = |own: &[LinuxFact], taken| {
            let rows = |text: &str| {
                let retriggered = text.replace(" 17:          1", " 17:          2");
                retriggered.replace("15:          1", "15:          2").replace("ITS", "DLPI")
            };
            judged_of(&[&SAID, own].concat(), Controller::DirectLpi, rows, taken)
        };
        let retriggered = |taken| LinuxFact::Retriggered { interrupt: 17, taken };
        let resent = LinuxFact::Resent { interrupt: 15 };
        judged(&[retriggered(1), resent.clone()], TAKEN + 2).unwrap();
        for (own, error) in [
            (vec![resent.clone()], "2 interrupts of 1 commands"),
            (vec![retriggered(1)], "3 interrupts of 2 messages"),
            (vec![retriggered(0), resent], "2 interrupts of 1 commands"),
        ] {
            let judged = judged(&own, TAKEN + 2).unwrap_err().to_string();
            assert!(judged.contains(error), "{judged}");
        }
        let none = judged_of(&SAID, Controller::DirectLpi, |it| it.replace("ITS", "DLPI"), TAKEN);
        assert!(none.is_err_and(|error| error.to_string().contains("retriggered no interrupt")));
    }

    #[test]
    fn messages_of_a_replaced_kernel_are_counted_exactly() {
        let replaces = LinuxFact::Replaces { resent: 7 };
        let judged =
            |said: &[LinuxFact], taken| judged_of(said, Controller::Its, ToOwned::to_owned, taken);
        let said = [&SAID[..], &[replaces]].concat();
        judged(&said, TAKEN + 7).unwrap();
        for (said, taken) in [(&said[..], TAKEN + 6), (&said, TAKEN + 8), (&SAID, TAKEN + 7)] {
            assert!(judged(said, taken).is_err(), "{taken} passes");
        }
    }

    #[test]
    fn vectors_may_belong_to_any_cpus() {
        let swapped = |text: &str| {
            let first =
                text.replace("1          0   ITS-MSI 16385", "0          1   ITS-MSI 16385");
            first.replace("0          2   ITS-MSI 16386", "2          0   ITS-MSI 16386")
        };
        assert_ne!(swapped(ROWS), ROWS);
        judged(Controller::Its, swapped, TAKEN).unwrap();
    }

    #[test]
    fn other_counts_fail() {
        for (from, to) in [
            ("          1          1   ITS", "          2          0   ITS"),
            ("          1          1   ITS", "          2          1   ITS"),
            ("          0          1   ITS", "          2          1   ITS"),
            ("          0          1   ITS", "          0          0   ITS"),
            ("          0          2   ITS", "          0          1   ITS"),
            ("          0          2   ITS", "          2          0   ITS"),
            ("ITS-MSI 16385", "MSI 16385"),
            ("nvme0q2", "nvme0q3"),
            ("vector 2\nvirtio", "vector 1\nvirtio"),
            ("vector 0\nvirtio", "vector 5\nvirtio"),
        ] {
            assert!(
                [LOG, ROWS].iter().any(|text| text.contains(from)),
                "neither text contains {from}"
            );
            let changed = |text: &str| text.replacen(from, to, 1);
            assert!(judged(Controller::Its, changed, TAKEN).is_err(), "`{to}` passes");
        }
        for (index, fact) in [
            (0, LinuxFact::Reads { requested: 1, completed: 2 }),
            (0, LinuxFact::Reads { requested: 2, completed: 4 }),
            (1, LinuxFact::Pings { sent: 10, answered: 9 }),
            (2, LinuxFact::Affinities { moved: 5 }),
            (3, LinuxFact::Hotplugs { turns: 1 }),
        ] {
            let mut said = SAID;
            said[index] = fact;
            let judged = judged_of(&said, Controller::Its, ToOwned::to_owned, TAKEN);
            assert!(judged.is_err(), "{:?} passes", said[index]);
        }
        assert!(judged(Controller::Its, ToOwned::to_owned, TAKEN - 1).is_err());
        assert!(judged(Controller::Mbi, ToOwned::to_owned, TAKEN).is_err());
    }
}
