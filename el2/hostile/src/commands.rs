//! Attacks through the ITS's command queue.

use crate::machine::{self, Layout, QUEUE_BYTES};
use crate::random::Random;
use crate::turns::Turns;
use gic_arch::gits;

pub(crate) const COMMAND_BYTES: u64 = 32;
/// Queue size for commands that visit all mappings.
const MIDDLE_QUEUE_BYTES: u64 = 0x1_0000;
pub(crate) const VALID: u64 = 1 << 63;
/// Number of events that attacks with this queue map.
const MANY: u64 = 1024;
/// INTID of the first LPI.
const LPIS: u64 = 8192;
/// An address above all of the machine's RAM.
const NOWHERE: u64 = 0x00ff_ffff_0000;

pub(crate) type Words = [u64; 4];

pub(crate) fn mapd(device: u64, event_bits: u64, valid: u64) -> Words {
    [0x08 | device << 32, event_bits - 1, valid, 0]
}

pub(crate) fn mapc(collection: u64, vcpu: u64) -> Words {
    [0x09, 0, VALID | vcpu << 16 | collection, 0]
}

pub(crate) fn mapti(device: u64, event: u64, lpi: u64) -> Words {
    [0x0a | device << 32, event | (LPIS + lpi) << 32, 0, 0]
}

pub(crate) fn int(device: u64, event: u64) -> Words {
    [0x03 | device << 32, event, 0, 0]
}

pub(crate) const INVALL: Words = [0x0d, 0, 0, 0];

pub(crate) fn movall(from: u64, to: u64) -> Words {
    [0x0e, 0, from << 16, to << 16]
}

/// Returns the commands that map a device with this many events to the first vCPU, and then those
/// of an attack.
fn mapped(events: u64, after: impl Fn(u64) -> Words) -> impl FnMut(u64) -> Words {
    move |slot| match slot {
        0 => mapd(1, 16, VALID),
        1 => mapc(0, 0),
        slot if slot < events + 2 => mapti(1, slot - 2, slot - 2),
        slot => after(slot),
    }
}

/// Returns a random command with small operands, which a driver could plausibly post.
fn any_command(random: &mut Random) -> Words {
    const OPCODES: [u64; 12] = [1, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];
    let opcode = OPCODES[random.below(12) as usize];
    let (device, event, collection) = (random.below(8), random.below(64), random.below(6));
    let (lpi, vcpu) = (LPIS + random.below(256), random.below(3) << 16);
    let valid = random.below(2) << 63;
    let second = match opcode {
        0x08 => random.below(32),
        0x0a => event | lpi << 32,
        0x0b => lpi,
        _ => event,
    };
    let third = match opcode {
        0x08 => valid | random.below(256) << 8,
        0x09 => valid | vcpu | collection,
        0x05 | 0x0e => vcpu,
        _ => collection,
    };
    [opcode | device << 32, second, third, random.below(3) << 16]
}

/// A ring that is always full, so that its commands are executed over and over.
pub(crate) struct Ring {
    bytes: u64,
}

impl Ring {
    /// Writes all commands to the queue before the ITS starts to execute them.
    pub(crate) fn fill(layout: Layout, bytes: u64, mut command: impl FnMut(u64) -> Words) -> Self {
        for slot in 0..bytes / COMMAND_BYTES {
            machine::store(layout.queue + slot * COMMAND_BYTES, command(slot));
        }
        Self { bytes }
    }

    /// Repeatedly moves `GITS_CWRITER` as far as possible, and handles pending interrupts.
    pub(crate) fn turn(&self, turns: &mut Turns) {
        while turns.next() {
            let read = machine::read_its(gits::CREADR.offset()) & !0x1f;
            let write = (read + self.bytes - COMMAND_BYTES) % self.bytes;
            // Bit 0 restarts a stalled queue.
            machine::write_its(gits::CWRITER.offset(), write | 1);
            for _ in 0..4 {
                machine::take();
            }
        }
    }
}

