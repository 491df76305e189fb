//! One interrupt: its numbers, its counters, and what its level of the hierarchy offers.

use crate::irq::{Flow, Irq, IrqContext, Verdict};
use crate::lock::{IrqLock, TaskLock};
use crate::msi_device::Domain;
use crate::name::Name;
use crate::sync::Shared;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use doorbell_fallible::try_collect;
use msi_types::{Cpu, HwIrq, Pending, WiredParent};

/// A handler, as dispatch calls it.
pub(crate) type Handler = Shared<dyn Fn(&IrqContext<'_>) -> Verdict + Send + Sync>;

/// Value of a gate.
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
    pub(crate) not_mine: NotMine,
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
    pub(crate) open: bool,
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
            control: IrqLock::new(Control { open: new.open, ..Control::default() }),
            name: TaskLock::new(None),
            wanted: TaskLock::new(None),
            redelivered: AtomicU64::new(0),
            counts: Counts::new(new.cpus, spacing)?,
            not_mine: NotMine::default(),
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
}

/// Control state of an interrupt, which tasks and handlers change.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) handler: Presence,
    /// Number of disables without an enable yet. The interrupt is masked at its source while this
    /// is not 0.
    pub(crate) disables: u32,
    /// The source was never masked so far: its first handler has nothing to unmask.
    pub(crate) open: bool,
    /// The endpoint is masked while its message is rewritten, and unmasked afterwards.
    pub(crate) moving: bool,
    /// An arrival to be sent again when that is done.
    pub(crate) resend: bool,
    /// Closed gates whose handler is not freed yet.
    pub(crate) closing: u32,
    /// The interrupt is managed, and none of its CPUs is on line: one of
    /// [`disables`](Self::disables) is for that.
    pub(crate) shut_down: bool,
}

impl Control {
    /// A handler was installed, disabled.
    pub(crate) fn begin_handler(&mut self) {
        self.handler = Presence::Installed;
        self.disables = 1 + u32::from(self.shut_down);
        self.resend = false;
    }

    /// The handler goes.
    pub(crate) fn end_handler(&mut self, after: Presence) {
        self.handler = after;
        self.disables = 1 + u32::from(self.shut_down);
        self.resend = false;
    }
}

impl Default for Control {
    fn default() -> Self {
        Self {
            handler: Presence::Vacant,
            disables: 1,
            open: false,
            moving: false,
            resend: false,
            closing: 0,
            shut_down: false,
        }
    }
}

/// Has the interrupt a handler?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presence {
    Vacant,
    /// Yes, and there is a handle for it: the next handler comes after that was dropped.
    Installed,
    /// The interrupt itself is being given back; a handle may outlive it.
    Gone,
}

/// The level directly below the core.
pub(crate) enum Source {
    /// A slot of a device's domain.
    Msi { domain: Shared<Domain>, slot: u16 },
    /// An input of the root controller.
    Wired(Arc<dyn WiredParent>),
    /// A private interrupt; masked and sent on the calling CPU.
    PerCpu(Arc<dyn WiredParent>),
}

impl Source {
    /// Any.
    fn mask(&self, hwirq: HwIrq) {
        match self {
            Self::Msi { domain, slot } => domain.mask(*slot, hwirq),
            Self::Wired(parent) | Self::PerCpu(parent) => parent.mask(hwirq),
        }
    }

    /// Any.
    fn unmask(&self, hwirq: HwIrq) {
        match self {
            Self::Msi { domain, slot } => domain.unmask(*slot, hwirq),
            Self::Wired(parent) | Self::PerCpu(parent) => parent.unmask(hwirq),
        }
    }

    /// Any.
    pub(crate) fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        match self {
            Self::Msi { domain, .. } => domain.parent().set_pending(hwirq, pending),
            Self::Wired(parent) | Self::PerCpu(parent) => parent.set_pending(hwirq, pending),
        }
    }

    /// Any.
    pub(crate) fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        match self {
            Self::Msi { domain, slot } => domain.is_pending(*slot, hwirq),
            Self::Wired(parent) | Self::PerCpu(parent) => Some(parent.is_pending(hwirq)),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Msi { domain, slot } => write!(f, "Msi({} slot {slot})", domain.name),
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

/// Runs per CPU. A counter is written only by its CPU, within the exclusion of the gate; so without
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
const MOST_NOT_MINE: u64 = 99_900;

/// Runs that found nothing to do. Written within the exclusion of the gate (or approximately, for
/// private interrupts); so without atomic additions.
#[derive(Debug, Default)]
pub(crate) struct NotMine {
    total: AtomicU64,
    /// Since the window began.
    recent: AtomicU64,
    /// Runs when it began.
    start: AtomicU64,
}

impl NotMine {
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// One more. True if the interrupt screams.
    pub(crate) fn count(&self, counts: &Counts) -> bool {
        self.total.store(self.total() + 1, Ordering::Relaxed);
        let recent = self.recent.load(Ordering::Relaxed) + 1;
        self.recent.store(recent, Ordering::Relaxed);
        if recent <= MOST_NOT_MINE {
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
