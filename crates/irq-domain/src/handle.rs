//! Interrupts that any CPU may take: their requests, and the handles that own their handlers.

use crate::affinity::Moved;
use crate::control::Control;
use crate::deferred_free::TakenOnDrop;
use crate::descriptor::{Action, Descriptor, Handler, NewDescriptor, Source, WiredInput};
use crate::error::{MoveError, RequestError};
use crate::interrupt::Interrupt;
use crate::irq::{Flow, Irq, Start};
use crate::irq_core::IrqCore;
use crate::name::Name;
use crate::placement;
use crate::root_controller::prepare;
use crate::shared::Shared;
use alloc::sync::Arc;
use core::fmt;
use core::num::NonZeroU16;
use core::sync::atomic::Ordering;
use msi_types::{Cpu, HwIrq, Pending, Trigger, WiredParent};

/// A wired interrupt, as its device's driver wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WiredRequest<'a> {
    /// The input of the root controller: on a GIC the INTID of an SPI.
    pub hwirq: HwIrq,
    /// The device's trigger.
    pub trigger: Trigger,
    /// For people.
    pub name: &'a str,
    /// Enabled or disabled after the request.
    pub start: Start,
}

impl<'a> WiredRequest<'a> {
    /// A request of an input, enabled at once.
    pub const fn new(hwirq: HwIrq, trigger: Trigger, name: &'a str) -> Self {
        Self { hwirq, trigger, name, start: Start::Enabled }
    }

    msi_types::setters! {
        with_hwirq: hwirq: HwIrq,
        with_trigger: trigger: Trigger,
        with_name: name: &'a str,
        with_start: start: Start,
    }
}

/// A requested interrupt. Dropping the handle masks the interrupt and removes the handler.
///
/// **Dropping**, any context:
/// - Where the caller [may wait](crate::TaskContext::may_wait), drop returns once the handler has
///   returned on whichever CPU it runs, and after its memory was freed. So do not hold a lock that
///   the handler takes.
/// - Elsewhere – in hard-IRQ context, inside its own handler or not, and with interrupts saved –
///   drop neither waits nor frees. The handler is not entered again; a later task operation, such
///   as [`Interrupts::reclaim`](crate::Interrupts::reclaim), frees it.
#[must_use = "dropping the handle removes the handler"]
pub struct IrqHandle {
    core: Shared<IrqCore>,
    descriptor: TakenOnDrop<Descriptor>,
}

impl IrqHandle {
    /// Claims an input of a controller with wired inputs, and gives it a handler and a CPU.
    ///
    /// Context: task; may sleep.
    pub(crate) fn request_wired(
        core: &Shared<IrqCore>,
        parent: &Arc<dyn WiredParent>,
        request: WiredRequest<'_>,
        handler: &Handler,
    ) -> Result<Self, RequestError> {
        let IrqCore { descriptors, placement, root, .. } = &**core;
        let entry = descriptors.dispatcher.ensure(request.hwirq)?;
        let entry = entry.ok_or(RequestError::OutOfRange(request.hwirq))?;
        // No CPU goes off line between being chosen and being seen as a target.
        let online = placement.online_cpus(core.host());
        let _one_at_a_time = root.one_request(core.host());
        if entry.all_private().any(|cell| !cell.is_vacant()) {
            return Err(RequestError::InUse(request.hwirq));
        }
        let descriptor = claim(core, parent, &request, &online)?;
        Self::install(core, &descriptor, request.name, handler.clone(), request.start)
            .inspect_err(|_| descriptors.release_root(&descriptor))
    }

