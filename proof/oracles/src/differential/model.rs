//! Doorbell's model as one of the two machines.

use super::acknowledge::{self, Acknowledged};
use super::address_map::CPUS;
use super::fault::Fault;
use super::peer::{Asserted, Peer, PeerReply};
use super::world::World;
use crate::qtest::{IrqChange, Qtest};
use anyhow::{Context as _, Result};
use std::ops::Range;
use vgic::VgicConfig;

/// Doorbell's model, running in this process.
#[derive(Debug)]
pub struct Model {
    world: World,
    config: VgicConfig,
    fault: Option<Fault>,
    machine: Qtest,
    watch: String,
    asserted: Asserted,
}

impl Model {
    /// Creates a world's model. The model reports changes of the inputs that the protocol line
    /// `watch` selects.
    ///
    /// # Errors
    /// Returns [`vgic::ConfigError`] if the model rejects the configuration.
    pub fn new(world: World, watch: &str) -> Result<Self> {
        Self::with(world, None, watch)
    }

    /// Creates a model in which a fault has been planted.
    pub(super) fn with(world: World, fault: Option<Fault>, watch: &str) -> Result<Self> {
        let mut config = world.model();
        if let Some(Fault::Built(change)) = fault {
            change(&mut config);
        }
        let (machine, watch) = (Qtest::with_config(config.clone())?, watch.to_owned());
        Ok(Self { world, config, fault, machine, watch, asserted: Asserted::default() })
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

    fn replies(&mut self, lines: &mut dyn Iterator<Item = &str>) -> Result<Vec<PeerReply>> {
        let answers = lines.map(|line| {
            let other = self.fault.and_then(|fault| fault.understood(line));
            let answer = self.machine.answer(other.as_deref().unwrap_or(line));
            self.follow(&answer.irqs);
            PeerReply { text: answer.reply.to_string(), asserted: self.asserted() }
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
        self.fault.map_or(self.asserted, |fault| fault.shown(self.asserted))
    }

    fn watch(&self) -> &str {
        &self.watch
    }
}
