//! A single interrupt (its numbers, control state and counters, and the source below it), and the
//! dispatch table: a radix table from hwirqs to handler cells. Each part of the table is allocated
//! when a vector in it is first requested. Parts are never moved or freed, so dispatch can walk the
//! table without a lock.

use super::handler_cell::HandlerCell;
use crate::error::MoveError;
use crate::irq::control::Control;
use crate::irq::handler::{Flow, Handler};
use crate::irq::shared_line::SharedLine;
use crate::name::{Irq, Name};
use crate::runtime::{Host, Runtime};
use alloc::boxed::Box;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU16;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use doorbell_fallible::lock::{IrqLock, TaskLock};
use doorbell_fallible::{OnceBox, Shared, try_box, try_box_array, try_collect};
use msi_types::explain::{Explanation, Fact};
use msi_types::{Cpu, HwIrq, Pending, RequesterId, WiredParent};

/// The contents of a handler cell: a handler and its interrupt.
pub(crate) struct Action {
    pub(crate) handler: Handler,
    pub(crate) descriptor: Shared<Descriptor>,
}

msi_types::debug_by!(Action as "Action", |it| {irq: it.descriptor.irq});

/// One interrupt.
#[derive(Debug)]
pub(crate) struct Descriptor {
    pub(crate) irq: Irq,
    pub(crate) hwirq: HwIrq,
    pub(crate) flow: Flow,
    pub(crate) source: Source,
    /// The CPUs to which a managed interrupt is confined, or `None` if it is not managed.
    pub(crate) among: Option<Vec<Cpu>>,
    pub(crate) control: IrqLock<Control>,
    pub(crate) name: TaskLock<Option<Name>>,
    pub(crate) redelivered: AtomicU64,
    pub(crate) counts: Counts,
    pub(crate) unhandled: UnhandledRuns,
    target: Target,
}

/// Where an interrupt's target CPU is recorded.
#[derive(Debug)]
pub(crate) enum Target {
    /// The interrupt has a target of its own.
    Own(AtomicU32),
    /// The vector of a chained controller has the target of its line.
    Line(Shared<Descriptor>),
}

impl Target {
    pub(crate) fn own(cpu: Cpu) -> Self {
        Self::Own(AtomicU32::new(cpu.get()))
    }
}

