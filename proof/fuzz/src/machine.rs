//! A machine with two vCPUs whose guest and devices perform arbitrary actions in any order:
//! accesses of any width anywhere in the GIC's frames, commands, messages, lines, system registers
//! and sleep.
//!
//! After each step, the model must not have read more of the guest's memory than one access may
//! read, must have written only to the pending tables that the guest designates, and must not use
//! more memory than its budgets allow.

use std::sync::Arc;

use doorbell_test_support::guest::{self, ITS, program};
use gic_arch::icc::SysRegEncoding;
use gic_arch::{gicr, gits, its};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use msi_types::{Cpu, Level, Line, MsiMessage, NoIdentity, SetLine, SignalMsi};
use vgic::its::{ErrorPolicy, ItsConfig};
use vgic::saved_state::SavedState;
use vgic::{AccessWidth, SecurityView, Sleep, Vcpu, VgicConfig};

use crate::damage::Damage;
use crate::memory::{Memory, layout, pending_bits};

const ALIAS: u64 = 0x0600_0000;
const CPUS: u16 = 2;
/// Maximum number of reads of guest memory in one step: a pending table, plus the bytes that one
/// budget of work reads.
const MOST_READS: u64 = 40_000;
/// Number of commands that the queue holds.
const QUEUE_COMMANDS: u64 = layout::QUEUE_BYTES / 32;

/// An ITS command (IHI 0069 §5.3) of a program's guest, which may be wrong.
#[derive(Clone, Copy, Debug)]
pub struct Command(pub its::Command);

impl<'a> Arbitrary<'a> for Command {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let shape = program::Shape { cpus: 2, lpis: 64, is_direct: false, wired: None };
        let draw = program::Draw { shape, shares_lpis: bytes.arbitrary()? };
        let mut below = |bound: u32| bytes.int_in_range(0..=bound - 1).unwrap_or_default();
        Ok(Self(draw.command(&mut below)))
    }
}

/// Creates a machine whose guest has enabled everything, with tables that have no mappings.
pub(crate) fn booted(config: VgicConfig) -> guest::Machine<Memory> {
    let memory = Arc::new(Memory::default());
    memory.allow([layout::pending(0), layout::pending(1)].map(pending_bits));
    let mut machine = guest::Machine::over(config, memory);
    machine.start();
    machine.enable_lpis(16, layout::CONFIGURATION, layout::PENDING);
    for which in [0, 1] {
        let base = 1 << 63 | layout::table(which);
        machine.write(ITS + 0x100 + 8 * which, AccessWidth::Double, base);
    }
    machine.write_gits(gits::CBASER, (1 << 63 | layout::QUEUE).into());
    machine.write_gits(gits::CTLR, 1.into());
    machine
}

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
    Write { frame: Frame, offset: u16, width: u8, value: u64 },
    /// The guest reads a register.
    Read { frame: Frame, offset: u16, width: u8 },
    /// A device writes to an address in the frames.
    DeviceWrite { frame: Frame, offset: u16, width: u8, value: u32 },
    /// The guest queues a command that is likely to be valid.
    Command(Command),
    /// The guest queues arbitrary 256 bits as a command.
    Raw([u64; 4]),
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

/// Returns the width of an access from its binary logarithm.
fn bytes(width: u8) -> AccessWidth {
    AccessWidth::try_from(1 << (width % 4)).expect("an access has 1, 2, 4 or 8 bytes")
}

