//! Interrupts at the root controller: wired ones, and those private to each CPU.

use super::Interrupts;
use crate::descriptor::{Action, Descriptor, Handler, NewDescriptor, Source};
use crate::dispatch_table::HwIrqEntry;
use crate::error::RequestError;
use crate::handle::{IrqHandle, PerCpuHandle};
use crate::handler_cell::{InstallError, WhenBusy};
use crate::irq::{Flow, Irq, IrqContext, IrqReturn, Start};
use crate::name::Name;
use crate::root_controller::prepare;
use crate::shared::Shared;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use core::num::NonZeroU16;
use msi_types::{Cpu, HwIrq, Trigger, WiredParent};

/// A wired interrupt, as its device's driver wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

impl Interrupts {
    /// Claims a wired interrupt of the root controller, gives it a handler and a CPU, and lets it
    /// through. Dropping the handle undoes it all. Task.
    pub fn request_wired<R: Into<IrqReturn>>(
        self: &Arc<Self>,
        request: WiredRequest<'_>,
        handler: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<IrqHandle, RequestError> {
        let parent = self.root.parent()?;
        self.request_wired_at(parent, request, handler)
    }

    /// The same at another controller with wired inputs. Its vectors are of the one space that
    /// [`dispatch`](Self::dispatch) knows. They are the root's own if it stands before inputs of
    /// the root. They are others (below 2^24) if it has one input of the root, whose handler
    /// dispatches what it finds. Task.
    pub fn request_wired_at<R: Into<IrqReturn>>(
        self: &Arc<Self>,
        parent: &Arc<dyn WiredParent>,
        request: WiredRequest<'_>,
        handler: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<IrqHandle, RequestError> {
        self.reclaim();
        // A refused handler is dropped after the locks: its destructor is the kernel's code.
        let handler = Handler::try_handler(handler)?;
        let entry =
            self.table.ensure(request.hwirq)?.ok_or(RequestError::OutOfRange(request.hwirq))?;
        // No CPU goes off line between being chosen and being seen as a target.
        let placing = self.hotplug.read(self.host());
        let _one_at_a_time = self.root.one_request(self.host());
        if entry.all_private().any(|cell| !cell.is_vacant()) {
            return Err(RequestError::InUse(request.hwirq));
        }
        let descriptor = self.claim_wired(parent, &request, &placing.online)?;
        self.install(&descriptor, request.name, handler.clone(), request.start).inspect_err(|_| {
            parent.release(request.hwirq, NonZeroU16::MIN);
            self.numbers.lock(self.host()).remove(descriptor.irq);
        })
    }

    fn claim_wired(
        &self,
        parent: &Arc<dyn WiredParent>,
        request: &WiredRequest<'_>,
        online: &[Cpu],
    ) -> Result<Shared<Descriptor>, RequestError> {
        let target = self.choice.choose(online).ok_or(RequestError::NoCpu)?;
        parent.claim(request.hwirq, NonZeroU16::MIN)?;
        let prepared = prepare(&**parent, (request.hwirq, request.trigger), target, online)
            .map_err(RequestError::from);
        let numbered = prepared.and_then(|target| {
            Ok(self.number(|irq| NewDescriptor {
                irq,
                hwirq: request.hwirq,
                flow: match request.trigger {
                    Trigger::Edge => Flow::Edge,
                    Trigger::Level => Flow::Level,
                },
                source: Source::Wired(parent.clone()),
                target,
                among: None,
                cpus: self.cpus(),
                unmasked: false,
            })?)
        });
        numbered.inspect_err(|_| parent.release(request.hwirq, NonZeroU16::MIN))
    }

    /// Registers an interrupt that each CPU has for itself (on a GIC: an SGI or PPI): one IRQ
    /// number, one handler that may run on all CPUs at once. It is off on each CPU until that CPU
    /// calls [`PerCpuHandle::enable_here`].
    ///
    /// Priorities and triggers of private interrupts are set up by the root controller's driver, on
    /// each CPU. `trigger` says here whether an arrival that nests below its own handler must be
    /// remembered (edge) or tells again (level). The wired parent's `mask`, `unmask` and
    /// `set_pending` are used for the private vector too, and act on the calling CPU. Task.
    ///
    /// # Errors
    /// [`RequestError::NoWiredParent`]: without one, nothing could let the interrupt through.
    /// [`RequestError::OutOfRange`], [`RequestError::InUse`].
    pub fn request_per_cpu<R: Into<IrqReturn>>(
        self: &Arc<Self>,
        hwirq: HwIrq,
        trigger: Trigger,
        name: &str,
        handler: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<PerCpuHandle, RequestError> {
        let parent = self.root.parent()?;
        self.reclaim();
        // A refused handler is dropped after the locks: its destructor is the kernel's code.
        let handler = Handler::try_handler(handler)?;
        let name = Name::try_new(name)?;
        let entry = self.table.ensure(hwirq)?.ok_or(RequestError::OutOfRange(hwirq))?;
        entry.ensure_private(self.cpus())?;
        let _one_at_a_time = self.root.one_request(self.host());
        if !entry.shared.is_vacant() || entry.all_private().any(|cell| !cell.is_vacant()) {
            return Err(RequestError::InUse(hwirq));
        }
        self.reserve_deferred()?;
        let numbered = self.number(|irq| NewDescriptor {
            irq,
            hwirq,
            flow: Flow::PerCpu,
            source: Source::PerCpu(parent.clone()),
            target: Cpu::default(),
            among: None,
            cpus: self.cpus(),
            unmasked: false,
        });
        let descriptor = numbered.inspect_err(|_| self.unreserve_deferred())?;
        *descriptor.name.lock(self.host()) = Some(name);
        descriptor.control.lock(self.host()).install();
        let handle = PerCpuHandle::new(self.clone(), descriptor.clone());
        install_private(entry, &descriptor, trigger, &handler)?;
        Ok(handle)
    }

    /// Gives an interrupt its handler. Task.
    pub(crate) fn install(
        self: &Arc<Self>,
        descriptor: &Shared<Descriptor>,
        name: &str,
        handler: Handler,
        start: Start,
    ) -> Result<IrqHandle, RequestError> {
        let name = Name::try_new(name)?;
        self.reserve_deferred()?;
        let action = Action { handler, descriptor: descriptor.clone() };
        let installed = self.interrupt(descriptor).put_in(action);
        installed.inspect_err(|_| self.unreserve_deferred())?;
        *descriptor.name.lock(self.host()) = Some(name);
        let handle = IrqHandle::new(self.clone(), descriptor.clone());
        if start == Start::Enabled {
            handle.enable();
        }
        Ok(handle)
    }

    /// Gives an interrupt a number.
    pub(crate) fn number(
        &self,
        new: impl FnOnce(Irq) -> NewDescriptor,
    ) -> Result<Shared<Descriptor>, TryReserveError> {
        self.numbers.lock(self.host()).insert(|irq| Descriptor::new(new(irq)))
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
