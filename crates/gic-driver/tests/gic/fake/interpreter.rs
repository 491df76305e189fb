//! An ITS interpreter that executes commands and checks the driver.
//!
//! The interpreter shares no code with the driver, and implements registers, commands and entries
//! as the architecture describes them. It panics if a driver relies on behavior that the
//! architecture does not guarantee.

use super::effect::Effect;
use super::execution::Execution;
use super::memory::{DeviceEntry, Memory, TranslationEntry, View};
use super::redistributor::FakeRedistributor;
use super::virtual_execution::VPE;
use gic_arch::gits::{Baser, Cbaser, Creadr, Ctlr, Cwriter, PageSize, TableKind, Typer};
use gic_arch::its::{Command, Level1Entry, VirtualCommand};
use gic_arch::{Cacheability, Shareability};
use gic_driver::Table;
use std::collections::{BTreeMap, VecDeque};

/// Features of the simulated ITS.
#[derive(Clone, Debug)]
pub(crate) struct Hardware {
    pub(crate) typer: Typer,
    pub(crate) pages: Vec<PageSize>,
    pub(crate) indirect: bool,
    pub(crate) looks_into_caches: bool,
    /// `true` if memory attributes read back as if the ITS's accesses were coherent with caches.
    pub(crate) claims_coherence: bool,
    pub(crate) iidr: u32,
    /// Exclusive upper limit of the redistributor numbers that the ITS reaches. A command that
    /// targets any other redistributor hangs the ITS.
    pub(crate) reach: u64,
    /// `true` if a faulty command stalls the queue. Otherwise, the ITS skips it.
    pub(crate) stalls: bool,
    /// Commands executed per read of `CREADR`. If `None`, all commands are executed as soon as they
    /// are posted.
    pub(crate) pace: Option<usize>,
    /// Number of `CREADR` reads for which the ITS pauses between executions.
    pub(crate) pause: u32,
    /// Number of reads of `CTLR` before the ITS is quiescent.
    pub(crate) rest_after: u32,
    /// `true` if the ITS is initially enabled, with the tables of firmware or a previous kernel.
    pub(crate) left_enabled: bool,
    pub(crate) entry_bytes: u8,
    pub(crate) lpis: u32,
    /// `true` if VMAPTI is a command error.
    pub(crate) refuses_vmapti: bool,
    /// `GITS_CTLR.ITS_Number`.
    pub(crate) number: u8,
}

impl Default for Hardware {
    fn default() -> Self {
        let typer = Typer::new()
            .with_physical(true)
            .with_itt_entry_bytes_minus_one(11)
            .with_event_id_bits_minus_one(15)
            .with_device_id_bits_minus_one(15);
        Self {
            typer,
            pages: vec![PageSize::Size64K],
            indirect: false,
            looks_into_caches: true,
            claims_coherence: false,
            iidr: 0x0000_043b,
            reach: u64::MAX,
            stalls: true,
            pace: None,
            pause: 0,
            rest_after: 3,
            left_enabled: false,
            entry_bytes: 8,
            lpis: 8192,
            refuses_vmapti: false,
            number: 0,
        }
    }
}

/// Record of software's accesses to the queue.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Traffic {
    pub(crate) writes: u32,
    pub(crate) reads: u32,
    pub(crate) executed: Vec<Command>,
}

#[derive(Debug)]
pub(crate) struct Interpreter {
    pub(crate) hardware: Hardware,
    control: Ctlr,
    unrest: u32,
    pub(crate) tables: [Baser; 8],
    pub(crate) queue: Cbaser,
    write: u32,
    read: u32,
    pub(crate) stalled: bool,
    /// `true` while the ITS hangs.
    stuck: bool,
    /// `true` if `CREADR` returns an offset that was never posted.
    pub(crate) nonsense: bool,
    looks: u32,
    /// Posted commands, with their contents at the time when they were posted.
    posted: VecDeque<Vec<u8>>,
    /// Interrupt translation tables, indexed by device.
    pub(crate) mapped: BTreeMap<u32, (u64, u64)>,
    pub(crate) own_collections: BTreeMap<u16, u64>,
    /// Effects at redistributors that are still waiting for a SYNC.
    pub(crate) deferred: Vec<(u64, Effect)>,
    /// Translation entries that DISCARD has cleared, and the targets whose SYNC they await.
    pub(crate) discarding: Vec<(u64, u64)>,
    /// Doorbells of virtual LPIs, by the addresses of their translation entries.
    pub(crate) doorbells: BTreeMap<u64, u32>,
    pub(crate) traffic: Traffic,
    /// Commands that the interpreter refused.
    pub(crate) refused: Vec<Command>,
}

