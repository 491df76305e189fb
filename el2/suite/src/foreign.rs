//! Runs other projects' kernels as guests. A kernel is an image, the machines that it runs on, and
//! a judge of its output.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use doorbell_harness::qemu::Version;
use doorbell_harness::suite::Case;

use crate::board::{Board, Controller};
use crate::built;
use crate::files::Files;

/// Interval between moves, in milliseconds.
const MOVE_EVERY: u32 = 50;

/// A controller, and numbers of vCPUs and of CPUs.
type On = (Controller, u8, u8);

/// Another project's kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    pub(crate) image: fn() -> Result<&'static Path>,
    /// Guest memory in MiB.
    pub(crate) memory: u32,
    pub(crate) devices: &'static [&'static str],
    /// Time limit of a run, which must suffice on a busy machine.
    pub(crate) limit: Duration,
    /// Machines of the ordinary cases, and of those that take longer.
    pub(crate) machines: &'static [On],
    pub(crate) long_machines: &'static [On],
    /// Runs the kernel, and checks the results.
    pub(crate) judge: fn(KernelCase) -> Result<()>,
}

/// A machine whose only guest runs a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelCase {
    pub(crate) kernel: &'static Kernel,
    pub(crate) controller: Controller,
    pub(crate) vcpus: u8,
    pub(crate) cpus: u8,
}

/// Lists the cases of a kernel on these machines.
pub(crate) fn cases(
    kernel: &'static Kernel,
    machines: &'static [On],
) -> impl Iterator<Item = Case> {
    machines.iter().map(move |&(controller, vcpus, cpus)| {
        let case = KernelCase { kernel, controller, vcpus, cpus };
        built::case(case.name(), kernel.limit, move || (kernel.judge)(case))
    })
}

impl KernelCase {
    pub(crate) fn name(self) -> String {
        let Self { kernel: Kernel { name, .. }, controller, vcpus, cpus } = self;
        format!("{name} on {vcpus} vCPUs of {cpus} CPUs with {controller:?}, moved")
    }

    pub(crate) fn command(self) -> Result<Command> {
        let Self { kernel, controller, vcpus, cpus } = self;
        let board = Board {
            vcpus,
            cpus,
            controller,
            devices: kernel.devices,
            move_every: Some(MOVE_EVERY),
            stats: true,
            ..Board::plain(Version::Stable, kernel.memory)
        };
        board.command(&[Files::alone((kernel.image)()?, "")])
    }
}
