//! `el2/microbench` as the guest: what its operations cost, and the record of its exits.

use std::process::Command;

use anyhow::Result;

use super::controller::Controller;
use super::costs::Costs;
use super::files::{Files, GUEST_RAM};
use super::{Board, LIMIT, Machine, Record, costs, record};
use crate::dtb::Tools;
use crate::process;
use crate::qemu::{self, Version};
use crate::step::Tally;
use crate::workspace::Workspace;
use doorbell_harness::image::Image;

/// The QEMU that counts the instructions of several CPUs.
pub(super) const VERSION: Version = Version::Backports;
pub(super) const COUNTED: &[&str] =
    &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"];
/// CPUs of the machine: one for each of the guest's vCPUs, or one that they share.
pub(super) const EACH: u8 = VCPUS;
pub(super) const SHARED: u8 = 1;
const VCPUS: u8 = 2;
const MEMORY: u32 = 64;

/// The guest, and what runs it.
pub(super) struct Microbench<'a> {
    hypervisor: &'a Image,
    pub(super) guest: Image,
    pub(super) tools: Tools,
}

/// Costs and records.
pub(super) fn run(workspace: &Workspace, hypervisor: &Image, tally: &mut Tally) -> Result<()> {
    let tools = match qemu::fetch(workspace, VERSION) {
        Ok(tools) => tools,
        Err(absent) => {
            tally.skip(format!("what a guest's operations cost, and its exits: {absent:#}"));
            return Ok(());
        }
    };
    let microbench = Microbench::build(workspace, hypervisor, tools)?;
    costs::run(&microbench, tally)?;
    record::run(&microbench, tally)
}

impl<'a> Microbench<'a> {
    pub(super) fn build(
        workspace: &Workspace,
        hypervisor: &'a Image,
        tools: Tools,
    ) -> Result<Self> {
        let guest = Image::build_at(workspace, "microbench", "microbench", GUEST_RAM)?;
        Ok(Self { hypervisor, guest, tools })
    }
}

impl Microbench<'_> {
    /// Costs of the guest's operations. Their exits are those of a run that is traced.
    pub(super) fn costs(&self, cpus: u8) -> Result<Costs> {
        let traced = self.watch(cpus, Record { trace: true, stats: false })?;
        Ok(self.watch(cpus, Record::default())?.with_exits_of(traced))
    }

    /// Runs the guest.
    pub(super) fn watch(&self, cpus: u8, record: Record) -> Result<Costs> {
        let mut costs = Costs::default();
        process::watch(&mut self.command(cpus, record, None)?, LIMIT, |line| costs.line(line))?;
        Ok(costs)
    }

    /// QEMU that counts time in instructions, with the guest, which is moved every so many
    /// milliseconds.
    pub(super) fn command(
        &self,
        cpus: u8,
        record: Record,
        move_every: Option<u32>,
    ) -> Result<Command> {
        let board = Board {
            machine: Machine::default(),
            tools: &self.tools,
            image: self.hypervisor,
            vcpus: VCPUS,
            cpus,
            memory: MEMORY,
            controller: Controller::Its,
            devices: &[costs::DEVICE.to_owned()],
            trusted: false,
            move_every,
            record,
        };
        let files = Files { kernel: &self.guest.flat, initrd: None, append: "" };
        let mut qemu = board.command(&[files])?;
        qemu.args(COUNTED);
        Ok(qemu)
    }
}
