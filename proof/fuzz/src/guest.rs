//! A hostile guest with two vCPUs and an ITS.

pub mod command;
mod saved;

use std::sync::Arc;

use doorbell_test_support::guest::{ITS, Machine};
use gic_arch::gits;
use gic_arch::its::RdBase;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use vgic::its::{ErrorPolicy, ItsConfig, RedistributorNaming};
use vgic::{AccessWidth, VgicConfig};

use self::command::{Command, RawCommand};
pub use self::saved::Damage;
use crate::memory::{Memory, layout, pending_bits};

const CPUS: u16 = 2;
/// Number of commands that the queue holds.
pub(crate) const QUEUE_COMMANDS: u64 = layout::QUEUE_BYTES / 32;
/// The first LPI, and the INTID that signals that no interrupt is pending.
const FIRST_LPI: u64 = 8192;
const NOTHING: u64 = 1023;

/// Creates a machine whose guest has enabled everything, with tables that have no mappings.
pub(crate) fn booted(config: VgicConfig) -> Machine<Memory> {
    let memory = Arc::new(Memory::default());
    memory.allow([layout::pending(0), layout::pending(1)].map(pending_bits));
    let mut machine = Machine::over(config, memory);
    machine.start();
    machine.enable_lpis(16, layout::CONFIGURATION, layout::PENDING);
    for which in [0, 1] {
        table(&machine, which, 0);
    }
    machine.write_gits(gits::CBASER, (1 << 63 | layout::QUEUE).into());
    machine.write_gits(gits::CTLR, 1.into());
    machine
}

/// Writes `GITS_BASER<index>` with the kind in `value`, and this table's address.
fn table(machine: &Machine<Memory>, index: u32, value: u64) {
    let indirect = value & 1 << 62;
    let base = 1 << 63 | indirect | layout::table(u64::from(index));
    machine.write(ITS + u64::from(0x100 + 8 * index), AccessWidth::Double, base);
}

/// Configuration of the ITS.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Shape {
    stalls_at_errors: bool,
    names_redistributors_by_address: bool,
    holds_collections: u8,
    little_work_per_access: bool,
}

/// The next action of the guest.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    /// Queues a command that is likely to be valid.
    Command(Command),
    /// Queues arbitrary 256 bits as a command.
    Raw(RawCommand),
    /// Posts the queued commands to the ITS, and polls until they have been executed. If the queue
    /// stalls, it only resumes if the guest sets `retry`.
    Ring { retry: bool },
    /// Writes any value to an ITS register, except for registers that move the queue or a table.
    Write { register: u16, value: u64 },
    /// Reads any register of the ITS.
    Read { register: u16 },
    /// Changes a table's kind, but not its address.
    Table { which: bool, value: u64 },
    /// Acknowledges the pending interrupts.
    Acknowledge { cpu: bool },
    /// Saves and restores the machine. The guest must not be able to observe the save and restore.
    Migrate,
}

/// The guest and its machine.
pub struct Guest {
    machine: Machine<Memory>,
    shape: Shape,
    /// Number of commands queued so far.
    queued: u64,
    /// Numbers of interrupts that the guest requested and acknowledged.
    rung: u64,
    taken: u64,
}

impl Guest {
    /// Boots the guest.
    pub fn start(shape: Shape) -> Self {
        let mut its = ItsConfig::new(ITS);
        its.held_collections = shape.holds_collections % 4;
        its.error_policy =
            if shape.stalls_at_errors { ErrorPolicy::Stall } else { ErrorPolicy::Skip };
        if shape.names_redistributors_by_address {
            its.redistributor_naming = RedistributorNaming::Address;
        }
        if shape.little_work_per_access {
            its.work_per_access = 1;
        }
        let mut config = VgicConfig::new(CPUS);
        config.lpi_id_bits = Some(16);
        config.its = vec![its];
        Self { machine: booted(config), shape, queued: 0, rung: 0, taken: 0 }
    }

