//! Programs: the steps of a guest, of its devices and of its monitor, which any machine can carry
//! out and which an [`AbstractGic`] judges. A program has a text form of one step a line, in which
//! a finding is kept and replayed on other machines.

mod bench;
mod draw;
mod kind;
mod registers;
mod text;
mod wired;

pub use bench::{Bench, CONFIGURATIONS, Shape};
pub use draw::{Draw, dice};
pub use kind::{Kind, Way};
pub use registers::Register;
pub use text::{itt, kept};
pub use wired::{Ends, Wired};

use super::AbstractGic;
pub use super::Field;
use gic_arch::its::{Command, CommandErrorReason};

/// A step of a guest, a device or a monitor.
#[expect(missing_docs, reason = "the fields are the operands of the step")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The ITS executes a command, and then SYNC for each vCPU.
    Command(Command),
    /// The guest posts a command and does not wait for it.
    Post(Command),
    /// The guest posts a command with an opcode that does not exist.
    PostUnknown(u8),
    /// The guest waits for the posted commands.
    Wait,
    /// A device sends a message to the ITS.
    Send { device: u32, event: u32 },
    /// The guest changes an LPI's configuration in memory.
    Configure { lpi: u32, configuration: u8 },
    /// A vCPU acknowledges and ends an interrupt.
    Handle { cpu: usize },
    /// A write to `GICR_SETLPIR`.
    SetLpi { cpu: usize, lpi: u32 },
    /// A write to `GICR_CLRLPIR`.
    ClearLpi { cpu: usize, lpi: u32 },
    /// A write to `GICR_INVLPIR`.
    Invalidate { cpu: usize, lpi: u32 },
    /// A write to `GICR_INVALLR`.
    InvalidateAll { cpu: usize },
    /// A write to `GICR_CTLR.EnableLPIs`.
    EnableLpis { cpu: usize, enable: bool },
    /// A write to `GITS_CTLR.Enabled`.
    EnableIts { enable: bool },
    /// The machine is saved, and another one continues from its state.
    Restore,
    /// A device drives an input. A PPI's belongs to the vCPU.
    Line { cpu: usize, intid: u32, high: bool },
    /// The hypervisor links an input to a physical interrupt, or removes the link.
    Link { cpu: usize, intid: u32, on: bool },
    /// A write to `GICD_SETSPI_NSR` or `GICD_CLRSPI_NSR`.
    Message { intid: u32, set: bool },
    /// A write of an interrupt's field. Odd values set a bit by an access of 64 bits.
    Field { cpu: usize, field: Field, intid: u32, value: u8 },
    /// A read of an interrupt's field.
    ReadField { cpu: usize, field: Field, intid: u32 },
    /// A write to `GICD_IROUTER<n>`. Target 3 does not exist, and 4 means any vCPU.
    Route { intid: u32, target: usize },
    /// A write to `GICD_CTLR`, which enables groups.
    Groups { zero: bool, one: bool },
    /// A write to `GICR_WAKER`.
    Waker { cpu: usize, asleep: bool },
    /// A write to `GICR_CTLR.DPG<n>`.
    Decline { cpu: usize, zero: bool, one: bool },
    /// The vCPU's interface is reset.
    Reset { cpu: usize },
    /// A read of a system register.
    Read { cpu: usize, register: Register },
    /// A write to a system register.
    Write { cpu: usize, register: Register, value: u64 },
    /// A look at the vCPU's interrupt inputs.
    Inputs { cpu: usize },
    /// A vCPU ends the interrupt that it acknowledged last.
    End { cpu: usize, group: usize },
    /// If a vCPU acknowledged an SPI last, the SPI is routed to another vCPU, and its line pulses.
    Refire { cpu: usize, target: usize },
}

/// The observable part of a step's result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Observation {
    /// Nothing can be observed.
    Nothing,
    /// The ITS has executed the command.
    Executed,
    /// The ITS has refused the command, for this reason if the machine reports one.
    Refused(Option<CommandErrorReason>),
    /// Number of posted commands that the ITS has refused.
    RefusedPosts(u64),
    /// Outcome of a message: `true` if it has made an interrupt pending.
    Sent(bool),
    /// The acknowledged LPI, or `None` if no interrupt was signaled.
    Acknowledged(Option<u32>),
    /// The value of a register.
    Read(u32),
    /// The system register does not exist.
    Undefined,
}

/// A machine that carries out programs.
pub trait Target {
    /// Takes a step.
    ///
    /// # Errors
    /// Describes a fault that the machine itself has found.
    fn take(&mut self, step: Step) -> Result<Observation, String>;
}

