//! Translates the steps of a case into accesses. Both machines receive the same accesses.

use super::access::{Access, Width};
use super::address_map::{
    BASER0, BASER1, CBASER, COLLECTION_PAGES, COLLECTIONS, CONFIGURATION, CPUS, CREADR, CTLR,
    CWRITER, DEVICE_PAGES, DEVICES, GICD, GICR, IGROUPR, ISENABLER, ITS, PENDBASER, PROPBASER,
    QUEUE, QUEUE_PAGES, SGI_FRAME, TRANSLATER, WAKER, pending_table, redistributor,
};
use super::command::{Command, Words};
use super::registers;
use super::software::{Before, Software};
use super::step::{Rewritten, Start, Step};
use std::ops::Range;

const FIRST_LPI: u32 = 8192;
const VALID: u64 = 1 << 63;
/// Number of the first collection in a group of collections, one per CPU, that no case maps in any
/// other way.
const RELOADING: u16 = 100;
const COMMANDS_OF_PAGE: u64 = 128;
/// Number of bytes to compare in each pending table. These bytes cover all LPIs that cases map.
const COMPARED_PENDING: u64 = 0x200;

/// An access, and whether the CPUs' interrupt inputs are compared after it. They are not if the
/// CPUs aren't set up yet, or if the inputs have no defined value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Query {
    pub(super) access: Access,
    pub(super) compares_inputs: bool,
}

/// Builds accesses from steps.
#[derive(Debug, Default)]
pub(super) struct Script {
    queries: Vec<Query>,
    software: Software,
    /// Value of `GITS_CWRITER`.
    written: u64,
    /// Number of pages in the command queue.
    pages: u64,
    started: bool,
    /// Set if interrupts can be delivered to CPUs.
    delivers: bool,
    /// Set if an LPI's configuration has been written, and some redistributors may not have
    /// reloaded it yet.
    stale: bool,
    /// Set if wired interrupts have been changed.
    wired: bool,
    /// Value of `GITS_CTLR.Enabled`.
    enabled: bool,
}

