//! The kernel-facing interface of the interrupt core.

#[cfg(doc)]
use crate::affinity::RoundRobin;
use crate::affinity::{self, AffinityPolicy, CpuPool, Moved};
use crate::error::{MoveError, RequestError, Stranded, UnknownCpu};
use crate::irq::descriptor::Source;
#[cfg(doc)]
use crate::irq::handler::Deferral;
use crate::irq::handler::{Dispatched, Handler, IrqContext, IrqReturn};
use crate::irq::info::{self, IrqInfo};
use crate::irq::registry::IrqRegistry;
use crate::name::Irq;
use crate::request::handle::{IrqHandle, PerCpuHandle, WiredRequest};
use crate::request::root_controller::{DeferredFree, IrqCore, RootController};
use crate::runtime::{Host, Runtime};
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU16;
use doorbell_fallible::Shared;
use msi_types::explain::{Explanation, Obstacle};
use msi_types::{Cpu, HwIrq, Trigger, WiredParent};

/// Configuration for an interrupt core.
#[non_exhaustive]
pub struct Config {
    /// Number of CPUs that are online or can come online. All [`Cpu`] numbers must be below this
    /// value.
    pub(crate) cpus: NonZeroU16,
    /// The kernel.
    pub(crate) host: Arc<dyn Host>,
    /// The root controller's wired and private interrupts, if the core should manage them. With
    /// `None`, the core refuses requests for wired and private interrupts.
    pub(crate) wired: Option<Arc<dyn WiredParent>>,
    /// Placement policy; `None` selects [`RoundRobin`].
    pub(crate) policy: Option<Arc<dyn AffinityPolicy>>,
    /// The boot CPU, which is online from the start and must be less than `cpus`.
    pub(crate) boot_cpu: Cpu,
}

impl Config {
    /// Creates a configuration with no wired interrupts, [`RoundRobin`] placement, and CPU 0 as the
    /// boot CPU.
    pub fn new(cpus: NonZeroU16, host: Arc<dyn Host>) -> Self {
        Self { cpus, host, wired: None, policy: None, boot_cpu: Cpu::new(0) }
    }

    /// Sets the root controller's wired interrupts.
    pub fn with_wired(self, wired: Arc<dyn WiredParent>) -> Self {
        Self { wired: Some(wired), ..self }
    }

    /// Sets the placement policy.
    pub fn with_policy(self, policy: Arc<dyn AffinityPolicy>) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// Sets the boot CPU.
    pub fn with_boot_cpu(self, boot_cpu: Cpu) -> Self {
        Self { boot_cpu, ..self }
    }
}

msi_types::debug_by!(Config as "Config", |it| {cpus: it.cpus});

/// The interrupt core of one machine.
///
/// Each interrupt has an [`Irq`] that the core assigns, and a [`HwIrq`] by which the root
/// controller acknowledges it. Handlers can be requested for wired interrupts
/// ([`request_wired`](Self::request_wired)), private ones
/// ([`request_per_cpu`](Self::request_per_cpu)) and a device's messages
/// ([`MsiDevice`](crate::MsiDevice)). The returned handle owns the handler.
///
/// **Disabling is eager**: the core masks the interrupt at its source, so dispatch never has to
/// mask it, and a disabled source cannot cause an interrupt storm. If the interrupt was already in
/// flight when it was disabled, the core records the arrival and resends the interrupt when it is
/// enabled.
///
/// All clones refer to the same core, as do the handles and devices created with it. The last of
/// these objects must be dropped in task context.
///
/// In this example, the trap loop dispatches a wired interrupt. `Kernel` implements [`Host`], and
/// `Gic` implements [`WiredParent`]; see [`MsiDevice`](crate::MsiDevice) for message-signaled
/// interrupts:
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
/// # use std::sync::Arc;
/// use irq_domain::{Config, Dispatched, Interrupts, WiredRequest};
///
/// let config = Config::new(NonZeroU16::MIN, Arc::new(Kernel)).with_wired(Arc::new(Gic));
/// let interrupts = Interrupts::new(config)?;
/// let request = WiredRequest::new(HwIrq::new(33), Trigger::Level, "uart");
/// let uart = interrupts.request_wired(request, |context| println!("CPU {}", context.cpu()))?;
///
/// // The trap loop of CPU 0, which has acknowledged INTID 33:
/// assert_eq!(interrupts.dispatch(Cpu::new(0), HwIrq::new(33)), Dispatched::Handled);
/// assert_eq!(uart.count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "irq_desc")]
#[derive(Clone)]
pub struct Interrupts {
    pub(crate) core: Shared<IrqCore>,
}

