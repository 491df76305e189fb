//! Checks ArceOS's interrupt handling against QEMU's trace of the GIC and the output of the program
//! in `adopters/arceos`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use doorbell_harness::arceos::checksum_line;

/// The events that [`Trace`] counts.
pub(crate) const EVENTS: &[&str] = &[
    "gicv3_its_cmd_mapti",
    "gicv3_its_cmd_movi",
    "gicv3_its_cmd_discard",
    "gicv3_its_cmd_sync",
    "gicv3_its_translation_write",
    "gicv3_its_read",
    "gicv3_its_write",
    "gicv3_icc_iar1_read",
    "gicv3_redist_write",
    "gic_acknowledge_irq",
    "pci_nvme_irq_msix",
    "pci_nvme_irq_pin",
];

/// Offset of `GICR_PENDBASER` (IHI 0069 §12.11).
const PENDBASER: u64 = 0x78;
/// Offset of `GITS_BASER1`, QEMU's collection table (IHI 0069 §12.19).
const BASER1: u64 = 0x108;
/// Bits 51:16 of `GICR_PENDBASER`: the address.
const PENDING_TABLE: u64 = 0x000f_ffff_ffff_0000;
const FIRST_LPI: u64 = 8192;
/// Start of the program's line with the CPUs that took its own messages, one for each CPU.
const TAKEN_BY: &str = "messages to each CPU taken by ";
/// SPIs of the GICv2m frame of QEMU's `virt`.
const FRAME_SPIS: Range<u64> = 80..144;
/// Number of vectors of QEMU's NVMe disk.
const DISK_VECTORS: u64 = 65;
/// Number of times that the program tries to allocate and free a vector.
const ROUNDS: u64 = 10_000;
/// Number of events that ArceOS's own driver reserves for a device, and never reuses.
const STOCK_EVENTS: u64 = 32;

/// QEMU's trace of one boot.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Number of MAPTI, MOVI and DISCARD commands.
    mapped: u64,
    moved: u64,
    discarded: u64,
    /// Lowest number of SYNC commands between a MOVI and the next command of another kind.
    syncs: Option<u64>,
    syncs_after_last_move: Option<u64>,
    /// The INTIDs that events were mapped to.
    lpis: BTreeSet<u64>,
    messages: u64,
    /// Number of the disk's messages, and of its wired interrupts.
    disk_messages: u64,
    disk_wired: u64,
    /// The pending tables of all redistributors.
    pending_tables: Vec<u64>,
    /// `true` if the last access to `GITS_BASER1` is a read.
    baser_is_read_back: bool,
    /// Number of acknowledged LPIs, by CPU.
    lpis_taken: BTreeMap<u64, u64>,
    /// Number of acknowledged SPIs of GICv2m frames, by CPU.
    spis_taken: BTreeMap<u64, u64>,
}

impl Trace {
    /// Parses a trace. Lines of other events are ignored.
    pub(crate) fn read(text: &str) -> Self {
        let mut trace = Self::default();
        for line in text.lines() {
            // Ignore malformed lines.
            let _ = trace.line(line);
        }
        trace.end_move();
        trace
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let (event, rest) = line.split_once(' ')?;
        let field = |name| number_after(rest, name);
        match event {
            "gicv3_its_cmd_sync" => {
                self.syncs_after_last_move = self.syncs_after_last_move.map(|syncs| syncs + 1);
            }
            "gicv3_its_cmd_mapti" => {
                self.end_move();
                self.mapped += 1;
                self.lpis.insert(field("pINTID ")?);
            }
            "gicv3_its_cmd_movi" => {
                self.end_move();
                self.moved += 1;
                self.syncs_after_last_move = Some(0);
            }
            "gicv3_its_cmd_discard" => {
                self.end_move();
                self.discarded += 1;
            }
            "gicv3_its_translation_write" => self.messages += 1,
            "gicv3_its_read" | "gicv3_its_write" if field("offset ")? == BASER1 => {
                self.baser_is_read_back = event == "gicv3_its_read";
            }
            "gicv3_redist_write" if field("offset ")? == PENDBASER => {
                self.pending_tables.push(field("data ")? & PENDING_TABLE);
            }
            "pci_nvme_irq_msix" => self.disk_messages += 1,
            "pci_nvme_irq_pin" => self.disk_wired += 1,
            "gic_acknowledge_irq" => {
                let decimal = |name| rest.split_once(name)?.1.split(' ').next()?.parse().ok();
                self.acknowledge(decimal("cpu ")?, decimal("acknowledged irq ")?);
            }
            "gicv3_icc_iar1_read" => self.acknowledge(field("cpu ")?, field("value ")?),
            _ => {}
        }
        Some(())
    }