impl Step {
    /// Takes the step in the abstract GIC.
    ///
    /// # Errors
    /// Explains why the observation is not allowed.
    pub fn check(self, gic: &mut AbstractGic, observed: Observation) -> Result<(), String> {
        let is_allowed = match (self, observed) {
            (Self::Handle { cpu }, Observation::Acknowledged(Some(lpi))) => {
                return gic.acknowledge(cpu, lpi);
            }
            (Self::Handle { cpu }, Observation::Acknowledged(None)) => return gic.find_none(cpu),
            (Self::Command(command), observed) => {
                gic.its_enabled = true;
                match (gic.execute(command), observed) {
                    (Ok(()), Observation::Executed) => true,
                    (Err(reason), Observation::Refused(told)) => {
                        told.is_none_or(|told| told == reason)
                    }
                    _ => false,
                }
            }
            (Self::Wait, Observation::RefusedPosts(count)) => {
                std::mem::take(&mut gic.refused) == count
            }
            (Self::Send { device, event }, Observation::Sent(pending)) => {
                gic.send(device, event) == pending
            }
            (_, Observation::Nothing) => {
                self.apply(gic);
                true
            }
            _ => false,
        };
        if is_allowed { Ok(()) } else { Err(format!("{observed:?} is not allowed")) }
    }

    fn apply(self, gic: &mut AbstractGic) {
        match self {
            Self::Configure { lpi, configuration } => gic.configure(lpi, configuration),
            Self::SetLpi { cpu, lpi } => drop(gic.set_lpi(cpu, lpi)),
            Self::ClearLpi { cpu, lpi } => gic.clear_lpi(cpu, lpi),
            Self::Invalidate { cpu, lpi } => gic.invalidate(cpu, Some(lpi)),
            Self::InvalidateAll { cpu } => gic.invalidate(cpu, None),
            Self::EnableLpis { cpu, enable } => gic.enable_lpis(cpu, enable),
            Self::EnableIts { enable } => gic.its_enabled = enable,
            Self::Post(command) => {
                gic.its_enabled = true;
                gic.refused += u64::from(gic.execute(command).is_err());
            }
            Self::PostUnknown(_) => {
                gic.its_enabled = true;
                gic.refused += 1;
            }
            _ => {}
        }
    }

    /// Returns `true` for a look at the state, which changes nothing.
    const fn is_read(self) -> bool {
        match self {
            Self::Inputs { .. } | Self::ReadField { .. } => true,
            Self::Read { register, .. } => !matches!(register, Register::Iar(_)),
            _ => false,
        }
    }

    /// Returns `true` if the vCPU itself takes the step.
    const fn runs(self, at: usize) -> bool {
        match self {
            Self::Handle { cpu }
            | Self::Read { cpu, .. }
            | Self::Write { cpu, .. }
            | Self::Reset { cpu } => cpu == at,
            _ => false,
        }
    }

    /// Returns `true` if posted commands may remain in the queue during the step.
    const fn may_overtake(self) -> bool {
        matches!(self, Self::Post(_) | Self::PostUnknown(_) | Self::Restore | Self::Wait)
    }
}

/// A machine and the steps that it carries out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// The machine.
    pub shape: Shape,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Program {
    /// Carries the program out, and lets all vCPUs then take all interrupts. The guest waits for
    /// posted commands before each step that they may affect.
    ///
    /// # Errors
    /// Names the first step with an observation that the abstract GIC does not allow.
    pub fn judge(&self, target: &mut dyn Target) -> Result<(), String> {
        if let Some(wired) = self.shape.wired {
            return self.judge_wired(wired, target);
        }
        let gic = &mut self.shape.reference();
        let mut has_posted = false;
        for (number, step) in (1..).zip(&self.steps) {
            let says = |problem| format!("step {number}, {step}: {problem}");
            if has_posted && !step.may_overtake() {
                take(target, gic, Step::Wait).map_err(says)?;
            }
            take(target, gic, *step).map_err(says)?;
            has_posted = match step {
                Step::Post(_) | Step::PostUnknown(_) => true,
                Step::Restore => has_posted,
                _ => false,
            };
        }
        take(target, gic, Step::Wait)?;
        for cpu in 0..usize::from(self.shape.cpus) {
            while take(target, gic, Step::Handle { cpu })? != Observation::Acknowledged(None) {}
        }
        Ok(())
    }

    /// Removes steps for as long as the program still `fails`.
    pub fn shrink(&mut self, mut fails: impl FnMut(&Self) -> bool) {
        let mut size = self.steps.len().div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < self.steps.len() {
                let mut fewer = self.clone();
                fewer.steps.drain(at..(at + size).min(self.steps.len()));
                if fails(&fewer) {
                    *self = fewer;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
    }
}

fn take(target: &mut dyn Target, gic: &mut AbstractGic, step: Step) -> Result<Observation, String> {
    let observed = target.take(step)?;
    step.check(gic, observed).map(|()| observed)
}