impl Script {
    pub(super) fn of(steps: &[Step]) -> Vec<Query> {
        let mut script = Self::default();
        // Some fields of this register are UNKNOWN until software writes them.
        for register in [BASER0, BASER1] {
            script.store(ITS + register, Width::Double, 0);
        }
        for step in steps {
            script.step(step);
        }
        script.finish();
        script.queries
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Load { at, width } => self.load(at, width),
            Step::Store { at, width, value } => {
                self.store(at, width, value);
                self.wired |= !(ITS..GICR).contains(&at);
                if at & !7 == ITS + CBASER {
                    // After GITS_CBASER has been written, the value of GITS_CWRITER is UNKNOWN.
                    self.store(ITS + CWRITER, Width::Double, 0);
                }
            }
            Step::Tables { cpu, offset, value } => {
                self.store(redistributor(cpu) + CTLR, Width::Word, 0);
                self.store(redistributor(cpu) + offset, Width::Word, value);
            }
            Step::Line { input, level } => {
                self.wired = true;
                self.ask(Access::Line { input, level });
            }
            Step::Configure { offset, byte } => {
                self.stale = true;
                self.store(CONFIGURATION + u64::from(offset), Width::Byte, byte.into());
            }
            Step::Preset { cpu, offset, byte } => self.preset(cpu, offset, byte),
            Step::Start(start) => self.start(start),
            Step::Command(command) => self.command(command, 0),
            Step::Reserved { command, ones } => self.command(command, ones),
            Step::Nothing { commands } => self.nothing(u64::from(commands)),
            Step::Message { event, width } => self.store(TRANSLATER, width, event.into()),
            Step::Pending { cpu } => self.pending(cpu),
            Step::Deliver { lpis } => self.deliver(lpis),
            Step::Acknowledge { cpu } => self.acknowledge(cpu..cpu + 1),
            Step::Enable { its } => self.enable(its),
            Step::Requeue { pages } => self.requeue(u64::from(pages)),
            Step::Rewrite { register, value } => self.rewrite(register, value),
            Step::Overrun { beyond, retry } => self.overrun(u64::from(beyond), retry),
        }
    }

    fn start(&mut self, start: Start) {
        for cpu in 0..CPUS {
            let base = redistributor(cpu);
            self.store(
                base + PROPBASER,
                Width::Double,
                CONFIGURATION | u64::from(start.id_bits & 0x1f),
            );
            self.store(base + PENDBASER, Width::Double, pending_table(cpu));
            self.store(base + CTLR, Width::Word, u64::from(start.enabled >> cpu & 1));
        }
        let tables = [(BASER0, DEVICES, DEVICE_PAGES), (BASER1, COLLECTIONS, COLLECTION_PAGES)];
        for (two_level, (register, table, pages)) in start.two_level.into_iter().zip(tables) {
            for (index, page) in pages.into_iter().filter(|_| two_level) {
                self.store(table + 8 * index, Width::Double, VALID | page);
            }
            self.store(ITS + register, Width::Double, VALID | u64::from(two_level) << 62 | table);
        }
        self.store(ITS + CBASER, Width::Double, VALID | QUEUE | (QUEUE_PAGES - 1));
        self.enable(true);
        self.pages = QUEUE_PAGES;
        self.started = true;
    }

    fn command(&mut self, command: Command, ones: u32) {
        let before = self.software.prepare(command);
        self.prepare(before);
        self.post(command.encode_with(ones));
    }

    fn prepare(&mut self, before: Before) {
        if !before.is_nothing() {
            self.ensure_enabled();
        }
        for command in before.commands {
            self.post(command.encode());
        }
        for (at, bytes) in before.zeroed {
            self.ask(Access::Fill { at, bytes, byte: 0 });
        }
    }

    fn post(&mut self, command: Words) {
        for (word, at) in command.into_iter().zip((QUEUE + self.written..).step_by(8)) {
            self.store(at, Width::Double, word);
        }
        self.post_up_to(self.written + 0x20);
    }

    /// Posts the commands in the queue up to the offset `end`. The offset may be beyond the end of
    /// the queue.
    fn post_up_to(&mut self, end: u64) {
        self.written = end % (self.pages * 0x20 * COMMANDS_OF_PAGE);
        self.store(ITS + CWRITER, Width::Double, self.written);
        self.load(ITS + CREADR, Width::Double);
    }

    /// Posts commands with an invalid opcode. An enabled ITS has already executed all earlier
    /// commands, so all slots of the queue except one are free.
    fn nothing(&mut self, commands: u64) {
        self.ensure_enabled();
        let bytes = self.pages * 0x20 * COMMANDS_OF_PAGE;
        let end = self.written + (0x20 * commands.max(1)).min(bytes - 0x20);
        let (at, room) = (QUEUE + self.written, end.min(bytes) - self.written);
        self.ask(Access::Fill { at, bytes: room, byte: 0 });
        if end > bytes {
            self.ask(Access::Fill { at: QUEUE, bytes: end - bytes, byte: 0 });
        }
        self.post_up_to(end);
    }

    fn rewrite(&mut self, register: Rewritten, value: u64) {
        self.ensure_enabled();
        let at = ITS
            + match register {
                Rewritten::Devices => BASER0,
                Rewritten::Collections => BASER1,
                Rewritten::Queue => CBASER,
            };
        self.store(at, Width::Double, value);
        self.load(at, Width::Double);
        self.load(ITS + CREADR, Width::Double);
    }

    fn pending(&mut self, cpu: u16) {
        self.store(redistributor(cpu) + CTLR, Width::Word, 0);
        let at = pending_table(cpu) + u64::from(FIRST_LPI / 8);
        self.ask(Access::Dump { at, bytes: COMPARED_PENDING });
        self.store(redistributor(cpu) + CTLR, Width::Word, 1);
    }

    fn deliver(&mut self, lpis: u16) {
        const ALL: u64 = 0xffff_ffff;
        self.wired = true;
        self.delivers = true;
        self.ask(Access::Fill { at: CONFIGURATION, bytes: lpis.max(1).into(), byte: 0xa1 });
        self.store(GICD + CTLR, Width::Word, 0b11);
        for cpu in 0..CPUS {
            let base = redistributor(cpu);
            self.store(base + WAKER, Width::Word, 0);
            self.store(base + SGI_FRAME + IGROUPR, Width::Word, ALL);
            self.store(base + SGI_FRAME + ISENABLER, Width::Word, ALL);
        }
        for array in [IGROUPR, ISENABLER] {
            self.store(GICD + array + 4, Width::Word, ALL);
        }
    }

    /// Makes the CPUs acknowledge interrupts. Before they do so, every redistributor reloads the
    /// configuration of its LPIs, because implementations may also reload it at other times.
    fn acknowledge(&mut self, cpus: Range<u16>) {
        if self.started {
            self.ensure_enabled();
            for target in 0..CPUS {
                let collection = RELOADING + target;
                // No event is ever mapped to this collection, so mapping it needs no preparation.
                self.post(Command::Mapc { collection, target }.encode());
                self.post(Command::Invall { collection }.encode());
            }
            self.stale = false;
        }
        self.ask(Access::Acknowledge { first: cpus.start, end: cpus.end });
    }

    fn preset(&mut self, cpu: u16, offset: u16, byte: u8) {
        let before = self.software.prepare_pending();
        self.prepare(before);
        self.store(redistributor(cpu) + CTLR, Width::Word, 0);
        let at =
            pending_table(cpu) + u64::from(FIRST_LPI / 8) + u64::from(offset) % COMPARED_PENDING;
        self.store(at, Width::Byte, byte.into());
        self.store(redistributor(cpu) + CTLR, Width::Word, 1);
    }

    fn enable(&mut self, its: bool) {
        self.store(ITS + CTLR, Width::Word, its.into());
        self.load(ITS + CTLR, Width::Word);
        self.enabled = its;
    }

    fn ensure_enabled(&mut self) {
        if !self.enabled {
            self.enable(true);
        }
    }

    /// Replaces the command queue once all commands in the old queue have been executed. The
    /// mappings that software has made remain valid.
    fn requeue(&mut self, pages: u64) {
        self.ensure_enabled();
        self.store(ITS + CTLR, Width::Word, 0);
        self.pages = pages.clamp(1, QUEUE_PAGES);
        self.store(ITS + CBASER, Width::Double, VALID | QUEUE | (self.pages - 1));
        self.load(ITS + CREADR, Width::Double);
        self.written = 0;
        self.store(ITS + CWRITER, Width::Double, 0);
        self.enable(true);
    }

    fn overrun(&mut self, beyond: u64, retry: bool) {
        self.store(ITS + CWRITER, Width::Double, 0x20 * (self.pages * COMMANDS_OF_PAGE + beyond));
        self.load(ITS + CREADR, Width::Double);
        self.store(ITS + CWRITER, Width::Double, self.written | u64::from(retry));
        self.load(ITS + CWRITER, Width::Double);
        self.load(ITS + CREADR, Width::Double);
    }

    /// Appends the accesses that read out the final state.
    fn finish(&mut self) {
        if self.delivers {
            self.acknowledge(0..CPUS);
        }
        if self.started {
            (0..CPUS).for_each(|cpu| self.pending(cpu));
        }
        if self.wired {
            registers::wired().for_each(|(at, width)| self.load(at, width));
        }
        registers::of_lpis().for_each(|(at, width)| self.load(at, width));
    }

    fn load(&mut self, at: u64, width: Width) {
        self.ask(Access::Load { at, width });
    }

    fn store(&mut self, at: u64, width: Width, value: u64) {
        self.ask(Access::Store { at, width, value: value & width.mask() });
    }

    fn ask(&mut self, access: Access) {
        let compares_inputs = self.delivers && !self.stale;
        self.queries.push(Query { access, compares_inputs });
    }
}
