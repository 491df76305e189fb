//! Requests and handles for interrupts that are private to each CPU.

use crate::error::RequestError;
use crate::irq::descriptor::{Action, Descriptor, NewDescriptor, Source, Target};
use crate::irq::dispatch_table::HwIrqEntry;
use crate::irq::handler::{Flow, Handler};
use crate::irq::handler_cell::{InstallError, WhenBusy};
use crate::name::{Irq, Name};
use crate::request::deferred_free::TakenOnDrop;
use crate::request::root_controller::IrqCore;
use core::fmt;
use doorbell_fallible::Shared;
use msi_types::{Cpu, HwIrq, MsiError, Trigger};

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