    /// Gives an interrupt its handler.
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
        let installed = core.descriptors.interrupt(descriptor).put_in(action);
        installed.inspect_err(|_| core.deferred.unreserve())?;
        *descriptor.name.lock(core.host()) = Some(name);
        let descriptor = TakenOnDrop::new(descriptor.clone());
        let handle = Self { core: core.clone(), descriptor };
        if start == Start::Enabled {
            handle.enable();
        }
        Ok(handle)
    }

    /// The interrupt's number.
    ///
    /// Context: any.
    pub fn irq(&self) -> Irq {
        self.descriptor.irq
    }

    /// The interrupt as the root controller acknowledges it.
    ///
    /// Context: any.
    #[inline]
    pub fn hwirq(&self) -> HwIrq {
        self.descriptor.hwirq
    }

    /// Masks the interrupt at its source. A handler that runs goes on; what arrives from now on is
    /// sent again when it is enabled. Disables nest.
    ///
    /// Context: any.
    pub fn disable(&self) {
        self.while_installed(|control| self.interrupt().disable(control));
    }

    /// [`disable`](Self::disable), then waits for the handler to return; nothing to wait for where
    /// the caller may not.
    ///
    /// Context: task; may sleep.
    pub fn disable_and_wait(&self) {
        self.disable();
        self.synchronize();
    }

    /// Undoes one [`disable`](Self::disable). What arrived meanwhile arrives now.
    ///
    /// Context: any.
    pub fn enable(&self) {
        self.while_installed(|control| self.interrupt().enable(control));
    }

    /// Waits until no handler runs that began before the call; where the caller [may not
    /// wait](crate::TaskContext::may_wait), it does not.
    ///
    /// Context: task; may sleep.
    pub fn synchronize(&self) {
        self.interrupt().synchronize();
    }

    /// Moves the interrupt: [`Interrupts::set_affinity`](crate::Interrupts::set_affinity).
    ///
    /// Context: task; may sleep.
    pub fn set_affinity(&self, to: Cpu) -> Result<Moved, MoveError> {
        placement::set_affinity(&self.core.descriptors, &self.descriptor, to)
    }

    /// Delivers the interrupt to one of `among`:
    /// [`Interrupts::set_affinity_among`](crate::Interrupts::set_affinity_among).
    ///
    /// Context: task; may sleep.
    pub fn set_affinity_among(&self, among: &[Cpu]) -> Result<Moved, MoveError> {
        let IrqCore { descriptors, placement, .. } = &*self.core;
        placement.set_affinity_among(descriptors, &self.descriptor, among)
    }

    /// The CPU that it is delivered to.
    ///
    /// Context: any.
    pub fn effective_affinity(&self) -> Cpu {
        self.descriptor.target()
    }

    /// Makes the interrupt pending as its device would, or drops what is pending at the controller.
    ///
    /// Context: any.
    pub fn set_pending(&self, pending: Pending) {
        self.while_installed(|_| {
            self.descriptor.source.set_pending(self.descriptor.hwirq, pending);
        });
    }

    /// Is it pending, at the endpoint or at the controller? `None` where the hardware cannot be
    /// asked.
    ///
    /// Context: any.
    pub fn is_pending(&self) -> Option<bool> {
        self.while_installed(|_| self.descriptor.source.is_pending(self.descriptor.hwirq))?
    }

    /// Number of handler runs.
    ///
    /// Context: any.
    pub fn count(&self) -> u64 {
        self.descriptor.counts.per_cpu().sum()
    }

    /// Number of redeliveries: it arrived while its handler ran elsewhere or was disabled.
    ///
    /// Context: any.
    pub fn redelivered(&self) -> u64 {
        self.descriptor.redelivered.load(Ordering::Relaxed)
    }

    fn interrupt(&self) -> Interrupt<'_> {
        self.core.descriptors.interrupt(&self.descriptor)
    }

    /// The device's domain may be torn down before its handles are dropped.
    fn while_installed<T>(&self, act: impl FnOnce(&mut Control) -> T) -> Option<T> {
        self.interrupt().while_installed(act)
    }
}

impl Drop for IrqHandle {
    fn drop(&mut self) {
        if let Some(descriptor) = self.descriptor.take() {
            self.core.deferred.release_handle(&self.core.descriptors, descriptor);
        }
    }
}

impl fmt::Debug for IrqHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqHandle").field("irq", &self.irq()).field("hwirq", &self.hwirq()).finish()
    }
}

/// Claims an input for a request, on a CPU that can be reached.
///
/// Context: task; may sleep.
fn claim(
    core: &IrqCore,
    parent: &Arc<dyn WiredParent>,
    request: &WiredRequest<'_>,
    online: &[Cpu],
) -> Result<Shared<Descriptor>, RequestError> {
    let target = core.placement.choose(online).ok_or(RequestError::NoCpu)?;
    parent.claim(request.hwirq, NonZeroU16::MIN)?;
    let prepared = prepare(&**parent, (request.hwirq, request.trigger), target, online)
        .map_err(RequestError::from);
    let numbered = prepared.and_then(|target| {
        Ok(core.descriptors.insert(|irq| NewDescriptor {
            irq,
            hwirq: request.hwirq,
            flow: match request.trigger {
                Trigger::Edge => Flow::Edge,
                Trigger::Level => Flow::Level,
            },
            source: Source::Wired(WiredInput::new(parent.clone())),
            target,
            among: None,
            cpus: core.descriptors.runtime().cpus(),
            unmasked: false,
        })?)
    });
    numbered.inspect_err(|_| parent.release(request.hwirq, NonZeroU16::MIN))
}
