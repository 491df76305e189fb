//! The guest's kernel, as seen by the guest end of the bus.

use crate::platform::MachinePlatform;
use hyperv_vpci::guest::{Kernel, Wait};
use msi_types::{Cpu, IrqState, LocalCpu, TaskContext};
use std::sync::Arc;

/// Maximum number of iterations of a guest's wait. The host replies during the first one. A kernel
/// whose host may be hostile must look at its clock instead.
const PATIENCE: u32 = 8;

/// Runs the host while a guest waits for it.
pub(super) trait Answers: Send + Sync {
    /// Lets the host run in iteration `turn` of this wait.
    fn answer(&self, turn: u32);
}

/// The machine's kernel. While the kernel waits, the host and other tasks run.
pub(super) struct GuestKernel {
    pub(super) platform: Arc<MachinePlatform>,
    pub(super) host: Arc<dyn Answers>,
    /// Exclusive upper bound on VP indices.
    pub(super) processors: u16,
}

impl LocalCpu for GuestKernel {
    fn irq_save(&self) -> IrqState {
        LocalCpu::irq_save(&*self.platform)
    }

    fn irq_restore(&self, state: IrqState) {
        LocalCpu::irq_restore(&*self.platform, state);
    }

    fn relax(&self) {
        LocalCpu::relax(&*self.platform);
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl TaskContext for GuestKernel {
    fn may_wait(&self) -> bool {
        self.platform.may_wait()
    }
}

impl Kernel for GuestKernel {
    /// Returns a constant, because tasks in this kernel don't sleep: each iteration of a wait lets
    /// the host run.
    fn wake_ups(&self) -> u32 {
        0
    }

    fn wake(&self) {}

    fn wait(&self, _: u32, turn: u32) -> Wait {
        self.relax();
        self.host.answer(turn);
        if turn < PATIENCE { Wait::Again } else { Wait::GiveUp }
    }

    fn processor(&self, cpu: Cpu) -> Option<u16> {
        u16::try_from(cpu.get()).ok().filter(|index| *index < self.processors)
    }
}