/// Parameters of a new descriptor.
pub(crate) struct NewDescriptor {
    pub(crate) irq: Irq,
    pub(crate) hwirq: HwIrq,
    pub(crate) flow: Flow,
    pub(crate) source: Source,
    pub(crate) target: Target,
    pub(crate) among: Option<Vec<Cpu>>,
    pub(crate) cpus: usize,
    /// `true` if the source is left unmasked before the interrupt has a handler.
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
            redelivered: AtomicU64::new(0),
            counts: Counts::new(new.cpus, spacing)?,
            unhandled: UnhandledRuns::default(),
            target: new.target,
        })
    }

    /// Returns the interrupt's target CPU. Meaningless for a private interrupt.
    ///
    /// Context: any.
    pub(crate) fn target(&self) -> Cpu {
        match &self.target {
            Target::Own(cpu) => Cpu::new(cpu.load(Ordering::SeqCst)),
            Target::Line(line) => line.target(),
        }
    }

    /// Returns the line that signals the interrupt, for a vector of a chained controller.
    ///
    /// Context: any.
    pub(crate) fn line(&self) -> Option<&Self> {
        match &self.target {
            Target::Own(_) => None,
            Target::Line(line) => Some(line),
        }
    }

    /// Returns the shared line, if the interrupt can have several handlers.
    ///
    /// Context: any.
    pub(crate) fn shared_line(&self) -> Option<&SharedLine> {
        match &self.source {
            Source::Wired(input) => input.shared.as_deref(),
            Source::Device(_) | Source::PerCpu(_) => None,
        }
    }

    /// Returns the names of the interrupt's handlers. If the interrupt has no handler, returns the
    /// name of the last one.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub(crate) fn name(&self, host: &dyn Host) -> Result<Option<Name>, TryReserveError> {
        let Some(line) = self.shared_line() else { return Ok(self.name.lock(host).clone()) };
        Name::try_written(|out| line.write_names(host, out)).map(Some)
    }

    /// Sets the target. The caller must hold the source's lock.
    pub(crate) fn set_target(&self, cpu: Cpu) {
        if let Target::Own(target) = &self.target {
            target.store(cpu.get(), Ordering::SeqCst);
        }
    }

    /// Moves the interrupt. Returns `false` if it already was there. If the caller passes a list,
    /// adds all other interrupts that moved to it; otherwise, does not allocate.
    ///
    /// Context: task; may sleep.
    pub(crate) fn relocate(
        &self,
        runtime: &Runtime,
        to: Cpu,
        others: Option<&mut Vec<Irq>>,
    ) -> Result<bool, MoveError> {
        if let Some(line) = self.line() {
            return Err(MoveError::SharesLine(line.irq));
        }
        match &self.source {
            Source::Device(source) => source.relocate(runtime, self, to, others),
            Source::Wired(input) => input.relocate(runtime, self, to),
            Source::PerCpu(_) => Err(MoveError::PerCpu(self.irq)),
        }
    }

    /// Waits for a move in progress to end and returns the target, or `None` for a private
    /// interrupt. A move checks under the same lock that its target CPU is online. If a CPU was
    /// marked offline before this call, no later move can select that CPU.
    ///
    /// Context: task; may sleep.
    pub(crate) fn settled_target(&self, host: &dyn Host) -> Option<Cpu> {
        if let Some(line) = self.line() {
            return line.settled_target(host);
        }
        match &self.source {
            Source::Device(source) => Some(source.settled_target(host, self)),
            Source::Wired(input) => Some(input.settled_target(host, self)),
            Source::PerCpu(_) => None,
        }
    }

    pub(crate) fn mask(&self) {
        self.source.mask(self.hwirq);
    }

    pub(crate) fn unmask(&self) {
        self.source.unmask(self.hwirq);
    }

    /// Sends the interrupt again, to its present target.
    ///
    /// Context: any.
    #[cold]
    pub(crate) fn redeliver(&self, runtime: &Runtime) {
        self.redelivered.fetch_add(1, Ordering::SeqCst);
        runtime.count_redelivery();
        self.source.set_pending(self.hwirq, Pending::Set);
    }

    /// Masks the endpoint before its message is rewritten. The caller must hold the device's lock.
    ///
    /// Context: task; may sleep.
    pub(crate) fn begin_rewrite(&self, host: &dyn Host) {
        let mut control = self.control.lock(host);
        control.begin_rewrite();
        self.mask();
    }

    /// Applies changes that were requested while the endpoint's message was rewritten. The caller
    /// must hold the device's lock.
    ///
    /// Context: task; may sleep.
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

/// Interrupt source: the level directly below the core.
pub(crate) enum Source {
    /// A device's vector.
    Device(Shared<dyn IrqSource>),
    /// An input of a controller that has wired inputs.
    Wired(WiredInput),
    /// A private interrupt. Operations that mask it or make it pending only affect the calling CPU.
    PerCpu(Arc<dyn WiredParent>),
}

/// An interrupt source that has its own message: a device's vector. Functions have the following
/// context unless they state a different one.
///
/// Context: any.
pub(crate) trait IrqSource: Send + Sync {
    fn mask(&self, hwirq: HwIrq);
    fn unmask(&self, hwirq: HwIrq);
    fn set_pending(&self, hwirq: HwIrq, pending: Pending);
    fn is_pending(&self, hwirq: HwIrq) -> Option<bool>;

    /// Returns the name of the device's domain, its requester ID, and the slot in the message
    /// store.
    fn slot(&self) -> (&Name, RequesterId, u16);

    /// Moves the interrupt, or its whole group if the group cannot be split. Returns `false` if it
    /// already was there. If the caller passes a list, adds the group's other interrupts to it.
    ///
    /// Context: task; may sleep.
    fn relocate(
        &self,
        runtime: &Runtime,
        descriptor: &Descriptor,
        to: Cpu,
        others: Option<&mut Vec<Irq>>,
    ) -> Result<bool, MoveError>;

    /// Waits for a move in progress to end and returns the target.
    ///
    /// Context: task; may sleep.
    fn settled_target(&self, host: &dyn Host, descriptor: &Descriptor) -> Cpu;

    /// Explains the stages from the device to the target CPU.
    ///
    /// Context: task; may sleep.
    fn explain(&self, host: &dyn Host, hwirq: HwIrq) -> Explanation;

    /// Writes the levels from the device to the root.
    ///
    /// Context: task; may sleep.
    fn describe(&self, host: &dyn Host, hwirq: HwIrq, out: &mut dyn fmt::Write) -> fmt::Result;
}