impl Interrupts {
    /// Creates an interrupt core with no interrupts. Only the boot CPU is online. The kernel must
    /// keep the core alive for as long as its CPUs take interrupts.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub fn new(config: Config) -> Result<Self, TryReserveError> {
        let cpus = config.cpus.get();
        let core = Shared::try_new(IrqCore {
            registry: IrqRegistry::try_new(config.host, cpus)?,
            pool: CpuPool::try_new(cpus.into(), config.boot_cpu, config.policy)?,
            root: RootController::new(config.wired),
            deferred: DeferredFree::new(),
        })?;
        core.registry.runtime().set_online(config.boot_cpu, true);
        Ok(Self { core })
    }

    /// Runs the handler for `hwirq`, which `cpu` has acknowledged. Acquires no lock, allocates
    /// nothing, and doesn't touch the hardware, with two exceptions: it resends an interrupt that
    /// arrived while its handler was running on another CPU, and it disables an interrupt whose
    /// handler [nearly always finds nothing to do](Host::disabled_as_spurious).
    ///
    /// Context: hard IRQ.
    ///
    /// Must be called by the trap loop on `cpu`. Whatever the result, the trap loop must end the
    /// interrupt at the CPU interface itself:
    /// - EOImode 0: read IAR, dispatch, write EOIR. Interrupts of the same or lower priority stay
    ///   pending until the handler returns.
    /// - EOImode 1: read IAR, write EOIR (priority drop), dispatch, write DIR (deactivation; not
    ///   for LPIs, which have no active state). Interrupts can nest, but a message that arrives
    ///   again during its own handler is [deferred](Deferral::Running).
    ///
    /// The trap loop must not call this function for the special INTIDs (1020 to 1023), which are
    /// not vectors.
    #[inline]
    pub fn dispatch(&self, cpu: Cpu, hwirq: HwIrq) -> Dispatched {
        self.core.registry.dispatcher.dispatch(cpu, hwirq)
    }

    /// Claims a wired input of the root controller, installs its handler, routes it to a CPU, and
    /// unmasks it. Dropping the returned handle undoes all of this.
    ///
    /// Context: task; may sleep.
    pub fn request_wired<R: Into<IrqReturn>>(
        &self,
        request: WiredRequest<'_>,
        handler: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<IrqHandle, RequestError> {
        self.request_wired_at(self.core.root.parent()?, request, handler)
    }

    /// Requests a wired interrupt like [`request_wired`](Self::request_wired), but at another
    /// controller with wired inputs. The vectors of all controllers share the number space of
    /// [`dispatch`](Self::dispatch). If the controller's inputs are wired one-to-one to root
    /// inputs, its vectors must be those of the root inputs. If the controller is chained to a
    /// single root input, whose handler dispatches the interrupts that it finds, its vectors must
    /// be numbers below 2^24 that no other controller uses.
    ///
    /// Context: task; may sleep.
    pub fn request_wired_at<R: Into<IrqReturn>>(
        &self,
        parent: &Arc<dyn WiredParent>,
        request: WiredRequest<'_>,
        handler: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<IrqHandle, RequestError> {
        self.reclaim();
        // Drop a refused handler without holding a lock, because its destructor is kernel code.
        let handler = Handler::try_new(handler)?;
        IrqHandle::request_wired(&self.core, parent, request, &handler)
    }

    /// Requests a private interrupt on every CPU (on a GIC: an SGI or PPI). The interrupt has a
    /// single IRQ number and a single handler, which may run on all CPUs concurrently. Each CPU
    /// must enable it with [`PerCpuHandle::enable_here`]; it then stays enabled even if that CPU
    /// goes offline and comes back.
    ///
    /// The root controller's driver sets up priorities and triggers of private interrupts, on each
    /// CPU. On a GIC, a CPU's PPIs are level-sensitive each time the CPU is turned on; if the
    /// device signals edges, that CPU must call the wired parent's `set_trigger` before it enables
    /// the interrupt. If the interrupt arrives again while its own handler is running, the core
    /// records the arrival if `trigger` is an edge, and relies on the source to signal again if it
    /// is a level. The wired parent's `mask`, `unmask` and `set_pending` also accept the private
    /// vector, and act on the calling CPU.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`RequestError::NoWiredParent`] if the core has no wired parent to unmask the interrupt;
    /// [`RequestError::Controller`] if the wired parent has no private interrupt with this number;
    /// [`RequestError::OutOfRange`]; [`RequestError::InUse`].
    pub fn request_per_cpu<R: Into<IrqReturn>>(
        &self,
        hwirq: HwIrq,
        trigger: Trigger,
        name: &str,
        handler: impl Fn(&IrqContext<'_>) -> R + Send + Sync + 'static,
    ) -> Result<PerCpuHandle, RequestError> {
        self.reclaim();
        // Drop a refused handler without holding a lock, because its destructor is kernel code.
        let handler = Handler::try_new(handler)?;
        PerCpuHandle::request(&self.core, (hwirq, trigger), name, &handler)
    }

    /// Frees handlers and devices that were dropped in a context that must not free memory, e.g. in
    /// a hard-IRQ handler, unless they are still in use. Every operation that requests, allocates
    /// or tears down also does this; a kernel that performs no such operation for a long time
    /// should call this function periodically. Does nothing if the caller may not wait.
    ///
    /// Context: task; may sleep.
    pub fn reclaim(&self) {
        self.core.reclaim();
    }

    /// Unmasks the private interrupts that were enabled on the calling CPU before it went offline.
    /// (Controllers mask all of them when a CPU is turned on.) Must be called on each CPU, after
    /// its controller interface was turned on and before [`cpu_online`](Self::cpu_online). Does
    /// nothing on a thread that is not a CPU.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    pub fn cpu_starting(&self) {
        let host = self.core.host();
        let state = host.irq_save();
        if let Some(cpu) = host.current_cpu() {
            self.core.root.unmask_private(&self.core.registry, cpu);
        }
        host.irq_restore(state);
    }

    /// Marks a CPU as online. The CPU's controller interface must already be set up. A managed
    /// interrupt that was shut down because all of its CPUs were offline starts again if this CPU
    /// belongs to its set. No other interrupt moves to this CPU. Calls `stranded` for each managed
    /// interrupt that could not be started and is still shut down; `stranded` must not call the
    /// core.
    ///
    /// Context: task; may sleep.
    pub fn cpu_online(&self, cpu: Cpu, stranded: impl FnMut(Stranded)) -> Result<(), UnknownCpu> {
        self.core.pool.set_online(&self.core.registry, cpu, true, stranded)
    }

    /// Marks a CPU as offline: moves all interrupts away from it, and prevents moves to it. A
    /// managed interrupt without any other CPU is shut down until one is online again. Calls
    /// `stranded` for each interrupt that could not be moved; `stranded` must not call the core.
    /// The operation never fails for lack of memory. The CPU must still be taking interrupts during
    /// the call, and must continue to do so until it has handled all interrupts that are pending at
    /// its controller interface.
    ///
    /// Context: task; may sleep.
    pub fn cpu_offline(&self, cpu: Cpu, stranded: impl FnMut(Stranded)) -> Result<(), UnknownCpu> {
        self.core.pool.set_online(&self.core.registry, cpu, false, stranded)
    }

    /// Returns the configured number of CPUs.
    ///
    /// Context: any.
    pub fn cpus(&self) -> usize {
        self.runtime().cpus()
    }

    /// Returns `true` if this CPU may be an interrupt's target.
    ///
    /// Context: any.
    pub fn is_online(&self, cpu: Cpu) -> bool {
        self.runtime().is_online(cpu)
    }

    /// Returns the online CPUs in ascending order.
    ///
    /// Context: task; may sleep.
    pub fn online_cpus(&self) -> impl Iterator<Item = Cpu> {
        (0..).map(Cpu::new).take(self.cpus()).filter(|cpu| self.is_online(*cpu))
    }

    /// Moves an interrupt to another CPU. On return, no new arrival is delivered to the old CPU; an
    /// interrupt that was pending at the old CPU is handled once, on either CPU. The steps are the
    /// same for every controller: the controller prepares the new target; if the message changes,
    /// the endpoint is masked, rewritten and read back; then the controller finishes. If a step
    /// fails, the previous ones are rolled back.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// See [`MoveError`], in particular [`MsiError::WouldTear`](msi_types::MsiError::WouldTear).
    pub fn set_affinity(&self, irq: Irq, to: Cpu) -> Result<Moved, MoveError> {
        let registry = &self.core.registry;
        let descriptor = registry.find(irq).ok_or(MoveError::UnknownIrq(irq))?;
        affinity::set_affinity(registry, &descriptor, to)
    }

    /// Returns an interrupt's target CPU, or `None` if the interrupt is private or unknown.
    ///
    /// Context: task; may sleep.
    pub fn effective_affinity(&self, irq: Irq) -> Option<Cpu> {
        let descriptor = self.core.registry.find(irq)?;
        match descriptor.source {
            Source::PerCpu(_) => None,
            Source::Device(_) | Source::Wired(_) => Some(descriptor.target()),
        }
    }

    /// Returns information on all interrupts, in ascending order. The counters may change during
    /// the call.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub fn snapshot(&self) -> Result<Vec<IrqInfo>, TryReserveError> {
        let mut all = Vec::new();
        for descriptor in self.core.registry.each() {
            all.try_reserve(1)?;
            all.push(IrqInfo::of(self.core.registry.interrupt(&descriptor))?);
        }
        Ok(all)
    }

    /// Returns information on one interrupt, or `None` if it does not exist.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// The kernel's heap is exhausted.
    pub fn irq_info(&self, irq: Irq) -> Result<Option<IrqInfo>, TryReserveError> {
        let registry = &self.core.registry;
        registry.find(irq).map(|found| IrqInfo::of(registry.interrupt(&found))).transpose()
    }

    /// Writes an interrupt's hierarchy in readable form, one level per line from the device to the
    /// root, like Linux's debugfs. Allocates nothing.
    ///
    /// Context: task; may sleep.
    pub fn describe(&self, irq: Irq, out: &mut dyn fmt::Write) -> fmt::Result {
        match self.core.registry.find(irq) {
            Some(found) => info::describe(self.core.registry.interrupt(&found), out),
            None => writeln!(out, "irq {irq}: does not exist"),
        }
    }

    /// Explains why an interrupt's handler does not run. In contrast to
    /// [`describe`](Self::describe), reads back the state of the device, the IOMMU and the
    /// controllers. The machine keeps running, so the stages may have been read at different times.
    /// The target's CPU interface is not examined, because only the target itself can read it. For
    /// a private interrupt, the explanation applies to the calling CPU. Does not allocate. Returns
    /// `None` if the interrupt does not exist.
    ///
    /// Context: task; may sleep.
    pub fn explain(&self, irq: Irq) -> Option<Explanation> {
        let registry = &self.core.registry;
        Some(info::explain(registry.interrupt(&*registry.find(irq)?)))
    }

    /// Like [`explain`](Self::explain), but identifies the interrupt by the number with which the
    /// root controller acknowledges it. The interrupt need not have a descriptor.
    ///
    /// Context: task; may sleep.
    pub fn explain_vector(&self, hwirq: HwIrq) -> Explanation {
        match self.core.registry.find_hwirq(hwirq, |_| true) {
            Some(found) => info::explain(self.core.registry.interrupt(&found)),
            None => Explanation::stopped(Obstacle::NoDescriptor { interrupt: hwirq }),
        }
    }

    /// Returns the total number of redeliveries.
    ///
    /// Context: any.
    pub fn redelivered(&self) -> u64 {
        self.runtime().redelivered()
    }

    fn runtime(&self) -> &Runtime {
        self.core.registry.runtime()
    }
}

/// Includes the number of interrupts if the caller [may wait](crate::TaskContext::may_wait) for a
/// lock.
impl fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Interrupts");
        let (online, cpus) = (self.online_cpus().count(), self.cpus());
        out.field("cpus", &format_args!("{online} of {cpus} online"));
        out.field("redelivered", &self.redelivered());
        if self.core.host().may_wait() {
            out.field("interrupts", &self.core.registry.each().count());
        }
        out.finish_non_exhaustive()
    }
}