const SLOT: u32 = 32;

impl Interpreter {
    pub(crate) fn new(hardware: Hardware) -> Self {
        let foreign = Baser::new().with_valid(hardware.left_enabled).with_address(0xdead_0000);
        let table = |kind| {
            let page = hardware.pages[0];
            foreign
                .with_kind(kind)
                .with_page_size(page)
                .with_entry_bytes_minus_one(hardware.entry_bytes - 1)
        };
        let mut tables = [Baser::new(); 8];
        tables[0] = table(TableKind::Devices);
        tables[1] = table(TableKind::VirtualPes);
        tables[3] = table(TableKind::Collections);
        Self {
            control: Ctlr::new().with_enabled(hardware.left_enabled),
            unrest: 0,
            tables,
            queue: Cbaser::new(),
            write: 0,
            read: 0,
            stalled: false,
            stuck: false,
            nonsense: false,
            looks: 0,
            posted: VecDeque::new(),
            mapped: BTreeMap::new(),
            own_collections: BTreeMap::new(),
            deferred: Vec::new(),
            discarding: Vec::new(),
            doorbells: BTreeMap::new(),
            traffic: Traffic::default(),
            refused: Vec::new(),
            hardware,
        }
    }

    /// Power-cycles the ITS. The ITS loses its state, but memory keeps its contents.
    pub(crate) fn lose_power(&mut self) {
        assert!(
            !self.control.enabled() && self.unrest == 0,
            "an ITS that is not quiescent lost power"
        );
        let fresh = Self::new(self.hardware.clone());
        let Self { mapped, traffic, refused, .. } = std::mem::replace(self, fresh);
        (self.mapped, self.traffic, self.refused) = (mapped, traffic, refused);
    }

    /// Asserts that the ITS does not use a table that is being released.
    pub(crate) fn check_unused(&self, table: &Table) {
        let overlaps = |start: u64, bytes: u64| {
            start < table.address + table.bytes && table.address < start + bytes
        };
        for (device, (itt, bytes)) in &self.mapped {
            assert!(
                !overlaps(*itt, *bytes),
                "the table of device {device:#x} was released while the device is mapped"
            );
        }
        for baser in self.tables.iter().filter(|baser| baser.valid()) {
            assert!(
                !overlaps(baser.address(), baser.bytes()),
                "a table was released while GITS_BASER points to it"
            );
        }
    }

    pub(crate) fn control(&mut self) -> Ctlr {
        // Quiescent is UNKNOWN while the ITS is enabled; this fake then returns 1.
        let quiescent = self.control.enabled() || self.unrest == 0;
        self.unrest = self.unrest.saturating_sub(1);
        self.control.with_quiescent(quiescent).with_its_number(self.hardware.number)
    }

    pub(crate) fn set_control(&mut self, value: Ctlr) {
        if self.control.enabled() && !value.enabled() {
            self.unrest = self.hardware.rest_after;
        }
        if value.enabled() {
            assert!(self.queue.valid(), "the ITS is enabled without a command queue");
            assert!(self.tables[0].valid(), "the ITS is enabled without a device table");
            let is_own = self.hardware.typer.virtual_lpis() || !self.tables[1].valid();
            assert!(is_own, "the ITS is enabled with another owner's vPE table");
        }
        self.control = Ctlr::new().with_enabled(value.enabled());
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.control.enabled()
    }

    pub(crate) fn set_table(&mut self, index: usize, value: Baser) {
        self.must_rest("GITS_BASER");
        let old = self.tables[index];
        if old.kind() == TableKind::None {
            return;
        }
        let page = value.page_size();
        let page = if self.hardware.pages.contains(&page) { page } else { old.page_size() };
        let mut new = value
            .with_kind(old.kind())
            .with_entry_bytes_minus_one(old.entry_bytes_minus_one())
            .with_page_size(page)
            .with_indirect(value.indirect() && self.hardware.indirect);
        if !self.hardware.looks_into_caches && !self.hardware.claims_coherence {
            new = new.with_shareability(Shareability::Non);
        }
        if self.hardware.iidr & 0xffff_0fff == 0xa100_034c && value.valid() {
            let (cache, shareability) = (value.inner_cache(), value.shareability());
            let entries = value.bytes() / u64::from(old.entry_bytes());
            assert_eq!(
                (cache, shareability),
                (Cacheability::Device, Shareability::Inner),
                "ThunderX 24313"
            );
            assert!(index != 0 || entries <= 1 << 20, "ThunderX 22375");
        }
        self.tables[index] = new;
    }