/// A claimed input at a controller with wired inputs.
pub(crate) struct WiredInput {
    parent: Arc<dyn WiredParent>,
    /// The input's handlers, if it can have several.
    shared: Option<Shared<SharedLine>>,
    /// Lock that is held while the input's target changes, and while the input is released.
    target: TaskLock<()>,
}

impl WiredInput {
    pub(crate) const fn new(
        parent: Arc<dyn WiredParent>,
        shared: Option<Shared<SharedLine>>,
    ) -> Self {
        Self { parent, shared, target: TaskLock::new(()) }
    }

    /// Returns `true` if this is an input of `parent` that can have several handlers.
    pub(crate) fn is_shared_at(&self, parent: &Arc<dyn WiredParent>) -> bool {
        self.shared.is_some() && Arc::ptr_eq(&self.parent, parent)
    }

    /// Moves the input. Returns `false` if it already was there.
    ///
    /// Context: task; may sleep.
    fn relocate(
        &self,
        runtime: &Runtime,
        descriptor: &Descriptor,
        to: Cpu,
    ) -> Result<bool, MoveError> {
        let _target = self.target.lock(runtime.host());
        // The input is released under this lock, once its handler has been removed.
        if !descriptor.control.lock(runtime.host()).is_installed() {
            return Err(MoveError::UnknownIrq(descriptor.irq));
        }
        runtime.check_online(to)?;
        if descriptor.target() == to {
            return Ok(false);
        }
        self.parent.set_target(descriptor.hwirq, to)?;
        descriptor.set_target(to);
        Ok(true)
    }

    /// Waits for a move in progress to end and returns the target.
    ///
    /// Context: task; may sleep.
    fn settled_target(&self, host: &dyn Host, descriptor: &Descriptor) -> Cpu {
        let _target = self.target.lock(host);
        descriptor.target()
    }

    /// Releases the input.
    ///
    /// Context: task; may sleep.
    pub(crate) fn release(&self, host: &dyn Host, hwirq: HwIrq) {
        let _not_while_it_moves = self.target.lock(host);
        self.parent.release(hwirq, NonZeroU16::MIN);
    }
}

impl Source {
    /// Context: any.
    fn mask(&self, hwirq: HwIrq) {
        match self {
            Self::Device(source) => source.mask(hwirq),
            Self::Wired(input) => input.parent.mask(hwirq),
            Self::PerCpu(parent) => parent.mask(hwirq),
        }
    }

    /// Context: any.
    fn unmask(&self, hwirq: HwIrq) {
        match self {
            Self::Device(source) => source.unmask(hwirq),
            Self::Wired(input) => input.parent.unmask(hwirq),
            Self::PerCpu(parent) => parent.unmask(hwirq),
        }
    }

    /// Context: any.
    pub(crate) fn set_pending(&self, hwirq: HwIrq, pending: Pending) {
        match self {
            Self::Device(source) => source.set_pending(hwirq, pending),
            Self::Wired(input) => input.parent.set_pending(hwirq, pending),
            Self::PerCpu(parent) => parent.set_pending(hwirq, pending),
        }
    }

    /// Context: any.
    pub(crate) fn is_pending(&self, hwirq: HwIrq) -> Option<bool> {
        match self {
            Self::Device(source) => source.is_pending(hwirq),
            Self::Wired(input) => Some(input.parent.is_pending(hwirq)),
            Self::PerCpu(parent) => Some(parent.is_pending(hwirq)),
        }
    }

    /// Explains the stages from the device to the target CPU. For a private interrupt, the
    /// explanation applies to the calling CPU.
    ///
    /// Context: task; may sleep.
    pub(crate) fn explain(&self, host: &dyn Host, hwirq: HwIrq) -> Explanation {
        let parent = match self {
            Self::Device(source) => return source.explain(host, hwirq),
            Self::Wired(input) => &input.parent,
            Self::PerCpu(parent) => parent,
        };
        parent.explain(hwirq).with_fact(Fact::Input(hwirq))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(source) => {
                let (name, _, slot) = source.slot();
                write!(f, "Device({name} slot {slot})")
            }
            Self::Wired(_) => f.write_str("Wired"),
            Self::PerCpu(_) => f.write_str("PerCpu"),
        }
    }
}

/// Exclusive upper limit for vectors. A GIC's INTIDs have at most 24 bits.
pub(crate) const HWIRQS: u32 = 1 << 24;

/// Number of entries per level. Each level resolves 8 bits.
const FANOUT: usize = 256;