    /// Performs an action and checks the invariants that must always hold.
    pub fn take(&mut self, step: Step) {
        match step {
            Step::Command(command) => {
                let addresses = self.shape.names_redistributors_by_address;
                let region = &self.machine.gic.config().redistributors[0];
                let address = |cpu| region.base + u64::from(cpu) * region.stride;
                self.queue(command.encode(|cpu| {
                    if addresses {
                        RdBase::from_address(address(cpu))
                    } else {
                        RdBase::from_processor_number(cpu)
                    }
                }));
            }
            Step::Raw(RawCommand(words)) => self.queue(words),
            Step::Ring { retry } => self.ring(retry),
            Step::Write { register, value } => self.write_any(u32::from(register), value),
            Step::Read { register } => {
                _ = self.machine.gic.read(ITS + u64::from(register), AccessWidth::Word);
            }
            Step::Table { which, value } => table(&self.machine, which.into(), value),
            Step::Acknowledge { cpu } => self.acknowledge(usize::from(cpu)),
            Step::Migrate => self.migrate(),
        }
    }

    /// Checks that the ITS still executes its queue, and that no interrupt arrives that was not
    /// sent.
    pub fn finish(&mut self) {
        self.ring(false);
        for cpu in 0..usize::from(CPUS) {
            self.acknowledge(cpu);
        }
    }

    fn queue(&mut self, words: [u64; 4]) {
        if self.queued % QUEUE_COMMANDS == QUEUE_COMMANDS - 1 {
            self.ring(false);
        }
        // INT.
        self.rung += u64::from(words[0] & 0xff == 3);
        self.machine.ram.guest_writes(layout::QUEUE + self.queued % QUEUE_COMMANDS * 32, words);
        self.queued += 1;
    }

    /// Posts the queued commands, then polls `GITS_CREADR`. Each read must execute at least one
    /// command, so the number of reads is limited to the capacity of the queue.
    fn ring(&mut self, retry: bool) {
        let end = self.queued % QUEUE_COMMANDS * 32;
        self.machine.write_gits(gits::CWRITER, (end | u64::from(retry)).into());
        let creadr =
            (0..=QUEUE_COMMANDS).map(|_| self.machine.read_gits(gits::CREADR)).find(|value| {
                assert!(
                    value & !1 < layout::QUEUE_BYTES && value & 0x1e == 0,
                    "GITS_CREADR {value:#x}"
                );
                *value == end || value & 1 != 0
            });
        let enabled = self.machine.read_gits(gits::CTLR) & 1 != 0;
        assert!(creadr.is_some() || !enabled, "the queue is neither finished nor stalled");
    }

    /// Writes any register except the registers that contain the addresses of the queue and the
    /// tables.
    fn write_any(&mut self, register: u32, value: u64) {
        let moves = [gits::CBASER.offset(), gits::CBASER.offset() + 4, gits::CWRITER.offset()];
        let is_table = (0x100..0x140).contains(&register);
        if !moves.contains(&(register & !3)) && !is_table {
            let address = ITS + u64::from(register & !3);
            self.machine.write(address, AccessWidth::Word, value & 0xffff_ffff);
        }
    }

    fn acknowledge(&mut self, cpu: usize) {
        // One more than the number of LPIs.
        for _ in 0..=(1 << 16) {
            let intid = self.machine.handle(cpu);
            if intid == NOTHING {
                return;
            }
            assert!((FIRST_LPI..1 << 16).contains(&intid), "INTID {intid} is not an LPI");
            self.taken += 1;
            assert!(self.taken <= self.rung, "more interrupts arrived than were sent");
        }
        panic!("interrupts arrive endlessly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use doorbell_test_support::guest::{int, mapc, mapd, mapti, sync};

    /// Maps event 2 of device 1 to the first LPI, in collection 0 at vCPU 1, and signals it by INT.
    #[test]
    fn an_lpi_signaled_by_int_is_delivered_across_migrations() {
        let shape = Shape {
            stalls_at_errors: true,
            names_redistributors_by_address: false,
            holds_collections: 0,
            little_work_per_access: true,
        };
        let mut guest = Guest::start(shape);
        let itt = layout::translation_table(1);
        for command in [mapc(0, 1), mapd(1, 4, itt), mapti(1, 2, 8192, 0), int(1, 2), sync(1)] {
            guest.take(Step::Command(Command(command)));
            guest.take(Step::Migrate);
        }
        guest.finish();
        assert_eq!((guest.rung, guest.taken), (1, 1));
    }
}
