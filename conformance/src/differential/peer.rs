//! The two machines.

use super::acknowledge::{self, Acknowledged};
use super::places::CPUS;
use anyhow::{Context as _, Result};
use doorbell_machine::qtest::{Qtest, virt};
use vgic::VgicConfig;

/// A machine that speaks the protocol.
pub trait Peer {
    /// Resets everything, and zeroes the memory that cases use.
    ///
    /// # Errors
    /// The machine is not there any more.
    fn reset(&mut self) -> Result<()>;

    /// The reply to each line, in order.
    ///
    /// # Errors
    /// The machine is not there any more.
    fn replies(&mut self, lines: &mut dyn Iterator<Item = &str>) -> Result<Vec<String>>;

    /// Lets a CPU acknowledge what is pending, until nothing is.
    ///
    /// # Errors
    /// The machine is not there any more, or its CPUs do not run.
    fn acknowledge(&mut self, cpu: u16) -> Result<Vec<Acknowledged>>;
}

/// Of the CPU interface of QEMU's Cortex-A57.
pub(super) const PRIORITY_BITS: u8 = 5;

/// Doorbell's model, in this process.
#[derive(Debug)]
pub struct Model {
    config: VgicConfig,
    machine: Qtest,
}

impl Model {
    /// The model as `doorbell qtest` has it.
    ///
    /// # Errors
    /// As [`with_config`](Self::with_config).
    pub fn new() -> Result<Self> {
        Self::with_config(virt(CPUS))
    }

    /// The model with the priority bits that the CPU interface of QEMU's Cortex-A57 has.
    ///
    /// # Errors
    /// As [`with_config`](Self::with_config).
    pub fn with_cpus() -> Result<Self> {
        Self::with_config(VgicConfig { priority_bits: PRIORITY_BITS, ..virt(CPUS) })
    }

    /// Another model: to see that a difference is found.
    ///
    /// # Errors
    /// [`vgic::ConfigError`].
    pub fn with_config(config: VgicConfig) -> Result<Self> {
        Ok(Self { machine: Qtest::with_config(config.clone())?, config })
    }
}

impl Peer for Model {
    fn reset(&mut self) -> Result<()> {
        self.machine = Qtest::with_config(self.config.clone())?;
        Ok(())
    }

    fn replies(&mut self, lines: &mut dyn Iterator<Item = &str>) -> Result<Vec<String>> {
        Ok(lines.map(|line| self.machine.answer(line).to_string().trim_end().to_owned()).collect())
    }

    fn acknowledge(&mut self, cpu: u16) -> Result<Vec<Acknowledged>> {
        acknowledge::acknowledge(self.machine.vcpu(cpu.into()).context("the model has no such CPU")?)
    }
}
