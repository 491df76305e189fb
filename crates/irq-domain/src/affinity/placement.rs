//! Interrupt placement and CPU hotplug. The core reserves memory for hotplug when it is created, so
//! taking a CPU offline moves its interrupts without allocating.

use crate::affinity::{
    AffinityPolicy, Candidates, Hotplug, Moved, Placement, RoundRobin, first_of, first_reachable,
};
use crate::error::{MoveError, Stranded, UnknownCpu};
use crate::irq::descriptor::{Descriptor, Source};
use crate::irq::registry::IrqRegistry;
use crate::runtime::Host;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;
use doorbell_fallible::Shared;
use doorbell_fallible::lock::{TaskReadGuard, TaskRwLock};
use msi_types::Cpu;

/// The online CPUs, and the policy that chooses among them.
pub(crate) struct CpuPool {
    /// Lock that is held for reading while a new interrupt's CPU is chosen, and for writing while a
    /// CPU goes online or offline.
    hotplug: TaskRwLock<Hotplug>,
    /// The kernel's policy; `round_robin` if it has none.
    policy: Option<Arc<dyn AffinityPolicy>>,
    round_robin: RoundRobin,
}

/// The online CPUs. No CPU can go online or offline while this is held, so a new interrupt is
/// visible at its CPU before that CPU can go offline.
pub(crate) struct OnlineCpus<'a>(TaskReadGuard<'a, Hotplug>);

impl Deref for OnlineCpus<'_> {
    type Target = [Cpu];

    fn deref(&self) -> &[Cpu] {
        &self.0.online
    }
}

impl CpuPool {
    /// Creates the initial state, with only the boot CPU online.
    pub(crate) fn try_new(
        cpus: usize,
        boot_cpu: Cpu,
        policy: Option<Arc<dyn AffinityPolicy>>,
    ) -> Result<Self, TryReserveError> {
        let hotplug = TaskRwLock::new(Hotplug::try_new(cpus, boot_cpu)?);
        Ok(Self { hotplug, policy, round_robin: RoundRobin::default() })
    }

    /// Context: task; may sleep.
    pub(crate) fn online_cpus(&self, host: &dyn Host) -> OnlineCpus<'_> {
        OnlineCpus(self.hotplug.read(host))
    }

    /// Asks the policy to choose among the online CPUs. Returns `None` if none is online.
    ///
    /// Context: task; may sleep.
    pub(crate) fn choose(&self, place: &Placement<'_>) -> Option<Cpu> {
        let first = *place.online.first()?;
        let policy = self.policy.as_deref().unwrap_or(&self.round_robin);
        let chosen = policy.choose(place);
        Some(if place.online.contains(&chosen) { chosen } else { first })
    }

    /// Marks a CPU as online, and starts interrupts that were shut down because they had no CPU; or
    /// marks it as offline, and moves every interrupt away from it.
    ///
    /// Context: task; may sleep.
    pub(crate) fn set_online(
        &self,
        registry: &IrqRegistry,
        cpu: Cpu,
        is_online: bool,
        mut stranded: impl FnMut(Stranded),
    ) -> Result<(), UnknownCpu> {
        let (runtime, host) = (registry.runtime(), registry.host());
        runtime.check_known(cpu)?;
        let mut hotplug = self.hotplug.write(host);
        runtime.set_online(cpu, is_online);
        hotplug.set_online(cpu, is_online);
        for descriptor in registry.each() {
            let done = if is_online {
                start(registry, &descriptor, cpu)
            } else {
                self.evacuate(registry, &descriptor, cpu, &mut hotplug)
            };
            if let Err(error) = done {
                stranded(Stranded { irq: descriptor.irq, error });
            }
        }
        Ok(())
    }

    /// Moves an interrupt away from `from` if it targets that CPU.
    fn evacuate(
        &self,
        registry: &IrqRegistry,
        descriptor: &Descriptor,
        from: Cpu,
        hotplug: &mut Hotplug,
    ) -> Result<(), MoveError> {
        // The vectors of a line follow it.
        if descriptor.line().is_some() || descriptor.settled_target(registry.host()) != Some(from) {
            return Ok(());
        }
        let Hotplug { online, room } = hotplug;
        let relocate = |cpu| descriptor.relocate(registry.runtime(), cpu, None).map(drop);
        if let Some(among) = &descriptor.among {
            let moved = first_of(least_managed(registry, among, online, room), relocate);
            return moved.map_or_else(
                || {
                    registry.interrupt(descriptor).shut_down();
                    Ok(())
                },
                unless_unknown,
            );
        }
        let place = Placement::of(descriptor, online);
        let choice = self.choose(&place).ok_or(MoveError::Offline(from))?;
        unless_unknown(first_reachable(choice, online, relocate))
    }
}

/// Returns the online CPUs of `among`, the one with the fewest managed interrupts first.
///
/// Context: task; may sleep.
pub(crate) fn least_managed<'a>(
    registry: &IrqRegistry,
    among: &[Cpu],
    online: &[Cpu],
    candidates: &'a mut Candidates,
) -> &'a [Cpu] {
    registry.with_managed_targets(|targets| candidates.least_managed(among, online, targets))
}

/// Moves an interrupt to another CPU.
///
/// Context: task; may sleep.
pub(crate) fn set_affinity(
    registry: &IrqRegistry,
    descriptor: &Descriptor,
    to: Cpu,
) -> Result<Moved, MoveError> {
    let mut others = Vec::new();
    if matches!(descriptor.source, Source::Wired(_)) {
        let of_line =
            |one: &Shared<Descriptor>| one.line().is_some_and(|line| line.irq == descriptor.irq);
        for follower in registry.each().filter(of_line) {
            others.try_reserve(1)?;
            others.push(follower.irq);
        }
    }
    let is_new = descriptor.relocate(registry.runtime(), to, Some(&mut others))?;
    if !is_new {
        others.clear();
    }
    Ok(Moved { to, is_new, others })
}

/// Starts a managed interrupt that was shut down, if `cpu` belongs to its set.
fn start(registry: &IrqRegistry, descriptor: &Descriptor, cpu: Cpu) -> Result<(), MoveError> {
    let managed = descriptor.among.as_ref().is_some_and(|among| among.contains(&cpu));
    if !managed || !descriptor.control.lock(registry.host()).is_shut_down() {
        return Ok(());
    }
    unless_unknown(descriptor.relocate(registry.runtime(), cpu, None).map(drop))?;
    registry.interrupt(descriptor).start();
    Ok(())
}

/// Treats an interrupt that was concurrently freed as moved.
fn unless_unknown(moved: Result<(), MoveError>) -> Result<(), MoveError> {
    match moved {
        Err(MoveError::UnknownIrq(_)) => Ok(()),
        other => other,
    }
}