    fn end_move(&mut self) {
        if let Some(syncs) = self.syncs_after_last_move.take() {
            self.syncs = Some(self.syncs.map_or(syncs, |least| least.min(syncs)));
        }
    }

    fn acknowledge(&mut self, cpu: u64, intid: u64) {
        if intid >= FIRST_LPI {
            *self.lpis_taken.entry(cpu).or_default() += 1;
        } else if FRAME_SPIS.contains(&intid) {
            *self.spis_taken.entry(cpu).or_default() += 1;
        }
    }
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(name)?;
    u64::from_str_radix(rest.split(' ').next()?.strip_prefix("0x")?, 16).ok()
}

/// The program's output.
#[derive(Debug, Default)]
pub(crate) struct Output {
    lines: Vec<String>,
}

impl Output {
    /// Processes a line of the console.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some((_, said)) = line.trim_end().split_once("adopter: ") {
            self.lines.push(said.into());
        }
    }

    pub(super) fn word_after(&self, name: &str) -> Result<&str> {
        let word = self.lines.iter().find_map(|line| line.strip_prefix(name));
        word.with_context(|| format!("the program did not print `{name}`: {:?}", self.lines))
    }
}

/// One boot of ArceOS.
#[derive(Debug)]
pub(crate) struct Boot {
    /// Number of CPUs.
    pub(crate) cpus: u64,
    /// The file that the program read.
    pub(crate) input: Vec<u8>,
    /// The disk after the boot.
    pub(crate) disk: Vec<u8>,
    /// The program's output.
    pub(crate) output: Output,
    /// QEMU's trace.
    pub(crate) trace: Trace,
}

impl Boot {
    /// Checks a boot with ArceOS's own driver, which must still have its known faults.
    ///
    /// # Errors
    /// Fails if the disk was not usable, or if one of the faults is absent.
    pub(crate) fn judge_stock(&self) -> Result<()> {
        self.judge_disk()?;
        let trace = &self.trace;
        let tables = &trace.pending_tables;
        ensure!(tables.len() as u64 == self.cpus, "pending tables: {tables:x?}");
        ensure!(tables.iter().all(|table| *table == tables[0]), "pending tables: {tables:x?}");
        ensure!(!trace.baser_is_read_back, "GITS_BASER1 is read back");
        ensure!(trace.syncs == Some(1), "a move has {:?} SYNCs", trace.syncs);
        let unmasked = self.output.word_after("unmasked during an allocation ")?;
        ensure!(unmasked == "Err(Busy)", "an unmask during an allocation: {unmasked}");
        let rounds = self.output.word_after("rounds ")?;
        ensure!(rounds == format!("{STOCK_EVENTS} last Err(NoMemory)"), "rounds: {rounds}");
        ensure!(trace.discarded == 0, "{} events were discarded", trace.discarded);
        let mapped = DISK_VECTORS + self.cpus + STOCK_EVENTS;
        ensure!(trace.mapped == mapped, "{} MAPTIs", trace.mapped);
        // The driver ignores the requested CPU.
        let taken_by = self.output.word_after(TAKEN_BY)?;
        let ignored: Vec<_> = (0..self.cpus).map(|_| Some(0)).collect();
        ensure!(taken_by == format!("{ignored:?}"), "messages taken by {taken_by}");
        Ok(())
    }

    /// Checks a boot with the ITS driver of `gic-driver`.
    ///
    /// # Errors
    /// Fails if the disk was not usable, or if one of the stock driver's faults is present.
    pub(crate) fn judge_its(&self) -> Result<()> {
        self.judge_disk()?;
        let trace = &self.trace;
        let tables: BTreeSet<_> = trace.pending_tables.iter().collect();
        ensure!(tables.len() as u64 == self.cpus, "pending tables: {:x?}", trace.pending_tables);
        ensure!(trace.baser_is_read_back, "GITS_BASER1 is not read back");
        let syncs = (self.cpus > 1).then_some(2);
        ensure!(trace.syncs == syncs, "a move has {:?} SYNCs", trace.syncs);
        self.judge_rounds()?;
        self.judge_targets()?;
        let freed = self.cpus + ROUNDS;
        ensure!(trace.discarded == freed, "{} events were discarded", trace.discarded);
        ensure!(trace.mapped == DISK_VECTORS + freed, "{} MAPTIs", trace.mapped);
        let lpis = trace.lpis.len() as u64;
        ensure!(lpis == DISK_VECTORS + 1, "{lpis} LPIs were used");
        Ok(())
    }

