//! Requests for interrupts that any CPU may take or that are private to each CPU, and the handles
//! that own their handlers.

use super::root_controller::{IrqCore, TakenOnDrop, prepare};
use crate::affinity::{self, Moved, Placement};
use crate::error::{MoveError, RequestError};
use crate::irq::control::Control;
use crate::irq::descriptor::{
    Action, Descriptor, HwIrqEntry, NewDescriptor, Source, Target, WiredInput,
};
use crate::irq::dispatch::IrqRef;
use crate::irq::handler::{Flow, Handler, IrqContext, Start};
use crate::irq::handler_cell::{InstallError, WhenBusy};
use crate::irq::shared_line::{MemberIndex, SharedLine};
use crate::name::{Irq, Name};
use alloc::sync::Arc;
use core::fmt;
use core::num::NonZeroU16;
use core::sync::atomic::Ordering;
use doorbell_fallible::Shared;
use msi_types::{Cpu, HwIrq, MsiError, Pending, Trigger, WiredParent};

/// A driver's request for a wired interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WiredRequest<'a> {
    pub(crate) hwirq: HwIrq,
    pub(crate) trigger: Trigger,
    pub(crate) name: &'a str,
    pub(crate) start: Start,
    pub(crate) sharing: Sharing,
}

/// Number of handlers that an input may have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Sharing {
    /// Exactly one handler; all other requests for the input are refused.
    #[default]
    Exclusive,
    /// One handler for each device on a level-triggered line. Each interrupt runs all handlers, and
    /// is unhandled if all of them return [`IrqReturn::None`](crate::IrqReturn::None).
    Shared,
}

impl<'a> WiredRequest<'a> {
    /// Creates a request for exclusive use of an input. The interrupt is enabled as soon as its
    /// handler is installed.
    pub const fn new(hwirq: HwIrq, trigger: Trigger, name: &'a str) -> Self {
        Self { hwirq, trigger, name, start: Start::Enabled, sharing: Sharing::Exclusive }
    }

    msi_types::setters! {
        /// Sets the input at the root controller: on a GIC, an SPI's INTID.
        with_hwirq: hwirq: HwIrq,
        /// Sets the device's trigger mode.
        with_trigger: trigger: Trigger,
        /// Sets the handler name for diagnostics and statistics.
        with_name: name: &'a str,
        /// Sets the interrupt's initial state.
        with_start: start: Start,
        /// Sets the number of handlers that the input may have: one, or several on a shared line.
        with_sharing: sharing: Sharing,
    }
}