/// All cells for one vector. Each vector's cells start on a cache line of their own, because
/// adjacent vectors may fire on different CPUs.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct HwIrqEntry {
    /// The cell for an interrupt that any CPU may take.
    pub(crate) shared: HandlerCell<Action>,
    /// The cells for an interrupt that is private to each CPU, indexed by CPU.
    private: OnceBox<[Vec<PrivateCell>; 1]>,
}

/// One CPU's cell for a private interrupt, on its own cache line.
#[repr(align(64))]
#[derive(Debug)]
struct PrivateCell(HandlerCell<Action>);

impl HwIrqEntry {
    fn new() -> Self {
        Self { shared: HandlerCell::new(), private: OnceBox::new() }
    }

    /// Returns the cell for `cpu` if the vector was ever requested as a private one.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn private(&self, cpu: Cpu) -> Option<&HandlerCell<Action>> {
        let [cells] = self.private.get()?;
        Some(&cells.get(cpu.index())?.0)
    }

    /// Returns the cells for all CPUs; the result is empty if the vector was never requested as a
    /// private one.
    ///
    /// Context: any.
    pub(crate) fn all_private(&self) -> impl Iterator<Item = &HandlerCell<Action>> {
        self.private.get().into_iter().flatten().flatten().map(|cell| &cell.0)
    }

    /// Allocates the private cells.
    ///
    /// Context: task; may sleep.
    pub(crate) fn ensure_private(&self, cpus: usize) -> Result<(), TryReserveError> {
        let cells = || try_collect((0..cpus).map(|_| PrivateCell(HandlerCell::new())));
        self.private.get_or_try_init(|| cells().and_then(try_box)).map(drop)
    }
}

type Leaf = [HwIrqEntry; FANOUT];
type Middle = [OnceBox<Leaf>; FANOUT];

/// The dispatch table, which uses 16 KiB for each aligned range of 256 vectors that contains a
/// requested one, and 2 KiB for each such range of 65536.
#[derive(Debug)]
pub(crate) struct DispatchTable {
    /// Vectors below 65536, whose lookup is one step shorter. Most systems have no higher vectors.
    low: Box<Middle>,
    high: Box<[OnceBox<Middle>; FANOUT]>,
}

impl DispatchTable {
    pub(crate) fn new() -> Result<Self, TryReserveError> {
        Ok(Self { low: try_box_array(OnceBox::new)?, high: try_box_array(OnceBox::new)? })
    }

    /// Returns a vector's entry, or `None` if no vector in its range of 256 was ever requested. The
    /// lookup only reads memory.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn get(&self, hwirq: HwIrq) -> Option<&HwIrqEntry> {
        let index = hwirq.index();
        let middle = match index >> 16 {
            0 => &*self.low,
            high => self.high.get(high)?.get()?,
        };
        middle.get((index >> 8) % FANOUT)?.get()?.get(index % FANOUT)
    }

    /// Returns a vector's entry, allocating it if necessary, or `None` for vectors beyond
    /// [`HWIRQS`].
    ///
    /// Context: task; may sleep.
    pub(crate) fn ensure(&self, hwirq: HwIrq) -> Result<Option<&HwIrqEntry>, TryReserveError> {
        let index = hwirq.index();
        let middle = match index >> 16 {
            0 => &*self.low,
            high => match self.high.get(high) {
                Some(middle) => middle.get_or_try_init(|| try_box_array(OnceBox::new))?,
                None => return Ok(None),
            },
        };
        let Some(leaf) = middle.get((index >> 8) % FANOUT) else { return Ok(None) };
        Ok(leaf.get_or_try_init(|| try_box_array(HwIrqEntry::new))?.get(index % FANOUT))
    }
}

/// Memory layout of per-CPU counters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spacing {
    /// Adjacent counters, because only one CPU counts at a time.
    Dense,
    /// Counters on separate cache lines, because all CPUs may count concurrently.
    OwnLines,
}

/// Number of runs on each CPU. Each counter is written only by its own CPU, and the handler cell
/// excludes concurrent runs there, so we don't need atomic additions.
#[derive(Debug)]
pub(crate) struct Counts {
    cells: Vec<AtomicU64>,
    shift: u32,
}

impl Counts {
    pub(crate) fn new(cpus: usize, spacing: Spacing) -> Result<Self, TryReserveError> {
        let shift = if spacing == Spacing::OwnLines { 3 } else { 0 };
        Ok(Self { cells: try_collect((0..cpus << shift).map(|_| AtomicU64::new(0)))?, shift })
    }