    /// Checks a boot on a GICv2 with ArceOS's own drivers, which do not support GICv2m.
    ///
    /// # Errors
    /// Fails if the disk sent a message, or did not use its wired interrupt.
    pub(crate) fn judge_stock_v2(&self) -> Result<()> {
        let Trace { disk_messages, disk_wired, .. } = self.trace;
        ensure!(disk_messages == 0 && disk_wired > 0, "{disk_messages} messages");
        let error = self.output.word_after("error: ")?;
        ensure!(error == "the disk has no messages", "error: {error}");
        Ok(())
    }

    /// Checks a boot on a GICv2 with the GICv2m driver of `gic-driver`.
    ///
    /// # Errors
    /// Fails if the disk did not send messages to every CPU, or if the program failed.
    pub(crate) fn judge_v2m(&self) -> Result<()> {
        self.judge_contents()?;
        self.judge_rounds()?;
        self.judge_targets()?;
        let Trace { disk_messages, disk_wired, spis_taken, .. } = &self.trace;
        ensure!(*disk_wired == 0 && *disk_messages > 0, "{disk_messages} messages");
        ensure!(spis_taken.len() as u64 == self.cpus, "SPIs: {spis_taken:?}");
        let taken: u64 = spis_taken.values().sum();
        ensure!(taken <= *disk_messages, "{taken} SPIs for {disk_messages} messages");
        Ok(())
    }

    /// Checks that the program succeeded in all rounds, and unmasked a vector while the provider
    /// was locked.
    fn judge_rounds(&self) -> Result<()> {
        let unmasked = self.output.word_after("unmasked during an allocation ")?;
        ensure!(unmasked == "Ok(())", "an unmask during an allocation: {unmasked}");
        let rounds = self.output.word_after("rounds ")?;
        ensure!(rounds == format!("{ROUNDS} last Ok(())"), "rounds: {rounds}");
        Ok(())
    }

    /// Checks that the program moved the disk's vectors, and that each message that it sent itself
    /// reached the CPU that was requested for it.
    fn judge_targets(&self) -> Result<()> {
        let refused = self.output.word_after("written moves ")?;
        ensure!(refused.ends_with(" refused 0"), "moves: {refused}");
        let taken_by = self.output.word_after(TAKEN_BY)?;
        let requested: Vec<_> = (0..self.cpus).map(Some).collect();
        ensure!(taken_by == format!("{requested:?}"), "messages taken by {taken_by}");
        Ok(())
    }

    /// Checks that the disk sent messages, that every CPU took LPIs, and that the program wrote the
    /// checksum of its input.
    fn judge_disk(&self) -> Result<()> {
        self.judge_contents()?;
        let trace = &self.trace;
        ensure!(trace.messages > 0, "the disk sent no message");
        ensure!(trace.lpis_taken.len() as u64 == self.cpus, "LPIs: {:?}", trace.lpis_taken);
        let taken: u64 = trace.lpis_taken.values().sum();
        ensure!(taken <= trace.messages, "{taken} LPIs for {} messages", trace.messages);
        ensure!((trace.moved > 0) == (self.cpus > 1), "{} MOVIs", trace.moved);
        Ok(())
    }

    fn judge_contents(&self) -> Result<()> {
        let cpus = self.output.word_after("cpus ")?;
        ensure!(cpus == self.cpus.to_string(), "ArceOS found {cpus} CPUs");
        self.output.word_after("end")?;
        let written = checksum_line(&self.input);
        let is_written = self.disk.windows(written.len()).any(|bytes| bytes == written.as_bytes());
        ensure!(is_written, "the disk does not contain `{}`", written.trim_end());
        Ok(())
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trace { mapped, moved, discarded, messages, lpis_taken, spis_taken, .. } = &self.trace;
        write!(f, "{} CPUs: {mapped} MAPTI, {moved} MOVI, {discarded} DISCARD, ", self.cpus)?;
        write!(f, "{messages} messages, LPIs {lpis_taken:?}, SPIs {spis_taken:?}")
    }
}