/// A requested interrupt. Dropping the handle masks the interrupt and removes the handler.
///
/// **Dropping** works in any context:
/// - If the caller [may wait](crate::TaskContext::may_wait), drop returns once the handler has
///   returned on all CPUs and its memory has been freed. The caller must not hold a lock that the
///   handler takes.
/// - Otherwise (in hard-IRQ context, including in its own handler, or with interrupts masked), drop
///   neither waits nor frees. The handler is not entered again, and a later task operation, such as
///   [`Interrupts::reclaim`](crate::Interrupts::reclaim), frees it.
///
/// **A [shared](Sharing::Shared) line** is one interrupt with one number, state, affinity and run
/// count. Each handle on a shared line controls the whole line: [`disable`](Self::disable) masks
/// the line for all handlers, and the line stays masked until no handle has an outstanding disable.
/// A handle can only undo its own disables, and dropping the handle undoes the remaining ones. If a
/// line was [disabled as spurious](crate::Host::disabled_as_spurious), it can be unmasked by
/// [`enable`](Self::enable) on any handle that has no disable to undo, or by a request for another
/// handler. Dropping the last handle masks the line and frees it.
///
/// ```
/// # use core::num::NonZeroU16;
/// # use msi_types::*;
/// # struct Kernel;
/// # impl LocalCpu for Kernel {
/// #     fn irq_save(&self) -> IrqState { IrqState::new(0) }
/// #     fn irq_restore(&self, _: IrqState) {}
/// #     fn yield_now(&self) { self.relax(); }
/// # }
/// # impl irq_domain::Host for Kernel {
/// #     fn current_cpu(&self) -> Option<Cpu> { None }
/// # }
/// # impl TaskContext for Kernel {
/// #     fn may_wait(&self) -> bool { true }
/// # }
/// # struct Gic;
/// # impl WiredParent for Gic {
/// #     fn claim(&self, _: HwIrq, _: NonZeroU16) -> Result<(), MsiError> { Ok(()) }
/// #     fn release(&self, _: HwIrq, _: NonZeroU16) {}
/// #     fn set_trigger(&self, _: HwIrq, _: Trigger) -> Result<(), MsiError> { Ok(()) }
/// #     fn set_target(&self, _: HwIrq, _: Cpu) -> Result<(), MsiError> { Ok(()) }
/// #     fn mask(&self, _: HwIrq) {}
/// #     fn unmask(&self, _: HwIrq) {}
/// #     fn set_pending(&self, _: HwIrq, _: Pending) {}
/// #     fn is_pending(&self, _: HwIrq) -> bool { false }
/// # }
/// # use irq_domain::{Config, Interrupts, WiredRequest};
/// # use std::sync::Arc;
/// # let config = Config::new(NonZeroU16::MIN, Arc::new(Kernel)).with_wired(Arc::new(Gic));
/// # let interrupts = Interrupts::new(config)?;
/// # let request = WiredRequest::new(HwIrq::new(33), Trigger::Level, "uart");
/// let uart = interrupts.request_wired(request, |_| ())?;
/// println!("{} runs on CPU {}", uart.irq(), uart.effective_affinity());
///
/// uart.disable_and_wait(); // The handler does not run until the interrupt is enabled again.
/// uart.enable();
///
/// drop(uart); // Waits for the handler, and frees the interrupt.
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "request_irq")]
#[doc(alias = "free_irq")]
#[must_use = "dropping the handle removes the handler"]
pub struct IrqHandle {
    core: Shared<IrqCore>,
    descriptor: TakenOnDrop<Descriptor>,
    /// The handler's position on a shared line.
    member: Option<MemberIndex>,
}

impl IrqHandle {
    /// Claims an input at a controller with wired inputs, installs its handler, and routes it to a
    /// CPU. If the input is shared and already claimed, adds the handler to its line.
    ///
    /// Context: task; may sleep.
    pub(crate) fn request_wired(
        core: &Shared<IrqCore>,
        parent: &Arc<dyn WiredParent>,
        request: WiredRequest<'_>,
        handler: &Handler,
    ) -> Result<Self, RequestError> {
        if request.sharing == Sharing::Shared && request.trigger == Trigger::Edge {
            return Err(RequestError::SharedEdge(request.hwirq));
        }
        loop {
            if let Some(handle) = Self::try_request_wired(core, parent, request, handler)? {
                return Ok(handle);
            }
            // The shared line's last handle is being dropped. Wait until that drop has released the
            // input.
            core.reclaim();
            core.host().yield_now();
        }
    }

    /// Tries to claim an input. Returns `None` while the input's shared line is being removed.
    fn try_request_wired(
        core: &Shared<IrqCore>,
        parent: &Arc<dyn WiredParent>,
        request: WiredRequest<'_>,
        handler: &Handler,
    ) -> Result<Option<Self>, RequestError> {
        let IrqCore { registry, pool, root, .. } = &**core;
        let entry = registry.dispatcher.ensure(request.hwirq)?;
        let entry = entry.ok_or(RequestError::OutOfRange(request.hwirq))?;
        // Keep the chosen CPU from going offline until hotplug can see that the interrupt targets
        // it.
        let online = pool.online_cpus(core.host());
        let _one_at_a_time = root.one_request(core.host());
        if entry.all_private().any(|cell| !cell.is_vacant()) {
            return Err(RequestError::InUse(request.hwirq));
        }
        if request.sharing == Sharing::Exclusive {
            let descriptor = claim(core, parent, &request, &online, None)?;
            return Self::install(core, &descriptor, request.name, handler.clone(), request.start)
                .inspect_err(|_| registry.release_root(&descriptor))
                .map(Some);
        }
        let line = |source: &Source| matches!(source, Source::Wired(at) if at.is_shared_at(parent));
        if let Some(descriptor) = registry.find_hwirq(request.hwirq, line) {
            return Self::join(core, &descriptor, &request, handler.clone());
        }
        Self::share(core, parent, &request, &online, handler.clone()).map(Some)
    }

