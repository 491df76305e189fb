//! Choice of a CPU for an interrupt: the policy's choice if it can be reached, otherwise another
//! online CPU.

use crate::affinity::lists::Candidates;
use crate::affinity::policy::{AffinityPolicy, PlacedVector, Placement, RoundRobin};
use crate::error::MoveError;
use crate::irq::descriptor::{Descriptor, Source};
use alloc::sync::Arc;
use msi_types::{Cpu, HwIrq, MsiError};

/// The kernel's policy, or [`RoundRobin`] by default.
pub(crate) struct CpuChoice {
    policy: Option<Arc<dyn AffinityPolicy>>,
    round_robin: RoundRobin,
}

impl CpuChoice {
    pub(crate) fn new(policy: Option<Arc<dyn AffinityPolicy>>) -> Self {
        Self { policy, round_robin: RoundRobin::default() }
    }

    fn policy(&self) -> &dyn AffinityPolicy {
        self.policy.as_deref().unwrap_or(&self.round_robin)
    }

    /// Asks the policy to choose among the online CPUs. Returns `None` if none is online.
    pub(crate) fn choose(&self, place: &Placement<'_>) -> Option<Cpu> {
        let first = *place.online.first()?;
        let chosen = self.policy().choose(place);
        Some(if place.online.contains(&chosen) { chosen } else { first })
    }

    /// Returns the candidates for an interrupt with the policy's choice first.
    pub(crate) fn preferred<'a>(
        &self,
        descriptor: &Descriptor,
        Candidates { cpus, .. }: &'a mut Candidates,
    ) -> &'a [Cpu] {
        if !cpus.is_empty() {
            let chosen = self.policy().choose(&Placement::of(descriptor, cpus));
            let before = cpus.iter().position(|cpu| *cpu == chosen);
            if let Some(up_to_it) = before.and_then(|before| cpus.get_mut(..=before)) {
                up_to_it.rotate_right(1);
            }
        }
        cpus
    }
}

impl<'a> Placement<'a> {
    /// Describes an interrupt that has its number already.
    pub(crate) fn of(descriptor: &'a Descriptor, online: &'a [Cpu]) -> Self {
        let managed = descriptor.among.is_some();
        let Source::Device(source) = &descriptor.source else {
            return Self::wired(descriptor.hwirq, online);
        };
        let (device, requester, slot) = source.slot();
        let vector = PlacedVector::Slot(slot);
        Self { online, device: Some(device), requester: Some(requester), vector, managed }
    }

    /// Describes a wired interrupt.
    pub(crate) const fn wired(hwirq: HwIrq, online: &'a [Cpu]) -> Self {
        let vector = PlacedVector::Wired(hwirq);
        Self { online, device: None, requester: None, vector, managed: false }
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
    let result = attempt(choice);
    let others = online.iter().filter(|cpu| **cpu != choice);
    as_long_as_unreachable(result, others, attempt)
}

/// Tries `cpus` in order until one can be reached. Returns `None` if `cpus` is empty.
pub(crate) fn first_of<T, E: Unreachable>(
    cpus: &[Cpu],
    mut attempt: impl FnMut(Cpu) -> Result<T, E>,
) -> Option<Result<T, E>> {
    let (first, others) = cpus.split_first()?;
    let result = attempt(*first);
    Some(as_long_as_unreachable(result, others.iter(), attempt))
}

fn as_long_as_unreachable<'a, T, E: Unreachable>(
    mut result: Result<T, E>,
    others: impl Iterator<Item = &'a Cpu>,
    mut attempt: impl FnMut(Cpu) -> Result<T, E>,
) -> Result<T, E> {
    for cpu in others {
        match &result {
            Err(error) if error.is_unreachable() => result = attempt(*cpu),
            _ => break,
        }
    }
    result
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