/// Enables interrupts, LPIs and the ITS, with all tables in place.
pub(crate) fn enable(layout: Layout, queue_bytes: u64) {
    machine::enable_interrupts();
    machine::fill(layout.configuration, 0x1_0000, 0xa1);
    machine::fill(layout.pending, 0x2_0000, 0);
    machine::set_lpis(layout, true);
    machine::set_its(layout, queue_bytes);
}

fn attack(turns: &mut Turns, queue_bytes: u64, command: impl FnMut(u64) -> Words) {
    let layout = Layout::apart();
    enable(layout, queue_bytes);
    Ring::fill(layout, queue_bytes, command).turn(turns);
}

/// Posts plausible commands in the largest queue.
pub(crate) fn meant(turns: &mut Turns) {
    let mut random = Random::here();
    attack(turns, QUEUE_BYTES, |_| any_command(&mut random));
}

/// Puts the tables, the pending bits and the queue at the same address, so that they overwrite each
/// other.
pub(crate) fn overlapping(turns: &mut Turns) {
    let layout = Layout::at(Layout::apart().queue);
    let mut random = Random::here();
    let ring = Ring::fill(layout, MIDDLE_QUEUE_BYTES, |_| any_command(&mut random));
    machine::enable_interrupts();
    machine::set_lpis(layout, true);
    machine::set_its(layout, MIDDLE_QUEUE_BYTES);
    while turns.next() {
        let mut piece = Turns::until(1);
        ring.turn(&mut piece);
        machine::set_lpis(layout, false);
        machine::set_lpis(layout, true);
    }
}

/// Sets table and queue addresses that aren't RAM.
pub(crate) fn absent(turns: &mut Turns) {
    let layout = Layout::at(NOWHERE);
    machine::enable_interrupts();
    while turns.next() {
        machine::set_lpis(layout, true);
        machine::set_its(layout, QUEUE_BYTES);
        let mut piece = Turns::until(1);
        Ring { bytes: QUEUE_BYTES }.turn(&mut piece);
        machine::set_lpis(layout, false);
    }
}

/// Signals LPIs without end: 1,000 events, each of which is sent again once it has been handled.
pub(crate) fn to_itself(turns: &mut Turns) {
    const EVENTS: u64 = 1000;
    attack(turns, QUEUE_BYTES, mapped(EVENTS, |slot| int(1, slot % EVENTS)));
}

/// Posts INVALL with many LPIs mapped. Each INVALL makes the ITS read the configuration of all
/// these LPIs.
pub(crate) fn invalidations(turns: &mut Turns) {
    attack(turns, MIDDLE_QUEUE_BYTES, mapped(MANY, |_| INVALL));
}

/// Moves LPIs back and forth between vCPUs.
pub(crate) fn moves(turns: &mut Turns) {
    let moves = |slot| match slot % 4 {
        0 => movall(0, 1),
        1 => movall(1, 0),
        slot => mapc(0, slot % 2),
    };
    attack(turns, MIDDLE_QUEUE_BYTES, mapped(MANY, moves));
}

/// Maps devices with the maximum number of events, far apart, and unmaps each with a single
/// command.
pub(crate) fn mappings(turns: &mut Turns) {
    const PERIOD: u64 = 4096;
    attack(turns, QUEUE_BYTES, |slot| match (slot / PERIOD, slot % PERIOD) {
        (device, 0) => mapd(device, 16, VALID),
        (_, 1) => mapc(0, 0),
        (device, slot) if slot == PERIOD - 1 => mapd(device, 16, 0),
        (device, slot) => mapti(device, slot * 16 % 0x1_0000, slot),
    });
}

/// Enables and disables the ITS and the LPIs while many events are mapped.
pub(crate) fn enables(turns: &mut Turns) {
    let layout = Layout::apart();
    enable(layout, MIDDLE_QUEUE_BYTES);
    let commands = mapped(MANY, |slot| int(1, slot % MANY));
    let ring = Ring::fill(layout, MIDDLE_QUEUE_BYTES, commands);
    let mut piece = Turns::until(5);
    ring.turn(&mut piece);
    while turns.next() {
        machine::write_its(gits::CTLR.offset(), 0);
        machine::set_lpis(layout, false);
        machine::set_lpis(layout, true);
        machine::write_its(gits::CTLR.offset(), 1);
    }
}
