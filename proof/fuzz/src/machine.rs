//! A machine with two vCPUs whose guest and devices perform arbitrary actions in any order:
//! accesses of any width anywhere in the GIC's frames, commands, messages, lines, system registers
//! and sleep.
//!
//! After each step, the model must not have read more of the guest's memory than one access may
//! read, must have written only to the pending tables that the guest designates, and must not use
//! more memory than its budgets allow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gic_arch::icc::{self, SysRegEncoding};
use gic_arch::{gicd, gicr, gits};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use msi_types::{Cpu, DeviceId, Kick, Level, Line, MsiMessage, NoIdentity, SetLine, SignalMsi};
use vgic::its::{ErrorPolicy, ItsConfig};
use vgic::saved_state::SavedState;
use vgic::{AccessWidth, SecurityView, Sleep, Vcpu, Vgic, VgicConfig};

use crate::guest::command::{Command, RawCommand};
use crate::memory::{Memory, layout, pending_bits};

const ITS: u64 = 0x0808_0000;
const ALIAS: u64 = 0x0600_0000;
/// `GITS_BASER0`.
const TABLES: u32 = 0x100;
const CPUS: u16 = 2;
const QUEUE_COMMANDS: u64 = layout::QUEUE_BYTES / 32;
/// Maximum number of reads of guest memory in one step: a pending table, plus the bytes that one
/// budget of work reads.
const MOST_READS: u64 = 40_000;

/// Configuration of the machine.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    two_security_states: bool,
    stalls_at_errors: bool,
    message_based_spis: bool,
    one_of_n: bool,
    extended: bool,
    little_work_per_access: bool,
}

/// The next action.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    /// The guest writes to a register.
    Write { frame: Frame, offset: u16, width: Width, value: u64 },
    /// The guest reads a register.
    Read { frame: Frame, offset: u16, width: Width },
    /// A device writes to an address in the frames.
    DeviceWrite { frame: Frame, offset: u16, width: Width, value: u32 },
    /// The guest queues a command that is likely to be valid.
    Command(Command),
    /// The guest queues arbitrary 256 bits as a command.
    Raw(RawCommand),
    /// The guest posts the queued commands.
    Ring,
    /// A device sends a message to the ITS.
    Send { device: u8, event: u8 },
    /// A device drives a line.
    Line { private: bool, number: u8, high: bool },
    /// The guest writes a system register.
    Msr { cpu: bool, register: u8, value: u32 },
    /// The guest reads a system register; `ICC_IAR<n>_EL1` acknowledges an interrupt.
    Mrs { cpu: bool, register: u8 },
    /// A vCPU tries to sleep, and wakes up.
    Sleep { cpu: bool },
    /// The machine is saved, and a new machine continues from the saved state.
    Migrate,
    /// The monitor resets the machine.
    Reset,
}

/// A frame of 64 KiB.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Frame {
    Distributor,
    Redistributor(bool),
    PrivateInterrupts(bool),
    Its,
    Translater,
    Alias,
}

/// The width of an access.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Width {
    Byte,
    Half,
    Word,
    Double,
}

impl From<Width> for AccessWidth {
    fn from(width: Width) -> Self {
        match width {
            Width::Byte => Self::Byte,
            Width::Half => Self::Half,
            Width::Word => Self::Word,
            Width::Double => Self::Double,
        }
    }
}

/// The machine, with its guest.
pub struct Machine {
    shape: Shape,
    memory: Arc<Memory>,
    kicks: Arc<Kicks>,
    gic: Arc<Vgic>,
    vcpus: Vec<Vcpu>,
    queued: u64,
}

/// Counts kicks. At most one kick may occur each time a vCPU goes to sleep.
#[derive(Default)]
struct Kicks([AtomicBool; CPUS as usize]);

impl Kick for Kicks {
    fn kick(&self, cpu: Cpu) {
        let before = self.0[cpu.index()].swap(true, Ordering::SeqCst);
        assert!(!before, "vCPU {cpu} was kicked twice for one departure");
    }
}

