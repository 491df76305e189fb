//! The top-level object: owns all of a machine's interrupt controllers.

use crate::config::{self, Options, RootConfig};
use crate::error::{BringUpError, ControllerError, DriverError, NoParent};
use crate::msi::{MsiController, MsiControllerSet, QuietItses, Site};
use crate::root::RootGic;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::marker::PhantomData;
use doorbell_fallible::try_collect;
use gic_arch::{Affinity, IntId, Lpi, Priority, SgiId};
use gic_driver::cpu_interface::{Active, CombinedEoi, EoiMode, SplitEoi};
use gic_driver::{GicError, GicPlatform, SystemRegisters};
use gic_firmware::{ControllerIndex, Description, PciHost};
use irq_domain::{Config, Dispatched, Host, Interrupts, Irq, Unhandled};
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::pci::PciRequester;
use msi_types::{Cpu, DeviceId, HwIrq, MsiParent, RequesterId, Surroundings};

/// A machine's running interrupt controllers, and the interrupt core on top of them. A kernel must
/// not drop the irqchip while its CPUs take interrupts.
///
/// The type parameter `E` selects how interrupts are ended: [`CombinedEoi`] in most kernels,
/// [`SplitEoi`](gic_driver::cpu_interface::SplitEoi) in hypervisors whose guests deactivate
/// interrupts ([`split`](Self::split)).
///
/// The [crate's example](crate#example) boots a machine. The trap loop of a kernel calls
/// [`handle_irq`](Self::handle_irq):
///
/// ```
/// use gic_bringup::Irqchip;
/// use gic_driver::{GicPlatform, SystemRegisters};
///
/// fn on_irq<K: GicPlatform>(irqchip: &Irqchip<K>, kernel: &K, registers: &impl SystemRegisters) {
///     irqchip.handle_irq(kernel.cpu(), registers, |hwirq, reason| {
///         println!("interrupt {hwirq}: {reason:?}");
///     });
/// }
/// ```
#[doc(alias = "IRQCHIP_DECLARE")]
pub struct Irqchip<P: GicPlatform, E = CombinedEoi> {
    pub(crate) description: Arc<Description>,
    pub(crate) platform: Arc<P>,
    pub(crate) affinities: Vec<Affinity>,
    pub(crate) gic: RootGic<P>,
    pub(crate) msi: MsiControllerSet<P>,
    pub(crate) interrupts: Interrupts,
    surroundings: Surroundings,
    mode: PhantomData<fn() -> E>,
}

impl<P: GicPlatform + 'static> Irqchip<P> {
    /// Initializes every controller that firmware enables. Must be called once. No CPU takes
    /// interrupts yet: each CPU, including the boot CPU, must call [`cpu_on`](Self::cpu_on).
    ///
    /// Context: task; may sleep.
    ///
    /// The calling CPU is the boot CPU. Its CPU number is the value that [`GicPlatform::cpu`]
    /// returns (0 in most kernels), regardless of its position in the description. The other CPUs
    /// are numbered in the description's order ([`affinity`](Self::affinity)).
    /// [`GicPlatform::affinity`] identifies the boot CPU. If that function returns `None`, or if
    /// firmware specifies no matching affinity for a GICv2, the kernel must number CPUs in the
    /// description's order itself.
    ///
    /// An MSI controller that can't be used is not an error here. Such a controller is listed by
    /// [`refused`](Self::refused), and devices whose messages firmware routes to it have no parent.
    ///
    /// # Errors
    /// Any [`BringUpError`].
    pub fn new(
        platform: Arc<P>,
        host: Arc<dyn Host>,
        description: impl Into<Arc<Description>>,
    ) -> Result<Self, BringUpError> {
        Self::with(platform, host, description, &Options::default())
    }

    /// Like [`new`](Self::new), but takes [`Options`].
    ///
    /// # Errors
    /// Any error of [`new`](Self::new).
    pub fn with(
        platform: Arc<P>,
        host: Arc<dyn Host>,
        description: impl Into<Arc<Description>>,
        options: &Options<'_>,
    ) -> Result<Self, BringUpError> {
        Self::bring_up(platform, host, description.into(), options)
    }
}

