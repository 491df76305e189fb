//! One interrupt: its numbers, its counters, and what its level of the hierarchy offers.

use crate::control::Control;
use crate::error::MoveError;
use crate::host::Host;
use crate::irq::{Flow, Irq, IrqContext, IrqReturn};
use crate::lock::{IrqLock, TaskLock};
use crate::name::Name;
use crate::runtime::Runtime;
use crate::shared::Shared;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use doorbell_fallible::try_collect;
use msi_types::{Cpu, HwIrq, Pending, WiredParent};

/// A handler, as dispatch calls it.
pub(crate) type Handler = Shared<dyn Fn(&IrqContext<'_>) -> IrqReturn + Send + Sync>;

impl Handler {
    /// Moves a handler to the heap. Task.
    ///
    /// # Errors
    /// The allocator has no memory for it. The handler is dropped.
    pub(crate) fn try_handler<R: Into<IrqReturn>>(
        run: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<Self, TryReserveError> {
        Self::try_unsized(move |context: &IrqContext<'_>| run(context).into(), |block| block)
    }
}

/// Value of a handler cell.
pub(crate) struct Action {
    pub(crate) handler: Handler,
    pub(crate) descriptor: Shared<Descriptor>,
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Action").field("irq", &self.descriptor.irq).finish_non_exhaustive()
    }
}

/// One interrupt.
#[derive(Debug)]
pub(crate) struct Descriptor {
    pub(crate) irq: Irq,
    pub(crate) hwirq: HwIrq,
    pub(crate) flow: Flow,
    pub(crate) source: Source,
    /// The only CPUs that it is delivered to, if it is managed.
    pub(crate) among: Option<Vec<Cpu>>,
    pub(crate) control: IrqLock<Control>,
    pub(crate) name: TaskLock<Option<Name>>,
    /// The CPUs that the kernel wants it delivered to; `None` for any.
    pub(crate) wanted: TaskLock<Option<Vec<Cpu>>>,
    pub(crate) redelivered: AtomicU64,
    pub(crate) counts: Counts,
    pub(crate) unhandled: UnhandledRuns,
    target: AtomicU32,
}

/// Parameters of a new descriptor.
pub(crate) struct NewDescriptor {
    pub(crate) irq: Irq,
    pub(crate) hwirq: HwIrq,
    pub(crate) flow: Flow,
    pub(crate) source: Source,
    pub(crate) target: Cpu,
    pub(crate) among: Option<Vec<Cpu>>,
    pub(crate) cpus: usize,
    /// Does its source let it through before it has a handler?
    pub(crate) unmasked: bool,
}

impl Descriptor {
    pub(crate) fn new(new: NewDescriptor) -> Result<Self, TryReserveError> {
        let spacing = if new.flow == Flow::PerCpu { Spacing::OwnLines } else { Spacing::Dense };
        Ok(Self {
            irq: new.irq,
            hwirq: new.hwirq,
            flow: new.flow,
            source: new.source,
            among: new.among,
            control: IrqLock::new(Control::new(new.unmasked)),
            name: TaskLock::new(None),
            wanted: TaskLock::new(None),
            redelivered: AtomicU64::new(0),
            counts: Counts::new(new.cpus, spacing)?,
            unhandled: UnhandledRuns::default(),
            target: AtomicU32::new(new.target.get()),
        })
    }

    /// The CPU that it is delivered to; without meaning for a private interrupt. Any.
    pub(crate) fn target(&self) -> Cpu {
        Cpu::new(self.target.load(Ordering::Relaxed))
    }

    /// Under the lock of the source.
    pub(crate) fn set_target(&self, cpu: Cpu) {
        self.target.store(cpu.get(), Ordering::Relaxed);
    }

    pub(crate) fn mask(&self) {
        self.source.mask(self.hwirq);
    }

    pub(crate) fn unmask(&self) {
        self.source.unmask(self.hwirq);
    }

    /// Sends an arrival again, to the current target. Any.
    #[cold]
    pub(crate) fn redeliver(&self, runtime: &Runtime) {
        self.redelivered.fetch_add(1, Ordering::Relaxed);
        runtime.count_redelivery();
        self.source.set_pending(self.hwirq, Pending::Set);
    }

    /// Masks the endpoint for the rewriting of its message. Task, under the device's lock.
    pub(crate) fn begin_rewrite(&self, host: &dyn Host) {
        let mut control = self.control.lock(host);
        control.begin_rewrite();
        self.mask();
    }

    /// Gives the endpoint the state that was asked for during the rewriting. Task, under the
    /// device's lock.
    pub(crate) fn end_rewrite(&self, runtime: &Runtime) {
        let mut control = self.control.lock(runtime.host());
        if control.end_rewrite() {
            self.unmask();
            if control.take_resend() {
                self.redeliver(runtime);
            }
        }
    }
}

/// The level directly below the core.
pub(crate) enum Source {
    /// A vector of a device.
    Device(Shared<dyn IrqSource>),
    /// An input of the root controller.
    Wired(Arc<dyn WiredParent>),
    /// A private interrupt; masked and sent on the calling CPU.
    PerCpu(Arc<dyn WiredParent>),
}

/// A source of interrupts with a message of its own: a vector of a device. Any context, unless a
/// function says otherwise.
pub(crate) trait IrqSource: Send + Sync {
    fn mask(&self, hwirq: HwIrq);
    fn unmask(&self, hwirq: HwIrq);
    fn set_pending(&self, hwirq: HwIrq, pending: Pending);
    fn is_pending(&self, hwirq: HwIrq) -> Option<bool>;

    /// The name of the device's domain, and the slot in its message store.
    fn slot(&self) -> (&Name, u16);

    /// Moves the interrupt, and its group where that moves as one; lists the interrupts that moved
    /// if the caller wants to know. Task.
    fn relocate(
        &self,
        runtime: &Runtime,
        descriptor: &Descriptor,
        to: Cpu,
        list: Option<&mut Vec<Irq>>,
    ) -> Result<(), MoveError>;

    /// The target once no move is under way. Task.
    fn settled_target(&self, host: &dyn Host, descriptor: &Descriptor) -> Cpu;

    /// Writes the levels from the device to the root. Task.
    fn describe(&self, host: &dyn Host, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result;
}

impl Source {
    /// Any.
    fn mask(&self, hwirq: HwIrq) {
        match self {
            Self::Device(source) => source.mask(hwirq),
            Self::Wired(parent) | Self::PerCpu(parent) => parent.mask(hwirq),
        }
    }

    /// Any.
    fn unmask(&self, hwirq: HwIrq) {
        match self {
            Self::Device(source) => source.unmask(hwirq),
            Self::Wired(parent) | Self::PerCpu(parent) => parent.unmask(hwirq),
        }
    }

    /// Any.
    pub(crate) fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        match self {
            Self::Device(source) => source.set_pending(hwirq, pending),
            Self::Wired(parent) | Self::PerCpu(parent) => parent.set_pending(hwirq, pending),
        }
    }

    /// Any.
    pub(crate) fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        match self {
            Self::Device(source) => source.is_pending(hwirq),
            Self::Wired(parent) | Self::PerCpu(parent) => Some(parent.is_pending(hwirq)),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(source) => {
                let (name, slot) = source.slot();
                write!(f, "Device({name} slot {slot})")
            }
            Self::Wired(_) => f.write_str("Wired"),
            Self::PerCpu(_) => f.write_str("PerCpu"),
        }
    }
}

/// Layout of the counters of several CPUs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spacing {
    /// Side by side: one CPU counts at a time.
    Dense,
    /// On lines of their own: all CPUs count at once.
    OwnLines,
}