fn config(shape: Shape) -> VgicConfig {
    let its = ItsConfig::new(ITS)
        .with_error_policy(if shape.stalls_at_errors {
            ErrorPolicy::Stall
        } else {
            ErrorPolicy::Skip
        })
        .with_work_per_access(if shape.little_work_per_access { 1 } else { 256 });
    VgicConfig::new(CPUS)
        .with_lpi_id_bits(Some(16))
        .with_its_events(1 << 12)
        .with_its_devices(64)
        .with_its(vec![its])
        .with_redistributor_invalidation(true)
        .with_security(if shape.two_security_states {
            SecurityView::NonSecure
        } else {
            SecurityView::Single
        })
        .with_message_based_spis(shape.message_based_spis)
        .with_mbi_alias(shape.message_based_spis.then_some(ALIAS))
        .with_one_of_n(shape.one_of_n)
        .with_extended_spis(if shape.extended { 64 } else { 0 })
        .with_extended_ppis(if shape.extended { 64 } else { 0 })
}

impl Machine {
    /// Creates a machine whose tables, queue and interfaces are set up as by a well-behaved guest.
    pub fn start(shape: Shape) -> Self {
        let mut machine = Self::reset_state(shape, Arc::default());
        machine.boot();
        machine
    }

    fn reset_state(shape: Shape, memory: Arc<Memory>) -> Self {
        let kicks = Arc::new(Kicks::default());
        let (gic, vcpus) = Vgic::new(config(shape), memory.clone(), kicks.clone())
            .expect("the configuration is valid");
        Self { shape, memory, kicks, gic, vcpus, queued: 0 }
    }

