//! A single interrupt: its numbers, control state and counters, and the source below it.

use crate::error::MoveError;
use crate::irq::control::Control;
use crate::irq::handler::{Flow, Handler};
use crate::irq::run_counts::{Counts, Spacing, UnhandledRuns};
use crate::irq::shared_line::SharedLine;
use crate::name::{Irq, Name};
use crate::runtime::{Host, Runtime};
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU16;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use doorbell_fallible::Shared;
use doorbell_fallible::lock::{IrqLock, TaskLock};
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