impl<P: GicPlatform + 'static> Irqchip<P, SplitEoi> {
    /// Like [`with`](Irqchip::with), but configures the CPU interfaces for a hypervisor, so that an
    /// end of interrupt only drops the running priority. An active interrupt can then be handed
    /// over to a guest, which deactivates it ([`handle_irq_with`](Self::handle_irq_with)).
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Any error of [`Irqchip::new`].
    pub fn split(
        platform: Arc<P>,
        host: Arc<dyn Host>,
        description: impl Into<Arc<Description>>,
        options: &Options<'_>,
    ) -> Result<Self, BringUpError> {
        Self::bring_up(platform, host, description.into(), options)
    }
}

impl<P: GicPlatform + 'static, E: EoiMode> Irqchip<P, E> {
    fn bring_up(
        platform: Arc<P>,
        host: Arc<dyn Host>,
        description: Arc<Description>,
        options: &Options<'_>,
    ) -> Result<Self, BringUpError> {
        let boot_cpu = platform.cpu();
        let known = platform.affinity().map(|affinity| (boot_cpu, affinity));
        let affinities = config::cpus(&description, options, known)?;
        let in_order = try_collect(affinities.iter().copied())?;
        let config = RootConfig::with_cpus(&description, options, in_order)?;
        let cpus = config.cpus();
        let itses = QuietItses::new(&platform, &description, &config, options)?;
        let gic = RootGic::new(platform.clone(), config)?;
        let mut config =
            Config::new(cpus, Arc::clone(&host)).with_wired(gic.wired()).with_boot_cpu(boot_cpu);
        if let Some(policy) = &options.policy {
            config = config.with_policy(policy.clone());
        }
        let interrupts = Interrupts::new(config)?;
        let surroundings = match description.hypervisor {
            Some(_) => options.surroundings.beside_hypervisor(),
            None => options.surroundings,
        };
        let site = Site {
            description: &description,
            gic: &gic,
            platform: &platform,
            itses,
            interrupts: &interrupts,
            options,
            surroundings,
            host,
        };
        let msi = MsiControllerSet::new(&site)?;
        let mode = PhantomData;
        Ok(Self { description, platform, affinities, gic, msi, interrupts, surroundings, mode })
    }

    /// Returns the MSI parent for a PCI function.
    ///
    /// For a function behind a bridge to conventional PCI, `requester` must include the alias,
    /// which [`irq_domain::pci::enumerate`] finds. To an ITS, all functions that share an alias are
    /// a single device, and its driver reserves events for all of them.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Any [`NoParent`] error; the variant distinguishes firmware errors, unused controllers and a
    /// lack of memory.
    pub fn pci_parent(
        &self,
        host: &PciHost,
        requester: impl Into<PciRequester>,
    ) -> Result<Arc<dyn MsiParent>, NoParent> {
        self.msi.of_pci(&self.description, host, requester.into())
    }

    /// Returns the MSI parent for a single device whose messages reach `controller` with this
    /// DeviceID. `requester` may be any number that uniquely identifies the device.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`NoParent::NotInUse`], and [`NoParent::NoRoute`] if firmware disables the controller.
    pub fn device_parent(
        &self,
        controller: ControllerIndex,
        requester: RequesterId,
        device: DeviceId,
    ) -> Result<Arc<dyn MsiParent>, NoParent> {
        self.msi.of_device(&self.description, controller, requester, device)
    }

    /// Returns a controller's driver.
    ///
    /// # Errors
    /// [`NoParent::NotInUse`], and [`NoParent::NoRoute`] if firmware disables the controller.
    pub fn controller(&self, index: ControllerIndex) -> Result<&MsiController<P>, NoParent> {
        self.msi.driver(index)
    }

    /// Returns the MSI controllers in use.
    pub fn controllers(&self) -> impl Iterator<Item = (ControllerIndex, &MsiController<P>)> {
        self.msi.iter()
    }

    /// Returns the MSI controllers that firmware enables but the irqchip doesn't use, with the
    /// reasons.
    pub fn refused(&self) -> impl Iterator<Item = (ControllerIndex, ControllerError)> {
        self.msi.refused()
    }
}

