//! The guest's kernel, as the guest end of the bus uses it.

use crate::platform::MachinePlatform;
use hyperv_vpci::guest::{Kernel, Wait};
use msi_types::{Cpu, IrqState, LocalCpu, TaskContext};
use std::sync::Arc;

/// Maximum number of turns of a guest's wait. The host answers in the first.
const PATIENCE: u32 = 8;

/// The host, while a guest waits for it.
pub(super) trait Answers: Send + Sync {
    /// Lets the host run for the `turn`th time in this wait.
    fn answer(&self, turn: u32);
}

/// The machine's kernel, whose waits let the host and others run.
pub(super) struct GuestKernel {
    pub(super) platform: Arc<MachinePlatform>,
    pub(super) host: Arc<dyn Answers>,
    /// VP indices must be less than this number.
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
    /// Returns a constant, because the tasks of this kernel do not sleep: each turn of a wait lets
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