/// Runs per CPU. A counter is written only by its CPU, within the exclusion of the cell; so without
/// atomic additions.
#[derive(Debug)]
pub(crate) struct Counts {
    cells: Vec<AtomicU64>,
    shift: u32,
}

impl Counts {
    fn new(cpus: usize, spacing: Spacing) -> Result<Self, TryReserveError> {
        let shift = if spacing == Spacing::OwnLines { 3 } else { 0 };
        Ok(Self { cells: try_collect((0..cpus << shift).map(|_| AtomicU64::new(0)))?, shift })
    }

    #[inline]
    pub(crate) fn count(&self, cpu: Cpu) {
        if let Some(cell) = self.cells.get(cpu.index() << self.shift) {
            cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// Runs by CPU.
    pub(crate) fn per_cpu(&self) -> impl Iterator<Item = u64> {
        self.cells.iter().step_by(1 << self.shift).map(|cell| cell.load(Ordering::Relaxed))
    }
}

/// Runs of which so many find nothing to do make an interrupt a screaming one: 99 900 of 100 000,
/// the numbers by which Linux shuts a line off (kernel/irq/spurious.c).
const WINDOW: u64 = 100_000;
const MOST_UNHANDLED: u64 = 99_900;

/// Runs that found nothing to do. Written within the exclusion of the cell (or approximately, for
/// private interrupts); so without atomic additions.
#[derive(Debug, Default)]
pub(crate) struct UnhandledRuns {
    total: AtomicU64,
    /// Since the window began.
    recent: AtomicU64,
    /// Runs when it began.
    start: AtomicU64,
}

impl UnhandledRuns {
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// One more. True if the interrupt screams.
    pub(crate) fn count(&self, counts: &Counts) -> bool {
        self.total.store(self.total() + 1, Ordering::Relaxed);
        let recent = self.recent.load(Ordering::Relaxed) + 1;
        self.recent.store(recent, Ordering::Relaxed);
        if recent <= MOST_UNHANDLED {
            return false;
        }
        let runs: u64 = counts.per_cpu().sum();
        let in_window = runs.saturating_sub(self.start.swap(runs, Ordering::Relaxed)) <= WINDOW;
        self.recent.store(0, Ordering::Relaxed);
        in_window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_by_cpu_in_either_spacing() {
        for spacing in [Spacing::Dense, Spacing::OwnLines] {
            let counts = Counts::new(3, spacing).unwrap();
            for cpu in [0, 2, 2] {
                counts.count(Cpu::new(cpu));
            }
            assert_eq!(counts.per_cpu().collect::<Vec<_>>(), [1, 0, 2]);
        }
    }
}
