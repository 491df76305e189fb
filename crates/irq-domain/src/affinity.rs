//! CPU affinity: the kernel's policy, the online CPUs, moves between CPUs, and CPU hotplug.
//!
//! An interrupt's CPU is the policy's choice if the controller can reach it, otherwise another
//! online CPU. The core reserves memory for hotplug when it is created, so taking a CPU offline
//! moves its interrupts without allocating.

use crate::error::{MoveError, Stranded, UnknownCpu};
use crate::irq::descriptor::{Descriptor, Source};
use crate::irq::registry::IrqRegistry;
use crate::name::Irq;
use crate::runtime::Host;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;
use core::sync::atomic::{AtomicUsize, Ordering};
use doorbell_fallible::lock::{TaskReadGuard, TaskRwLock};
use doorbell_fallible::{Shared, try_collect};
use msi_types::{Cpu, HwIrq, MsiError, RequesterId};

impl<'a> Placement<'a> {
    /// Describes an interrupt that has its number already.
    pub(crate) fn of(descriptor: &'a Descriptor, online: &'a [Cpu]) -> Self {
        let Source::Device(source) = &descriptor.source else {
            return Self::wired(descriptor.hwirq, online);
        };
        let (device, requester, slot) = source.slot();
        let vector = PlacedVector::Slot(slot);
        Self { online, device: Some(device), requester: Some(requester), vector }
    }

    /// Describes a wired interrupt.
    pub(crate) const fn wired(hwirq: HwIrq, online: &'a [Cpu]) -> Self {
        let vector = PlacedVector::Wired(hwirq);
        Self { online, device: None, requester: None, vector }
    }
}

/// Tries `choice`, then the other online CPUs, until one can be reached. A CPU can't be reached if
/// the controller cannot deliver to it, or if the CPU's doorbell doesn't fit the endpoint's address
/// register.
pub(crate) fn first_reachable<T, E: Unreachable>(
    choice: Cpu,
    online: &[Cpu],
    mut attempt: impl FnMut(Cpu) -> Result<T, E>,
) -> Result<T, E> {
    match attempt(choice) {
        Err(error) if error.is_unreachable() => {
            let others = online.iter().filter(|cpu| **cpu != choice);
            first_of(others, attempt).unwrap_or(Err(error))
        }
        result => result,
    }
}

/// Tries `cpus` in order until one can be reached. Returns `None` if `cpus` is empty.
pub(crate) fn first_of<'a, T, E: Unreachable>(
    cpus: impl IntoIterator<Item = &'a Cpu>,
    mut attempt: impl FnMut(Cpu) -> Result<T, E>,
) -> Option<Result<T, E>> {
    let mut last = None;
    for cpu in cpus {
        match attempt(*cpu) {
            Err(error) if error.is_unreachable() => last = Some(Err(error)),
            result => return Some(result),
        }
    }
    last
}

/// Returns `true` if the error means that another CPU should be tried.
pub(crate) trait Unreachable {
    fn is_unreachable(&self) -> bool;
}

impl Unreachable for MsiError {
    fn is_unreachable(&self) -> bool {
        matches!(self, Self::NotReachable(..) | Self::AddressTooWide { .. })
    }
}

impl Unreachable for MoveError {
    fn is_unreachable(&self) -> bool {
        matches!(self, Self::Controller(error) if error.is_unreachable())
    }
}

/// The online CPUs.
pub(crate) struct Hotplug {
    /// The online CPUs, in ascending order.
    pub(crate) online: Vec<Cpu>,
    pub(crate) room: Candidates,
}

impl Hotplug {
    /// Creates a list with only the boot CPU, and room for all CPUs.
    pub(crate) fn try_new(cpus: usize, boot_cpu: Cpu) -> Result<Self, TryReserveError> {
        let mut online = Vec::new();
        online.try_reserve_exact(cpus)?;
        online.push(boot_cpu);
        Ok(Self { online, room: Candidates::try_new(cpus)? })
    }

    /// Adds or removes a CPU.
    pub(crate) fn set_online(&mut self, cpu: Cpu, is_online: bool) {
        self.online.retain(|other| *other != cpu);
        if is_online {
            let at = self.online.partition_point(|other| *other < cpu);
            self.online.insert(at, cpu);
        }
    }
}

/// Preallocated memory for a list of candidate CPUs, and for each CPU's number of managed
/// interrupts.
pub(crate) struct Candidates {
    pub(crate) cpus: Vec<Cpu>,
    pub(crate) load: Vec<u32>,
}

impl Candidates {
    pub(crate) fn try_new(cpus: usize) -> Result<Self, TryReserveError> {
        let mut list = Vec::new();
        list.try_reserve_exact(cpus)?;
        Ok(Self { cpus: list, load: try_collect((0..cpus).map(|_| 0))? })
    }

    /// Returns the online CPUs of `among`, the one with the fewest managed interrupts first.
    /// `managed` yields the target of each managed interrupt.
    pub(crate) fn least_managed(
        &mut self,
        among: &[Cpu],
        online: &[Cpu],
        managed: impl Iterator<Item = Cpu>,
    ) -> &[Cpu] {
        let Self { cpus, load } = self;
        load.fill(0);
        for target in managed {
            if let Some(load) = load.get_mut(target.index()) {
                *load += 1;
            }
        }
        cpus.clear();
        for cpu in among {
            if online.contains(cpu) && !cpus.contains(cpu) {
                let load_of = |cpu: &Cpu| load.get(cpu.index()).copied();
                let at = cpus.partition_point(|other| load_of(other) <= load_of(cpu));
                cpus.insert(at, *cpu);
            }
        }
        cpus
    }
}