/// The machine, with its guest.
pub struct Machine {
    machine: guest::Machine<Memory>,
    queued: u64,
    /// Number of kicks of each vCPU until it last went to sleep or returned.
    kicks: [usize; CPUS as usize],
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
        let mut machine = Self { machine: booted(config(shape)), queued: 0, kicks: [0; 2] };
        (0..machine.kicks.len()).for_each(|cpu| machine.check_kicks(cpu));
        machine
    }

    /// Performs a step, and checks the invariants that hold after every step.
    pub fn take(&mut self, step: Step) {
        let memory = self.machine.ram.clone();
        memory.allow(self.pending_tables().into_iter().map(pending_bits));
        let before = memory.reads();
        self.carry_out(step);
        let reads = memory.reads() - before;
        assert!(reads <= MOST_READS, "{step:?} read guest memory {reads} times");
    }

    fn carry_out(&mut self, step: Step) {
        match step {
            Step::Write { frame, offset, width, value } => {
                let address = self.address(frame, offset);
                _ = self.machine.gic.write_until_done(address, bytes(width), value);
            }
            Step::Read { frame, offset, width } => {
                _ = self.machine.gic.read(self.address(frame, offset), bytes(width));
            }
            Step::DeviceWrite { frame, offset, width, value } => {
                _ = self.machine.gic.write_from_device(
                    self.address(frame, offset),
                    bytes(width),
                    value.into(),
                );
                let message = MsiMessage { address: self.address(frame, offset), data: value };
                _ = self.machine.gic.signal_msi(NoIdentity, message);
            }
            Step::Command(Command(command)) => self.queue(command.encode()),
            Step::Raw(words) => self.queue(words),
            Step::Ring => {
                let end = self.queued % QUEUE_COMMANDS * 32;
                self.machine.write_gits(gits::CWRITER, end.into());
            }
            Step::Send { device, event } => {
                self.machine.send(u32::from(device % 8), u32::from(event % 64));
            }
            Step::Line { private, number, high } => {
                let cpu = Cpu::new(u32::from(number) % u32::from(CPUS));
                let intid = u32::from(number);
                let line = if private { Line::Ppi { cpu, intid } } else { Line::Spi(intid) };
                _ = self.machine.gic.set_line(line, if high { Level::High } else { Level::Low });
            }
            Step::Msr { cpu, register, value } => {
                _ = self.machine.vcpus[usize::from(cpu)]
                    .write_sysreg(register_at(register), value.into());
            }
            Step::Mrs { cpu, register } => {
                _ = self.machine.vcpus[usize::from(cpu)].read_sysreg(register_at(register));
            }
            Step::Sleep { cpu } => self.sleep(usize::from(cpu)),
            Step::Migrate => self.migrate(),
            Step::Reset => {
                self.machine.gic.reset();
                self.machine.vcpus.iter_mut().for_each(Vcpu::reset);
            }
        }
    }

    fn sleep(&mut self, cpu: usize) {
        self.check_kicks(cpu);
        if self.machine.vcpus[cpu].prepare_to_sleep() == Sleep::Ready {
            assert!(
                !self.machine.vcpus[cpu].inputs().any(),
                "a vCPU sleeps although an interrupt is signaled"
            );
        }
        self.machine.vcpus[cpu].returned();
        self.check_kicks(cpu);
    }

    /// Checks that a vCPU was kicked at most once since the last call.
    fn check_kicks(&mut self, cpu: usize) {
        let kicks = self.machine.kicks.of(cpu);
        let before = std::mem::replace(&mut self.kicks[cpu], kicks);
        assert!(kicks - before <= 1, "vCPU {cpu} was kicked twice for one departure");
    }

    fn migrate(&mut self) {
        let saved = self.machine.save();
        let mut there = self.machine.successor();
        there.restore(&saved);
        assert_eq!(there.save(), saved, "the state is the same after the migration");
        (0..self.kicks.len()).for_each(|cpu| self.check_kicks(cpu));
        (self.machine, self.kicks) = (there, [0; 2]);
    }

    /// Restores the machine from damaged bytes. Afterwards, the machine must either be reset, or it
    /// must be possible to save and restore it again, and its guest must be able to continue.
    pub fn restore_damaged(&mut self, damages: &[Damage]) {
        let saved = self.machine.save();
        let mut bytes = postcard::to_allocvec(&saved).expect("the state fits into memory");
        damages.iter().for_each(|damage| damage.inflict(&mut bytes));
        let Ok(damaged) = postcard::from_bytes::<SavedState>(&bytes) else { return };
        match self.machine.try_restore(&damaged) {
            Ok(()) => {
                let saved = self.machine.save();
                self.machine.restore(&saved);
                assert_eq!(self.machine.save(), saved);
            }
            Err(refused) => {
                let unused = self.machine.successor().save();
                assert_eq!(self.machine.save(), unused, "{refused}");
            }
        }
        for cpu in (0..self.machine.vcpus.len()).flat_map(|cpu| [cpu; 64]) {
            self.machine.handle(cpu);
        }
        _ = self.machine.gic.poll();
    }

    fn queue(&mut self, words: [u64; 4]) {
        self.machine.ram.guest_writes(layout::QUEUE + self.queued % QUEUE_COMMANDS * 32, words);
        self.queued += 1;
    }

    /// Returns the addresses of the guest's pending tables, which the model may write.
    fn pending_tables(&self) -> [u64; CPUS as usize] {
        [0, 1].map(|cpu| {
            gicr::Pendbaser::from_bits(self.machine.read_gicr(cpu, gicr::PENDBASER)).address()
        })
    }

    fn address(&self, frame: Frame, offset: u16) -> u64 {
        let base = match frame {
            Frame::Distributor => self.machine.gic.config().distributor,
            Frame::Redistributor(cpu) => self.machine.frame(cpu.into()),
            Frame::PrivateInterrupts(cpu) => self.machine.frame(cpu.into()) + gicr::FRAME_SIZE,
            Frame::Its => ITS,
            Frame::Translater => ITS + 0x1_0000,
            Frame::Alias => ALIAS,
        };
        base + u64::from(offset)
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
    fn a_migrated_machine_executes_further_steps() {
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