    /// Claims an input for a shared line, and adds its first handler.
    fn share(
        core: &Shared<IrqCore>,
        parent: &Arc<dyn WiredParent>,
        request: &WiredRequest<'_>,
        online: &[Cpu],
        handler: Handler,
    ) -> Result<Self, RequestError> {
        let name = Name::try_new(request.name)?;
        let line = Shared::<SharedLine>::try_new(SharedLine::new(handler))?;
        let members = line.clone();
        let run_all = Handler::try_new(move |context: &IrqContext<'_>| members.run(context))?;
        let descriptor = claim(core, parent, request, online, Some(line.clone()))?;
        let mut handle = Self::install(core, &descriptor, "", run_all, Start::Disabled)
            .inspect_err(|_| core.registry.release_root(&descriptor))?;
        line.count_disable(MemberIndex::FIRST);
        line.set_name(core.host(), MemberIndex::FIRST, name);
        handle.member = Some(MemberIndex::FIRST);
        if request.start == Start::Enabled {
            handle.enable();
        }
        Ok(handle)
    }

    /// Adds a handler to a shared line. Returns `None` if the line is being removed. The caller
    /// must hold the request lock.
    fn join(
        core: &Shared<IrqCore>,
        descriptor: &Shared<Descriptor>,
        request: &WiredRequest<'_>,
        handler: Handler,
    ) -> Result<Option<Self>, RequestError> {
        let Some(line) = descriptor.shared_line() else { return Ok(None) };
        let name = Name::try_new(request.name)?;
        let member = line.vacant()?;
        core.deferred.reserve(core.host())?;
        let interrupt = core.registry.interrupt(descriptor);
        if !interrupt.join(line, member, handler, request.start) {
            core.deferred.unreserve();
            return Ok(None);
        }
        line.set_name(core.host(), member, name);
        let descriptor = TakenOnDrop::new(descriptor.clone());
        Ok(Some(Self { core: core.clone(), descriptor, member: Some(member) }))
    }

    /// Installs an interrupt's handler.
    ///
    /// Context: task; may sleep.
    pub(crate) fn install(
        core: &Shared<IrqCore>,
        descriptor: &Shared<Descriptor>,
        name: &str,
        handler: Handler,
        start: Start,
    ) -> Result<Self, RequestError> {
        let name = Name::try_new(name)?;
        core.deferred.reserve(core.host())?;
        let action = Action { handler, descriptor: descriptor.clone() };
        let installed = core.registry.interrupt(descriptor).put_in(action);
        installed.inspect_err(|_| core.deferred.unreserve())?;
        *descriptor.name.lock(core.host()) = Some(name);
        let descriptor = TakenOnDrop::new(descriptor.clone());
        let handle = Self { core: core.clone(), descriptor, member: None };
        if start == Start::Enabled {
            handle.enable();
        }
        Ok(handle)
    }

    /// Returns the interrupt's number.
    ///
    /// Context: any.
    pub fn irq(&self) -> Irq {
        self.descriptor.irq
    }

    /// Returns the number with which the root controller acknowledges the interrupt.
    ///
    /// Context: any.
    #[inline]
    pub fn hwirq(&self) -> HwIrq {
        self.descriptor.hwirq
    }

    /// Masks the interrupt at its source. A running handler continues. An interrupt that arrives
    /// later is sent again when it is enabled. Disables nest.
    ///
    /// Context: any.
    pub fn disable(&self) {
        self.while_installed(|control| {
            if let Some((line, member)) = self.member() {
                line.count_disable(member);
            }
            self.interrupt().disable(control);
        });
    }

    /// [Disables](Self::disable) the interrupt, then waits for the handler to return. If the caller
    /// [may not wait](crate::TaskContext::may_wait), returns without waiting.
    ///
    /// Context: task; may sleep.
    pub fn disable_and_wait(&self) {
        self.disable();
        self.synchronize();
    }

    /// Undoes one [`disable`](Self::disable). If this enables the interrupt, and the interrupt
    /// arrived while it was disabled, the core sends it again.
    ///
    /// Context: any.
    pub fn enable(&self) {
        self.while_installed(|control| {
            let is_own = self.member().is_none_or(|(line, member)| line.uncount_disable(member));
            if is_own || control.take_shut_off() {
                self.interrupt().enable(control);
            }
        });
    }

    /// Waits for all handler runs that began before the call. Returns immediately if the caller
    /// [may not wait](crate::TaskContext::may_wait).
    ///
    /// Context: task; may sleep.
    pub fn synchronize(&self) {
        self.interrupt().synchronize();
    }

    /// Moves the interrupt, like [`Interrupts::set_affinity`](crate::Interrupts::set_affinity).
    ///
    /// Context: task; may sleep.
    pub fn set_affinity(&self, to: Cpu) -> Result<Moved, MoveError> {
        affinity::set_affinity(&self.core.registry, &self.descriptor, to)
    }

    /// Returns the interrupt's target CPU.
    ///
    /// Context: any.
    pub fn effective_affinity(&self) -> Cpu {
        self.descriptor.target()
    }

    /// Makes the interrupt pending as its device would, or clears the pending state at the
    /// controller.
    ///
    /// Context: any.
    pub fn set_pending(&self, pending: Pending) {
        self.while_installed(|_| {
            self.descriptor.source.set_pending(self.descriptor.hwirq, pending);
        });
    }

    /// Returns whether the interrupt is pending at the endpoint or the controller, or `None` if the
    /// hardware can't tell.
    ///
    /// Context: any.
    pub fn is_pending(&self) -> Option<bool> {
        self.while_installed(|_| self.descriptor.source.is_pending(self.descriptor.hwirq))?
    }

    /// Returns the number of handler runs.
    ///
    /// Context: any.
    pub fn count(&self) -> u64 {
        self.descriptor.counts.per_cpu().sum()
    }

    /// Returns the number of redeliveries, i.e. of arrivals that were resent because the handler
    /// was disabled or was running on another CPU.
    ///
    /// Context: any.
    pub fn redelivered(&self) -> u64 {
        self.descriptor.redelivered.load(Ordering::SeqCst)
    }

    /// Returns the shared line and the handler's position on it.
    fn member(&self) -> Option<(&SharedLine, MemberIndex)> {
        self.descriptor.shared_line().zip(self.member)
    }

    fn interrupt(&self) -> IrqRef<'_> {
        self.core.registry.interrupt(&self.descriptor)
    }