/// The interrupt that a policy places, and the CPUs that it may choose. The core itself chooses the
/// CPUs of a [managed](crate::MsiDevice::allocate_managed) interrupt.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Placement<'a> {
    /// The online CPUs to choose from, in ascending order. Never empty.
    pub online: &'a [Cpu],
    /// Name of the device's domain; `None` for a wired interrupt.
    pub device: Option<&'a str>,
    /// The device's requester ID; `None` for a wired interrupt.
    pub requester: Option<RequesterId>,
    /// The vector. For a group whose vectors move together, this is one of them.
    pub vector: PlacedVector,
}

/// A vector as a policy knows it: new device vectors are placed before the controller numbers them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PlacedVector {
    /// Slot in the device's message store.
    Slot(u16),
    /// A wired interrupt's number at the root controller.
    Wired(HwIrq),
}

/// A policy that chooses CPUs for new interrupts, and for interrupts whose CPU goes offline.
/// Kernels can supply their own policy.
pub trait AffinityPolicy: Send + Sync {
    /// Chooses one of [`Placement::online`]. If the result isn't one of these CPUs, the core uses
    /// the first one.
    ///
    /// Context: task; may sleep.
    fn choose(&self, of: &Placement<'_>) -> Cpu;
}

/// The default policy: round-robin over the online CPUs.
#[derive(Debug, Default)]
pub struct RoundRobin {
    next: AtomicUsize,
}

impl AffinityPolicy for RoundRobin {
    fn choose(&self, Placement { online, .. }: &Placement<'_>) -> Cpu {
        let turn = self.next.fetch_add(1, Ordering::SeqCst);
        online.get(turn % online.len().max(1)).copied().unwrap_or_default()
    }
}

/// Distributes `cpus` over `vectors` vectors as evenly as possible: the number of vectors varies by
/// at most one between CPUs, and the number of CPUs by at most one between vectors. For example, a
/// device can [manage](crate::MsiDevice::allocate_managed) one queue per set. With fewer vectors
/// than CPUs, each vector has CPUs that are adjacent in `cpus`; with more, several vectors share a
/// CPU. To keep each queue's CPUs on one NUMA node, order `cpus` by node. Returns an empty iterator
/// if `cpus` is empty.
///
/// ```
/// use irq_domain::spread;
/// use msi_types::Cpu;
///
/// let cpus = [0, 1, 2, 3, 4].map(Cpu::new);
/// assert!(spread(2, &cpus).eq([&cpus[..2], &cpus[2..]]));
/// assert!(spread(6, &cpus[..2]).flatten().eq(&[0, 0, 0, 1, 1, 1].map(Cpu::new)));
/// ```
pub fn spread(vectors: u16, cpus: &[Cpu]) -> impl ExactSizeIterator<Item = &[Cpu]> {
    let begin = move |vector: u16| usize::from(vector) * cpus.len() / usize::from(vectors);
    let share = move |vector| {
        let end = begin(vector + 1).max(begin(vector) + 1);
        cpus.get(begin(vector)..end).unwrap_or_default()
    };
    (0..if cpus.is_empty() { 0 } else { vectors }).map(share)
}

/// An affinity change that took effect.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Moved {
    /// The interrupts' new effective affinity.
    pub to: Cpu,
    /// `false` if the interrupt already had this affinity.
    pub is_new: bool,
    /// The interrupts that moved together with the requested one: a Multi-MSI group whose message
    /// encodes the target CPU can only move as a whole, and a chained controller's vectors follow
    /// its line.
    pub others: Vec<Irq>,
}

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

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_robin_visits_every_online_cpu_equally() {
        let policy = RoundRobin::default();
        let online = [Cpu::new(0), Cpu::new(3), Cpu::new(7)];
        let place = Placement {
            online: &online,
            device: None,
            requester: None,
            vector: PlacedVector::Wired(HwIrq::new(40)),
        };
        let chosen: Vec<_> = (0..6).map(|_| policy.choose(&place).get()).collect();
        assert_eq!(chosen, [0, 3, 7, 0, 3, 7]);
    }

    #[test]
    fn spread_assigns_cpus_evenly_to_within_one() {
        for cpus in 1..20 {
            let all: Vec<_> = (0..cpus).map(Cpu::new).collect();
            for vectors in 1..40 {
                let shares: Vec<_> = spread(vectors, &all).collect();
                assert_eq!(shares.len(), usize::from(vectors));
                let sizes = shares.iter().map(|share| share.len());
                assert!(sizes.clone().min().unwrap() >= 1);
                assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
                let uses = all
                    .iter()
                    .map(|cpu| shares.iter().copied().flatten().filter(|at| *at == cpu).count());
                assert!(uses.clone().min().unwrap() >= 1);
                assert!(uses.clone().max().unwrap() - uses.min().unwrap() <= 1);
            }
        }
        assert_eq!(spread(3, &[]).len(), 0);
        assert_eq!(spread(0, &[Cpu::new(0)]).len(), 0);
    }
}