    pub(crate) fn set_queue(&mut self, value: Cbaser) {
        self.must_rest("GITS_CBASER");
        let is_shared = self.hardware.looks_into_caches || self.hardware.claims_coherence;
        self.queue = if is_shared { value } else { value.with_shareability(Shareability::Non) };
        // Bits 15:12 of the address may be RES0.
        assert_eq!(self.queue.address() % 0x1_0000, 0, "the queue must be aligned to 64 KiB");
        (self.read, self.stalled) = (0, false);
        self.posted.clear();
    }

    fn view(&self, shareability: Shareability, cache: Cacheability) -> View {
        let cached = shareability != Shareability::Non && cache.is_cacheable();
        if cached && self.hardware.looks_into_caches { View::Coherent } else { View::Dram }
    }

    fn must_rest(&self, what: &str) {
        assert!(
            !self.control.enabled() && self.unrest == 0,
            "{what} is written while the ITS is not quiescent"
        );
    }

    fn queue_view(&self) -> View {
        self.view(self.queue.shareability(), self.queue.inner_cache())
    }

    pub(crate) fn table_view(&self) -> View {
        self.view(self.tables[0].shareability(), self.tables[0].inner_cache())
    }

    pub(crate) fn post(
        &mut self,
        memory: &mut Memory,
        redistributors: &mut [FakeRedistributor],
        value: Cwriter,
    ) {
        let offset = value.offset();
        assert!(offset < self.queue.bytes(), "CWRITER exceeds the queue");
        if !self.control.enabled() {
            (self.write, self.read) = (offset, self.read);
            assert_eq!(self.write, self.read, "commands are posted to a disabled ITS");
            return;
        }
        self.traffic.writes += 1;
        self.check_outstanding(memory);
        assert!(offset != self.write || value.retry(), "a write to CWRITER posts no command");
        while self.write != offset {
            let address = self.queue.address() + u64::from(self.write);
            let seen = memory.device_read(self.queue_view(), address, SLOT as usize);
            assert_eq!(
                seen,
                memory.load(address, SLOT as usize),
                "a command was posted before it was published"
            );
            self.posted.push_back(seen);
            self.write = self.next(self.write);
            assert_ne!(self.write, self.read, "the queue was overrun");
        }
        if value.retry() && self.stalled {
            self.stalled = false;
            // Execute the command that replaced the stalled one.
            let address = self.queue.address() + u64::from(self.read);
            self.posted[0] = memory.device_read(self.queue_view(), address, SLOT as usize);
        }
        if self.hardware.pace.is_none() {
            self.execute(memory, redistributors, usize::MAX);
        }
    }

    /// Returns the value of `GITS_CWRITER`.
    pub(crate) fn written(&self) -> Cwriter {
        Cwriter::new().with_slot(u16::try_from(self.write / SLOT).unwrap())
    }

    /// Makes the ITS hang, or lets it continue.
    pub(crate) fn set_stuck(
        &mut self,
        stuck: bool,
        memory: &mut Memory,
        redistributors: &mut [FakeRedistributor],
    ) {
        self.stuck = stuck;
        self.execute(memory, redistributors, self.hardware.pace.unwrap_or(usize::MAX));
    }

    pub(crate) fn look(
        &mut self,
        memory: &mut Memory,
        redistributors: &mut [FakeRedistributor],
    ) -> Creadr {
        self.traffic.reads += 1;
        if self.nonsense {
            return Creadr::at_offset(self.next(self.write));
        }
        let answer = Creadr::at_offset(self.read).with_stalled(self.stalled);
        self.looks += 1;
        if !self.looks.is_multiple_of(self.hardware.pause + 1) {
            return answer;
        }
        self.execute(memory, redistributors, self.hardware.pace.unwrap_or(usize::MAX));
        answer
    }

    fn next(&self, offset: u32) -> u32 {
        (offset + SLOT) % self.queue.bytes()
    }