impl<P: GicPlatform> Irqchip<P, SplitEoi> {
    /// Handles the CPU's pending interrupts in a hypervisor, like
    /// [`handle_irq`](Self::handle_irq). After the handlers of an interrupt have run, `finish`
    /// receives the interrupt, and must either [hand it over](Active::hand_over) to a guest or
    /// return it to be deactivated.
    ///
    /// Context: hard IRQ.
    #[inline]
    pub fn handle_irq_with(
        &self,
        cpu: Cpu,
        registers: &impl SystemRegisters,
        mut finish: impl FnMut(Active) -> Option<Active>,
        mut unhandled: impl FnMut(HwIrq, Unhandled),
    ) {
        self.gic.take_all_split(registers, |active| {
            self.dispatch(cpu, active.intid(), &mut unhandled);
            finish(active)
        });
    }
}

impl<P: GicPlatform, E: EoiMode> Irqchip<P, E> {
    /// Handles the CPU's pending interrupts: acknowledges each interrupt and runs its handlers,
    /// until no interrupt is pending. `unhandled` is called for each interrupt that has no handler,
    /// or whose handlers all returned [`IrqReturn::None`](irq_domain::IrqReturn::None). This
    /// closure should log the interrupt instead of panicking, because a device without a driver may
    /// assert a shared line. `registers` must belong to the calling CPU (not used with a GICv2).
    ///
    /// Context: hard IRQ.
    #[inline]
    pub fn handle_irq(
        &self,
        cpu: Cpu,
        registers: &impl SystemRegisters,
        mut unhandled: impl FnMut(HwIrq, Unhandled),
    ) {
        if E::SPLIT {
            self.gic.take_all_split(registers, |active| {
                self.dispatch(cpu, active.intid(), &mut unhandled);
                Some(active)
            });
        } else {
            self.gic.take_all(registers, |intid| self.dispatch(cpu, intid, &mut unhandled));
        }
    }

    #[inline]
    fn dispatch(&self, cpu: Cpu, intid: IntId, unhandled: &mut impl FnMut(HwIrq, Unhandled)) {
        let vector = intid.hwirq();
        if let Dispatched::Unhandled(why) = self.interrupts.dispatch(cpu, vector) {
            unhandled(vector, why);
        }
    }

    /// Sends an SGI to CPUs that are on. The SGI's handler must be registered with
    /// [`Interrupts::request_per_cpu`]. Stores made before the call are visible to the receivers.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// Any error of [`RootGic::send`].
    pub fn send_ipi(
        &self,
        sgi: SgiId,
        to: &[Cpu],
        registers: &impl SystemRegisters,
    ) -> Result<(), GicError> {
        self.gic.send(sgi, to, registers)
    }

    /// Sends an SGI to all CPUs except the calling one.
    ///
    /// Context: any.
    pub fn send_ipi_to_others(&self, sgi: SgiId, registers: &impl SystemRegisters) {
        self.gic.send_to_others(sgi, registers);
    }

    /// Explains why an interrupt's handler does not run, like
    /// [`Interrupts::explain`](irq_domain::Interrupts::explain). If the interrupt is routed to the
    /// calling CPU, `cpu`, also examines this CPU's interface. The caller must not migrate to
    /// another CPU during the call. Returns `None` if the interrupt does not exist.
    ///
    /// If the interrupt is routed to another CPU, that CPU's interface is not examined. To include
    /// it, a kernel can send an IPI to that CPU, which calls
    /// [`explain_cpu_interface`](Self::explain_cpu_interface).
    ///
    /// Context: task; may sleep.
    pub fn explain(
        &self,
        irq: Irq,
        cpu: Cpu,
        registers: &impl SystemRegisters,
    ) -> Option<Explanation> {
        Some(self.explain_cpu_interface(self.interrupts.explain(irq)?, cpu, registers))
    }