    /// Calls `act` if the handler is still installed. (A device's domain may be torn down before
    /// the handles are dropped.)
    fn while_installed<T>(&self, act: impl FnOnce(&mut Control) -> T) -> Option<T> {
        self.interrupt().while_installed(act)
    }
}

impl Drop for IrqHandle {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            self.core.deferred.release_handle(&self.core.registry, descriptor, self.member);
        }
    }
}

impl fmt::Debug for IrqHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqHandle").field("irq", &self.irq()).field("hwirq", &self.hwirq()).finish()
    }
}

/// Claims an input for a request, and routes it to a CPU that the controller can reach.
///
/// Context: task; may sleep.
fn claim(
    core: &IrqCore,
    parent: &Arc<dyn WiredParent>,
    request: &WiredRequest<'_>,
    online: &[Cpu],
    shared: Option<Shared<SharedLine>>,
) -> Result<Shared<Descriptor>, RequestError> {
    let place = Placement::wired(request.hwirq, online);
    let target = core.pool.choose(&place).ok_or(RequestError::NoCpu)?;
    parent.claim(request.hwirq, NonZeroU16::MIN)?;
    let prepared = prepare(&**parent, (request.hwirq, request.trigger), target, online)
        .map_err(RequestError::from);
    let numbered = prepared.and_then(|target| {
        Ok(core.registry.insert(|irq| NewDescriptor {
            irq,
            hwirq: request.hwirq,
            flow: match request.trigger {
                Trigger::Edge => Flow::Edge,
                Trigger::Level => Flow::Level,
            },
            source: Source::Wired(WiredInput::new(parent.clone(), shared)),
            target: Target::own(target),
            among: None,
            cpus: core.registry.runtime().cpus(),
            unmasked: false,
        })?)
    });
    numbered.inspect_err(|_| parent.release(request.hwirq, NonZeroU16::MIN))
}

/// A requested private interrupt. Dropping the handle follows the rules for
/// [`IrqHandle`](crate::IrqHandle) on all CPUs, but only the calling CPU's hardware is masked.
/// Every other CPU should therefore call [`disable_here`](Self::disable_here) first.
#[must_use = "dropping the handle removes the handler"]
pub struct PerCpuHandle {
    core: Shared<IrqCore>,
    descriptor: TakenOnDrop<Descriptor>,
}

