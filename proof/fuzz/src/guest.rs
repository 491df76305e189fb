//! A hostile guest with two vCPUs and an ITS.

pub mod command;
mod saved;

use std::sync::Arc;

use gic_arch::{gicd, gicr, gits, icc};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use msi_types::{Cpu, Kick};
use vgic::its::{ErrorPolicy, ItsConfig, RedistributorNaming};
use vgic::{AccessWidth, Vcpu, Vgic, VgicConfig};

use self::command::{Command, RawCommand};
pub use self::saved::Damage;
use crate::memory::{Memory, layout, pending_bits};

const ITS: u64 = 0x0808_0000;
const CPUS: u16 = 2;
/// Number of commands that the queue holds.
const QUEUE_COMMANDS: u64 = layout::QUEUE_BYTES / 32;
/// The first LPI, and the INTID that signals that no interrupt is pending.
const FIRST_LPI: u64 = 8192;
const NOTHING: u64 = 1023;

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
    memory: Arc<Memory>,
    gic: Arc<Vgic>,
    vcpus: Vec<Vcpu>,
    shape: Shape,
    /// Number of commands queued so far.
    queued: u64,
    /// Numbers of interrupts that the guest requested and acknowledged.
    rung: u64,
    taken: u64,
}

struct NoKick;

impl Kick for NoKick {
    fn kick(&self, _: Cpu) {}
}