    #[inline]
    pub(crate) fn count(&self, cpu: Cpu) {
        // Ordering: every handler run executes this, so it must be cheap. Each counter has a single
        // writer, and no other memory access depends on it.
        if let Some(cell) = self.cells.get(cpu.index() << self.shift) {
            cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// Returns the number of runs for each CPU.
    pub(crate) fn per_cpu(&self) -> impl Iterator<Item = u64> {
        self.cells.iter().step_by(1 << self.shift).map(|cell| cell.load(Ordering::SeqCst))
    }
}

/// Window size, in runs. An interrupt is spurious if more than [`MOST_UNHANDLED`] runs in a window
/// find nothing to do. Linux uses the same limit, 99 900 of 100 000 (kernel/irq/spurious.c).
const WINDOW: u64 = 100_000;
const MOST_UNHANDLED: u64 = 99_900;

/// Number of runs that found nothing to do. The handler cell excludes concurrent writers, so we
/// don't need atomic additions. For private interrupts, several CPUs may write concurrently and the
/// number is approximate.
#[derive(Debug, Default)]
pub(crate) struct UnhandledRuns {
    total: AtomicU64,
    /// Number of runs that found nothing to do in the current window.
    recent: AtomicU64,
    /// Total number of runs at the beginning of the window.
    start: AtomicU64,
}

impl UnhandledRuns {
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::SeqCst)
    }

    /// Counts a run that found nothing to do. Returns `true` if the interrupt is spurious.
    pub(crate) fn count(&self, counts: &Counts) -> bool {
        // Ordering: on a shared line, many runs find nothing to do, so this must be cheap. The
        // counters have a single writer, and no other memory access depends on them.
        self.total.store(self.total() + 1, Ordering::Relaxed);
        let recent = self.recent.load(Ordering::Relaxed) + 1;
        self.recent.store(recent, Ordering::Relaxed);
        if recent <= MOST_UNHANDLED {
            return false;
        }
        let runs: u64 = counts.per_cpu().sum();
        let in_window = runs.saturating_sub(self.start.swap(runs, Ordering::SeqCst)) <= WINDOW;
        self.recent.store(0, Ordering::SeqCst);
        in_window
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dispatch_entry_keeps_its_address() {
        let table = DispatchTable::new().unwrap();
        for raw in [0, 255, 256, 8192, 0xffff, 0x1_0000, 0x12_3456, HWIRQS - 1] {
            let made = core::ptr::from_ref(table.ensure(HwIrq::new(raw)).unwrap().unwrap());
            assert_eq!(core::ptr::from_ref(table.get(HwIrq::new(raw)).unwrap()), made);
            assert_eq!(core::ptr::from_ref(table.ensure(HwIrq::new(raw)).unwrap().unwrap()), made);
        }
    }

    #[test]
    fn different_hwirqs_have_different_entries() {
        let table = DispatchTable::new().unwrap();
        let vectors = [0x00_0005, 0x00_0105, 0x01_0005, 0x01_0105, 0x05_0000, 0x00_0500];
        let mut entries: Vec<_> = vectors
            .iter()
            .map(|v| core::ptr::from_ref(table.ensure(HwIrq::new(*v)).unwrap().unwrap()))
            .collect();
        entries.sort_unstable();
        entries.dedup();
        assert_eq!(entries.len(), vectors.len());
    }

    #[test]
    fn hwirqs_beyond_the_number_space_have_no_dispatch_entry() {
        let table = DispatchTable::new().unwrap();
        for raw in [HWIRQS, 0x0100_0005, u32::MAX] {
            assert!(table.ensure(HwIrq::new(raw)).unwrap().is_none());
            assert!(table.get(HwIrq::new(raw)).is_none());
        }
    }

    #[test]
    fn an_unrequested_hwirq_has_no_entry() {
        let table = DispatchTable::new().unwrap();
        table.ensure(HwIrq::new(8192)).unwrap();
        assert!(table.get(HwIrq::new(8192 + 256)).is_none());
        assert!(table.get(HwIrq::new(0x2_0000)).is_none());
    }

    #[test]
    fn runs_are_counted_per_cpu_with_either_spacing() {
        for spacing in [Spacing::Dense, Spacing::OwnLines] {
            let counts = Counts::new(3, spacing).unwrap();
            for cpu in [0, 2, 2] {
                counts.count(Cpu::new(cpu));
            }
            assert_eq!(counts.per_cpu().collect::<Vec<_>>(), [1, 0, 2]);
        }
    }
}