impl PerCpuHandle {
    /// Requests a private interrupt. It is initially disabled on every CPU.
    ///
    /// Context: task; may sleep.
    pub(crate) fn request(
        core: &Shared<IrqCore>,
        (hwirq, trigger): (HwIrq, Trigger),
        name: &str,
        handler: &Handler,
    ) -> Result<Self, RequestError> {
        let IrqCore { registry, root, deferred, .. } = &**core;
        let parent = root.parent()?;
        if !parent.has_private(hwirq) {
            return Err(MsiError::UnknownVector(hwirq).into());
        }
        let name = Name::try_new(name)?;
        let entry = registry.dispatcher.ensure(hwirq)?.ok_or(RequestError::OutOfRange(hwirq))?;
        let cpus = registry.runtime().cpus();
        entry.ensure_private(cpus)?;
        let _one_at_a_time = root.one_request(core.host());
        if !entry.shared.is_vacant() || entry.all_private().any(|cell| !cell.is_vacant()) {
            return Err(RequestError::InUse(hwirq));
        }
        root.note_private(core.host(), hwirq)?;
        deferred.reserve(core.host())?;
        let numbered = registry.insert(|irq| NewDescriptor {
            irq,
            hwirq,
            flow: Flow::PerCpu,
            source: Source::PerCpu(parent.clone()),
            target: Target::own(Cpu::default()),
            among: None,
            cpus,
            unmasked: false,
        });
        let descriptor = numbered.inspect_err(|_| deferred.unreserve())?;
        *descriptor.name.lock(core.host()) = Some(name);
        descriptor.control.lock(core.host()).install();
        let handle = Self { core: core.clone(), descriptor: TakenOnDrop::new(descriptor.clone()) };
        install_private(entry, &descriptor, trigger, handler)?;
        Ok(handle)
    }

    /// Returns the interrupt's number.
    ///
    /// Context: any.
    pub fn irq(&self) -> Irq {
        self.descriptor.irq
    }

    /// Returns the number with which the CPUs acknowledge the interrupt.
    ///
    /// Context: any.
    pub fn hwirq(&self) -> HwIrq {
        self.descriptor.hwirq
    }

    /// Enables the interrupt on the calling CPU. The interrupt stays enabled even if that CPU goes
    /// offline and comes back online
    /// ([`Interrupts::cpu_starting`](crate::Interrupts::cpu_starting)). Calls do not nest. The call
    /// has no effect on a thread that isn't a CPU.
    ///
    /// Context: any.
    pub fn enable_here(&self) {
        self.core.registry.interrupt(&self.descriptor).with_own_cell(|cell| {
            let resend = cell.enable();
            self.descriptor.unmask();
            if resend {
                self.descriptor.redeliver(self.core.registry.runtime());
            }
        });
    }

    /// Disables the interrupt on the calling CPU. Calls do not nest. The call has no effect on a
    /// thread that isn't a CPU.
    ///
    /// Context: any.
    pub fn disable_here(&self) {
        self.core.registry.interrupt(&self.descriptor).with_own_cell(|cell| {
            cell.disable();
            self.descriptor.mask();
        });
    }

    /// Returns the total number of handler runs on all CPUs.
    ///
    /// Context: any.
    pub fn count(&self) -> u64 {
        self.descriptor.counts.per_cpu().sum()
    }
}

impl Drop for PerCpuHandle {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            self.core.deferred.release_handle(&self.core.registry, descriptor, None);
        }
    }
}

impl fmt::Debug for PerCpuHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpuHandle")
            .field("irq", &self.irq())
            .field("hwirq", &self.hwirq())
            .finish()
    }
}

fn install_private(
    entry: &HwIrqEntry,
    descriptor: &Shared<Descriptor>,
    trigger: Trigger,
    handler: &Handler,
) -> Result<(), RequestError> {
    let when_busy = match trigger {
        Trigger::Edge => WhenBusy::Mark,
        Trigger::Level => WhenBusy::Ignore,
    };
    for cell in entry.all_private() {
        let action = Action { handler: handler.clone(), descriptor: descriptor.clone() };
        cell.install(action, when_busy).map_err(|refused| match refused {
            InstallError::Occupied(_) | InstallError::Closing(_) => {
                RequestError::InUse(descriptor.hwirq)
            }
        })?;
    }
    Ok(())
}