impl Guest {
    /// Boots the guest: enables everything, and sets up the tables without mappings.
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
        let memory = Arc::new(Memory::default());
        memory.allow([layout::pending(0), layout::pending(1)].map(pending_bits));
        let (gic, vcpus) = Vgic::new(config, memory.clone(), Arc::new(NoKick))
            .expect("the configuration is valid");
        let mut guest = Self { memory, gic, vcpus, shape, queued: 0, rung: 0, taken: 0 };
        guest.boot();
        guest
    }

    fn boot(&mut self) {
        let config = self.gic.config().clone();
        // Enable Group 1 and affinity routing.
        self.write(config.distributor + u64::from(gicd::CTLR.offset()), AccessWidth::Word, 0x12);
        for cpu in 0..u64::from(CPUS) {
            let frame = self.redistributor(cpu);
            self.write(frame + u64::from(gicr::WAKER.offset()), AccessWidth::Word, 0);
            self.write(
                frame + u64::from(gicr::PROPBASER.offset()),
                AccessWidth::Double,
                layout::CONFIGURATION | 15,
            );
            self.write(
                frame + u64::from(gicr::PENDBASER.offset()),
                AccessWidth::Double,
                layout::pending(cpu),
            );
            self.write(frame + u64::from(gicr::CTLR.offset()), AccessWidth::Word, 1);
        }
        for vcpu in &mut self.vcpus {
            _ = vcpu.write_sysreg(icc::PMR.encoding(), 0xff);
            _ = vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1);
        }
        self.table(0, 0);
        self.table(1, 0);
        let pages = layout::QUEUE_BYTES / 0x1000 - 1;
        self.write_its(gits::CBASER.offset(), AccessWidth::Double, 1 << 63 | layout::QUEUE | pages);
        self.write_its(gits::CTLR.offset(), AccessWidth::Word, 1);
    }

    /// Performs an action and checks the invariants that must always hold.
    pub fn take(&mut self, step: Step) {
        match step {
            Step::Command(command) => {
                let addresses = self.shape.names_redistributors_by_address;
                let name = |cpu: u64| if addresses { self.redistributor(cpu) } else { cpu << 16 };
                self.queue(command.encode(name));
            }
            Step::Raw(RawCommand(words)) => self.queue(words),
            Step::Ring { retry } => self.ring(retry),
            Step::Write { register, value } => self.write_any(u32::from(register), value),
            Step::Read { register } => {
                _ = self.gic.read(ITS + u64::from(register), AccessWidth::Word);
            }
            Step::Table { which, value } => self.table(u32::from(which), value),
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
        self.memory.guest_writes(layout::QUEUE + self.queued % QUEUE_COMMANDS * 32, words);
        self.queued += 1;
    }

    /// Posts the queued commands, then polls `GITS_CREADR`. Each read must execute at least one
    /// command, so the number of reads is limited to the capacity of the queue.
    fn ring(&mut self, retry: bool) {
        let end = self.queued % QUEUE_COMMANDS * 32;
        self.write_its(gits::CWRITER.offset(), AccessWidth::Double, end | u64::from(retry));
        let creadr =
            (0..=QUEUE_COMMANDS).map(|_| self.read_its(gits::CREADR.offset())).find(|value| {
                assert!(
                    value & !1 < layout::QUEUE_BYTES && value & 0x1e == 0,
                    "GITS_CREADR {value:#x}"
                );
                *value == end || value & 1 != 0
            });
        let enabled = self.read_its(gits::CTLR.offset()) & 1 != 0;
        assert!(creadr.is_some() || !enabled, "the queue is neither finished nor stalled");
    }

    /// Writes any register except the registers that contain the addresses of the queue and the
    /// tables.
    fn write_any(&mut self, register: u32, value: u64) {
        let moves = [gits::CBASER.offset(), gits::CBASER.offset() + 4, gits::CWRITER.offset()];
        let is_table = (0x100..0x140).contains(&register);
        if !moves.contains(&(register & !3)) && !is_table {
            self.write_its(register & !3, AccessWidth::Word, value & 0xffff_ffff);
        }
    }

    /// Writes `GITS_BASER<index>` with the kind in `value`, and this table's address.
    fn table(&mut self, index: u32, value: u64) {
        let indirect = value & 1 << 62;
        let base = 1 << 63 | indirect | layout::table(u64::from(index));
        self.write_its(0x100 + 8 * index, AccessWidth::Double, base);
    }

    fn acknowledge(&mut self, cpu: usize) {
        // One more than the number of LPIs.
        for _ in 0..=(1 << 16) {
            let intid = self.vcpus[cpu].read_sysreg(icc::IAR1.encoding()).expect("ICC_IAR1_EL1");
            if intid == NOTHING {
                return;
            }
            assert!((FIRST_LPI..1 << 16).contains(&intid), "INTID {intid} is not an LPI");
            self.taken += 1;
            assert!(self.taken <= self.rung, "more interrupts arrived than were sent");
            _ = self.vcpus[cpu].write_sysreg(icc::EOIR1.encoding(), intid);
        }
        panic!("interrupts arrive endlessly");
    }

    fn redistributor(&self, cpu: u64) -> u64 {
        let region = &self.gic.config().redistributors[0];
        region.base + cpu * region.stride
    }

    fn write_its(&self, offset: u32, width: AccessWidth, value: u64) {
        self.write(ITS + u64::from(offset), width, value);
    }

    fn read_its(&self, offset: u32) -> u64 {
        self.gic
            .read(ITS + u64::from(offset), AccessWidth::Double)
            .expect("the address is in the ITS's frame")
    }

    fn write(&self, address: u64, width: AccessWidth, value: u64) {
        self.gic
            .write_until_done(address, width, value)
            .expect("the address is in one of the GIC's frames");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::command::Opcode;

    /// Maps event 2 of device 1 to the first LPI, in collection 0 at vCPU 1, and signals it by INT.
    #[test]
    fn what_a_well_behaved_guest_rings_arrives() {
        let shape = Shape {
            stalls_at_errors: true,
            names_redistributors_by_address: false,
            holds_collections: 0,
            little_work_per_access: true,
        };
        let mut guest = Guest::start(shape);
        for opcode in [Opcode::Mapc, Opcode::Mapd, Opcode::Mapti, Opcode::Int, Opcode::Sync] {
            guest.take(Step::Command(Command::about(opcode)));
            guest.take(Step::Migrate);
        }
        guest.finish();
        assert_eq!((guest.rung, guest.taken), (1, 1));
    }
}
