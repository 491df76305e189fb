//! The two machines.

use super::acknowledge::{self, Acknowledged};
use super::address_map::CPUS;
use super::world::World;
use crate::qtest::{IrqChange, Qtest};
use anyhow::{Context as _, Result};
use std::fmt;
use std::ops::Range;
use vgic::VgicConfig;

/// A machine that speaks the qtest protocol.
pub trait Peer {
    /// Resets the machine and zeroes the memory that cases use.
    ///
    /// # Errors
    /// Returns an error if the machine has exited.
    fn reset(&mut self) -> Result<()>;

    /// Returns the machine's replies to the lines, in order.
    ///
    /// # Errors
    /// Returns an error if the machine has exited.
    fn replies(&mut self, lines: &mut dyn Iterator<Item = &str>) -> Result<Vec<Reply>>;

    /// Makes each of these CPUs acknowledge interrupts until none is pending.
    ///
    /// # Errors
    /// Returns an error if the machine has exited, or if its CPUs are not running.
    fn acknowledge(&mut self, cpus: Range<u16>) -> Result<Vec<Vec<Acknowledged>>>;

    /// Returns the CPU interrupt inputs that are asserted, among those that are intercepted.
    fn asserted(&self) -> Asserted;

    /// Returns the protocol line that makes the machine report changes of these inputs.
    fn watch(&self) -> &str;
}

/// A machine's reply to a protocol line, and the inputs that are asserted afterwards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Text of the reply.
    pub text: String,
    /// The inputs that are asserted after the line.
    pub asserted: Asserted,
}

/// The interrupt inputs of the CPUs, by their numbers in the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asserted(pub(super) u32);

impl Asserted {
    /// Updates the inputs if `line` reports a change of one. Returns `true` if `line` reports a
    /// change.
    pub(super) fn follow(&mut self, line: &str) -> bool {
        let change = line.strip_prefix("IRQ ").and_then(|change| change.split_once(' '));
        let Some((what, Ok(number @ 0..32))) =
            change.map(|(what, number)| (what, number.parse::<u32>()))
        else {
            return false;
        };
        match what {
            "raise" => self.0 |= 1 << number,
            _ => self.0 &= !(1 << number),
        }
        true
    }
}

impl fmt::Display for Asserted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<u32> = (0..32).filter(|number| self.0 >> number & 1 == 1).collect();
        write!(f, "{numbers:?}")
    }
}

/// Intercepts the IRQ and FIQ inputs of all CPUs. Only recent versions of QEMU support this.
pub const WATCH_ALL: &str = "irq_intercept_out /machine/unattached/device[3] sysbus-irq";
/// Intercepts one CPU's inputs. Every version of QEMU supports this.
pub const WATCH_ONE: &str = "irq_intercept_in /machine/unattached/device[1]";

/// Doorbell's model, running in this process.
#[derive(Debug)]
pub struct Model {
    world: World,
    config: VgicConfig,
    machine: Qtest,
    watch: String,
    asserted: Asserted,
}

impl Model {
    /// Creates a world's model. The model reports changes of the inputs that the protocol line
    /// `watch` selects.
    ///
    /// # Errors
    /// Returns the errors of [`with_config`](Self::with_config).
    pub fn new(world: World, watch: &str) -> Result<Self> {
        Self::with_config(world, world.model(), watch)
    }

    /// Creates a model with a different configuration, to check that the comparison detects the
    /// difference.
    ///
    /// # Errors
    /// Returns [`vgic::ConfigError`] if the model rejects the configuration.
    pub fn with_config(world: World, config: VgicConfig, watch: &str) -> Result<Self> {
        let machine = Qtest::with_config(config.clone())?;
        Ok(Self { world, config, machine, watch: watch.to_owned(), asserted: Asserted::default() })
    }

    fn follow(&mut self, changes: &[IrqChange]) {
        for change in changes {
            self.asserted.follow(&change.to_string());
        }
    }
}

impl Peer for Model {
    fn reset(&mut self) -> Result<()> {
        self.machine = Qtest::with_config(self.config.clone())?;
        self.asserted = Asserted::default();
        self.machine.answer(&self.watch);
        for cpu in 0..CPUS {
            let vcpu = self.machine.vcpu(cpu.into()).context("the model does not have this CPU")?;
            acknowledge::listen(vcpu, self.world)?;
        }
        Ok(())
    }

    fn replies(&mut self, lines: &mut dyn Iterator<Item = &str>) -> Result<Vec<Reply>> {
        let answers = lines.map(|line| {
            let answer = self.machine.answer(line);
            self.follow(&answer.irqs);
            Reply { text: answer.reply.to_string(), asserted: self.asserted }
        });
        Ok(answers.collect())
    }

    fn acknowledge(&mut self, cpus: Range<u16>) -> Result<Vec<Vec<Acknowledged>>> {
        let acknowledged = cpus.map(|cpu| {
            let vcpu = self.machine.vcpu(cpu.into()).context("the model does not have this CPU")?;
            acknowledge::acknowledge(vcpu, self.world)
        });
        let acknowledged = acknowledged.collect::<Result<_>>()?;
        let changes = self.machine.irq_changes();
        self.follow(&changes);
        Ok(acknowledged)
    }

    fn asserted(&self) -> Asserted {
        self.asserted
    }

    fn watch(&self) -> &str {
        &self.watch
    }
}