    /// Asserts that posted commands are not modified until they are executed, except for a stalled
    /// one.
    fn check_outstanding(&self, memory: &mut Memory) {
        let mut offset = self.read;
        for (index, posted) in self.posted.iter().enumerate() {
            let now = memory.load(self.queue.address() + u64::from(offset), SLOT as usize);
            assert!(
                (index == 0 && self.stalled) || now == *posted,
                "a command was overwritten before it was read"
            );
            offset = self.next(offset);
        }
    }

    fn execute(
        &mut self,
        memory: &mut Memory,
        redistributors: &mut [FakeRedistributor],
        most: usize,
    ) {
        for _ in 0..most {
            if self.stuck || self.stalled || !self.control.enabled() {
                return;
            }
            let Some(raw) = self.posted.front() else { return };
            let words: Vec<_> =
                raw.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
            let words = words.try_into().unwrap();
            for redistributor in redistributors.iter_mut() {
                redistributor.deliver_early(memory);
            }
            let command = Command::decode(words);
            let mut execution = Execution { its: self, memory, redistributors };
            let done = if let Ok(command) = command {
                execution.run(command)
            } else {
                let command = VirtualCommand::decode(words);
                execution.run_virtual(command.expect("the driver posts known commands"))
            };
            if done.is_none() {
                self.refused.extend(command);
                if self.hardware.stalls {
                    self.stalled = true;
                    return;
                }
            }
            self.traffic.executed.extend(command);
            self.posted.pop_front();
            self.read = self.next(self.read);
        }
    }

    /// Translates a message to its LPI and redistributor. Returns `None` if the message is dropped.
    pub(crate) fn translate(
        &mut self,
        memory: &mut Memory,
        device: u32,
        event: u32,
    ) -> Option<(u32, u64)> {
        let enabled = self.control.enabled();
        let entry = enabled.then(|| self.event_entry(memory, device, event))??;
        let entry = TranslationEntry::from(memory.device_read64(self.table_view(), entry));
        let target = self.target(memory, entry)?;
        (entry.intid() != 0).then_some((entry.intid(), target))
    }

    /// Returns the redistributor or vPE of an event.
    pub(crate) fn target(&self, memory: &mut Memory, entry: TranslationEntry) -> Option<u64> {
        let id = entry.collection();
        if entry.is_virtual() { Some(VPE | u64::from(id)) } else { self.collection(memory, id) }
    }

    /// Returns the address of a table's entry, or `None` if `id` is out of range.
    pub(crate) fn entry(&self, memory: &mut Memory, table: usize, id: u32) -> Option<u64> {
        let register = self.tables[table];
        if !register.valid() {
            return None;
        }
        let (page, bytes) = (register.page_size().bytes(), u64::from(register.entry_bytes()));
        let id = u64::from(id);
        if !register.indirect() {
            return ((id + 1) * bytes <= register.bytes()).then(|| register.address() + id * bytes);
        }
        let per_page = page / bytes;
        let first = id / per_page * 8;
        if first >= register.bytes() {
            return None;
        }
        let first = memory.device_read64(self.table_view(), register.address() + first);
        let first = Level1Entry::from(first);
        assert_eq!(first.address() % page, 0, "a second-level page is misaligned");
        first.valid().then(|| first.address() + id % per_page * bytes)
    }

    fn device(&self, memory: &mut Memory, device: u32) -> Option<DeviceEntry> {
        if u64::from(device) >> self.hardware.typer.device_id_bits() != 0 {
            return None;
        }
        let entry = self.entry(memory, 0, device)?;
        let entry = DeviceEntry::from(memory.device_read64(self.table_view(), entry));
        entry.valid().then_some(entry)
    }

    pub(crate) fn event_entry(&self, memory: &mut Memory, device: u32, event: u32) -> Option<u64> {
        let device = self.device(memory, device)?;
        let bytes = u64::from(self.hardware.typer.itt_entry_bytes());
        let fits = u64::from(event) < 2 << device.event_bits_minus_one();
        fits.then(|| device.itt_address() + u64::from(event) * bytes)
    }

    pub(crate) fn collection(&self, memory: &mut Memory, id: u16) -> Option<u64> {
        if let Some(target) = self.own_collections.get(&id) {
            return Some(*target);
        }
        if u32::from(id) < u32::from(self.hardware.typer.hcc()) {
            return None;
        }
        let entry = self.entry(memory, 3, id.into())?;
        let word = memory.device_read64(self.table_view(), entry);
        (word >> 63 != 0).then_some(word & !(1 << 63))
    }
}