    /// Adds the interface of the calling CPU, `cpu`, to an explanation, if the interrupt reaches
    /// this CPU. On a GICv2, `registers` is used only to read whether IRQ exceptions are
    /// [masked](SystemRegisters::irqs_masked).
    ///
    /// Context: any.
    pub fn explain_cpu_interface(
        &self,
        explanation: Explanation,
        cpu: Cpu,
        registers: &impl SystemRegisters,
    ) -> Explanation {
        match signal_at(&explanation, cpu) {
            Some((interrupt, priority)) => {
                explanation.merge(self.gic.explain_interface((cpu, registers), interrupt, priority))
            }
            None => explanation,
        }
    }

    /// Returns the interrupt core.
    pub fn interrupts(&self) -> &Interrupts {
        &self.interrupts
    }

    /// Returns the root controller.
    pub fn gic(&self) -> &RootGic<P> {
        &self.gic
    }

    /// Returns the kernel's surroundings: those that the [options](Options::with_surroundings)
    /// state, unless firmware names a hypervisor.
    pub fn surroundings(&self) -> Surroundings {
        self.surroundings
    }

    /// Returns the description that was used for bring-up.
    pub fn description(&self) -> &Arc<Description> {
        &self.description
    }

    /// Returns a CPU's affinity in `MPIDR_EL1` layout (the `target_cpu` of PSCI's `CPU_ON`), or
    /// `None` if the CPU does not exist. Context: any.
    pub fn affinity(&self, cpu: Cpu) -> Option<Affinity> {
        self.affinities.get(cpu.index()).copied()
    }

    /// Returns the number of the CPU with this affinity, if it exists. Context: any.
    pub fn cpu_with(&self, affinity: Affinity) -> Option<Cpu> {
        self.cpus().zip(&self.affinities).find(|(_, known)| **known == affinity).map(|(cpu, _)| cpu)
    }

    /// Returns all CPUs, both online and offline.
    pub fn cpus(&self) -> impl Iterator<Item = Cpu> + use<P, E> {
        (0..u32::try_from(self.interrupts.cpus()).unwrap_or(0)).map(Cpu::new)
    }
}

impl<P: GicPlatform, E> Irqchip<P, E> {
    /// Changes the priority of an interrupt, in the GIC's [security
    /// view](gic_driver::SecurityView). An LPI must be mapped by an MSI controller, and the two low
    /// bits of its priority are ignored. An SGI's or PPI's priority is per-CPU: it changes only on
    /// the calling CPU, and must be set again whenever that CPU is turned on.
    ///
    /// Kernels can implement pseudo-NMIs with this function: interrupts above a priority threshold
    /// are still signaled while the kernel masks all other interrupts with
    /// [`CpuInterface::mask_below`](gic_driver::CpuInterface::mask_below). A higher-priority
    /// interrupt also preempts a running handler if the kernel unmasks interrupts in the handler.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// Any [`DriverError`]. If the MSI controller does not respond, the priority may have changed
    /// in memory but not at the redistributor.
    pub fn set_priority(&self, hwirq: HwIrq, priority: Priority) -> Result<(), DriverError> {
        match Lpi::try_from(hwirq.get()) {
            Ok(lpi) => self.msi.set_priority(lpi, priority),
            Err(_) => Ok(self.gic.set_priority(IntId::from(hwirq), priority)?),
        }
    }
}

/// Returns the interrupt and its priority, if it targets this CPU and is not active: the running
/// priority is then its own.
fn signal_at(explanation: &Explanation, cpu: Cpu) -> Option<(HwIrq, Priority)> {
    let (mut interrupt, mut priority, mut here) = (None, None, false);
    for fact in explanation.facts() {
        match fact {
            Fact::Event { interrupt: known, .. }
            | Fact::MessageIntid(known)
            | Fact::Input(known) => {
                interrupt = Some(known);
            }
            Fact::Enabled(known) => priority = Some(Priority::new(known)),
            Fact::Target(target, _) | Fact::Routed(target) => here = target == cpu,
            _ => {}
        }
    }
    let is_active = explanation.obstacles().any(|it| matches!(it, Obstacle::Active { .. }));
    interrupt.zip(priority).filter(|_| here && !is_active)
}

msi_types::debug_by!(
    [P: GicPlatform, E] Irqchip<P, E> as "Irqchip",
    |it| {gic: it.gic, controllers: it.msi, interrupts: it.interrupts}
);