    fn boot(&mut self) {
        let distributor = self.gic.config().distributor;
        self.write(distributor + u64::from(gicd::CTLR.offset()), AccessWidth::Word, 0x12);
        for cpu in 0..CPUS {
            let frame = self.redistributor(cpu.into());
            let tables = [
                (gicr::PROPBASER.offset(), layout::CONFIGURATION | 15),
                (gicr::PENDBASER.offset(), layout::pending(cpu.into())),
            ];
            self.write(frame + u64::from(gicr::WAKER.offset()), AccessWidth::Word, 0);
            for (offset, value) in tables {
                self.write(frame + u64::from(offset), AccessWidth::Double, value);
            }
            self.write(frame + u64::from(gicr::CTLR.offset()), AccessWidth::Word, 1);
        }
        for vcpu in &mut self.vcpus {
            _ = vcpu.write_sysreg(icc::PMR.encoding(), 0xff);
            _ = vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1);
        }
        let pages = layout::QUEUE_BYTES / 0x1000 - 1;
        let registers = [
            (TABLES, 1 << 63 | layout::table(0)),
            (TABLES + 8, 1 << 63 | layout::table(1)),
            (gits::CBASER.offset(), 1 << 63 | layout::QUEUE | pages),
            (gits::CTLR.offset(), 1),
        ];
        for (offset, value) in registers {
            self.write(ITS + u64::from(offset), AccessWidth::Double, value);
        }
    }

    /// Performs a step, and checks the invariants that hold after every step.
    pub fn take(&mut self, step: Step) {
        self.memory.allow(self.pending_tables().into_iter().map(pending_bits));
        let before = self.memory.reads();
        self.carry_out(step);
        let reads = self.memory.reads() - before;
        assert!(reads <= MOST_READS, "{step:?} read guest memory {reads} times");
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Write { frame, offset, width, value } => {
                self.write(self.address(frame, offset), width.into(), value);
            }
            Step::Read { frame, offset, width } => {
                _ = self.gic.read(self.address(frame, offset), width.into());
            }
            Step::DeviceWrite { frame, offset, width, value } => {
                _ = self.gic.write_from_device(
                    self.address(frame, offset),
                    width.into(),
                    value.into(),
                );
                let message = MsiMessage { address: self.address(frame, offset), data: value };
                _ = self.gic.signal_msi(NoIdentity, message);
            }
            Step::Command(command) => self.queue(command.encode(|cpu| cpu << 16)),
            Step::Raw(RawCommand(words)) => self.queue(words),
            Step::Ring => {
                let end = self.queued % QUEUE_COMMANDS * 32;
                self.write(ITS + u64::from(gits::CWRITER.offset()), AccessWidth::Double, end);
            }
            Step::Send { device, event } => self.send(device, event),
            Step::Line { private, number, high } => {
                let cpu = Cpu::new(u32::from(number) % u32::from(CPUS));
                let intid = u32::from(number);
                let line = if private { Line::Ppi { cpu, intid } } else { Line::Spi(intid) };
                _ = self.gic.set_line(line, if high { Level::High } else { Level::Low });
            }
            Step::Msr { cpu, register, value } => {
                _ = self.vcpus[usize::from(cpu)].write_sysreg(register_at(register), value.into());
            }
            Step::Mrs { cpu, register } => {
                _ = self.vcpus[usize::from(cpu)].read_sysreg(register_at(register));
            }
            Step::Sleep { cpu } => self.sleep(usize::from(cpu)),
            Step::Migrate => self.migrate(),
            Step::Reset => {
                self.gic.reset();
                self.vcpus.iter_mut().for_each(Vcpu::reset);
            }
        }
    }

    fn send(&self, device: u8, event: u8) {
        let data = u32::from(event % 64);
        let message = MsiMessage { address: ItsConfig::new(ITS).doorbell(), data };
        let doorbell = self.gic.its(0).expect("the machine has an ITS");
        _ = doorbell.signal_msi(DeviceId::new(u32::from(device % 8)), message);
    }

    fn sleep(&mut self, cpu: usize) {
        self.kicks.0[cpu].store(false, Ordering::SeqCst);
        if self.vcpus[cpu].prepare_to_sleep() == Sleep::Ready {
            assert!(
                !self.vcpus[cpu].inputs().any(),
                "a vCPU sleeps although an interrupt is signaled"
            );
        }
        self.vcpus[cpu].returned();
        self.kicks.0[cpu].store(false, Ordering::SeqCst);
    }

    fn migrate(&mut self) {
        let saved = self.save();
        let mut there = Self::reset_state(self.shape, self.memory.clone());
        there.restore(&saved);
        assert_eq!(there.save(), saved, "the state is the same after the migration");
        there.queued = self.queued;
        *self = there;
    }

    fn save(&mut self) -> SavedState {
        let _paused: Vec<_> = self.vcpus.iter_mut().map(Vcpu::pause).collect();
        self.gic.save().expect("all vCPUs are paused, and there is memory")
    }

    fn restore(&mut self, saved: &SavedState) {
        let _paused: Vec<_> = self.vcpus.iter_mut().map(Vcpu::pause).collect();
        self.gic
            .restore(saved)
            .expect("a saved state can be restored into a machine of the same configuration");
    }

    fn queue(&mut self, words: [u64; 4]) {
        self.memory.guest_writes(layout::QUEUE + self.queued % QUEUE_COMMANDS * 32, words);
        self.queued += 1;
    }

    /// Returns the addresses of the guest's pending tables, which the model may write.
    fn pending_tables(&self) -> [u64; CPUS as usize] {
        core::array::from_fn(|cpu| {
            let register = self.redistributor(cpu as u64) + u64::from(gicr::PENDBASER.offset());
            let value = self
                .gic
                .read(register, AccessWidth::Double)
                .expect("the address is in the redistributor's frame");
            gicr::Pendbaser::from_bits(value).address()
        })
    }

    fn redistributor(&self, cpu: u64) -> u64 {
        let region = &self.gic.config().redistributors[0];
        region.base + cpu * region.stride
    }

    fn address(&self, frame: Frame, offset: u16) -> u64 {
        let base = match frame {
            Frame::Distributor => self.gic.config().distributor,
            Frame::Redistributor(cpu) => self.redistributor(cpu.into()),
            Frame::PrivateInterrupts(cpu) => self.redistributor(cpu.into()) + gicr::FRAME_SIZE,
            Frame::Its => ITS,
            Frame::Translater => ITS + 0x1_0000,
            Frame::Alias => ALIAS,
        };
        base + u64::from(offset)
    }

    fn write(&self, address: u64, width: AccessWidth, value: u64) {
        _ = self.gic.write_until_done(address, width, value);
    }
}

/// Returns one of the CPU interface's registers, or an adjacent encoding.
fn register_at(number: u8) -> SysRegEncoding {
    let (crm, op2) = (u16::from(number >> 3) & 3, u16::from(number & 7));
    let crn = if number & 0x20 == 0 { 12 } else { 4 };
    SysRegEncoding::new(3, 0, crn, 8 + crm, op2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrated_machine_goes_on() {
        let shape = Shape {
            two_security_states: false,
            stalls_at_errors: false,
            message_based_spis: true,
            one_of_n: true,
            extended: true,
            little_work_per_access: true,
        };
        let mut machine = Machine::start(shape);
        for step in
            [Step::Ring, Step::Migrate, Step::Sleep { cpu: true }, Step::Migrate, Step::Reset]
        {
            machine.take(step);
        }
    }
}
