//! CPUs that come and go, and interrupts that follow.

use super::Interrupts;
use crate::affinity::Moved;
use crate::descriptor::{Descriptor, Presence, Source};
use crate::error::{MoveError, Stranded, UnknownCpu};
use crate::irq::Irq;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use msi_types::{Cpu, MsiError, WiredParent};

impl Interrupts {
    /// The CPU can take interrupts from now on: its controller interface works. Managed interrupts that were
    /// shut down for want of a CPU start again there; nothing else is moved to it. Returns those that could not
    /// be started: they stay shut down. Task.
    pub fn cpu_online(&self, cpu: Cpu) -> Result<Vec<Stranded>, UnknownCpu> {
        let online = self.online.get(cpu.index()).ok_or(UnknownCpu(cpu))?;
        let _alone = self.hotplug.write(self.host());
        online.store(true, Ordering::SeqCst);
        let start = |descriptor: Arc<Descriptor>| {
            let error = self.start(&descriptor, cpu).err()?;
            Some(Stranded { irq: descriptor.irq, error })
        };
        Ok(self.all().into_iter().filter_map(start).collect())
    }

    /// The CPU is about to go off line: moves every interrupt away from it, and lets none come any more. A managed
    /// interrupt that has no CPU left is shut down until one is back. Returns those that could not be moved. The CPU still takes interrupts when this is called, and until its
    /// controller interface has handed out what was pending there. Task.
    pub fn cpu_offline(&self, cpu: Cpu) -> Result<Vec<Stranded>, UnknownCpu> {
        let online = self.online.get(cpu.index()).ok_or(UnknownCpu(cpu))?;
        let _alone = self.hotplug.write(self.host());
        online.store(false, Ordering::SeqCst);
        let evacuate = |descriptor: Arc<Descriptor>| {
            let error = self.evacuate(&descriptor, cpu).err()?;
            Some(Stranded { irq: descriptor.irq, error })
        };
        Ok(self.all().into_iter().filter_map(evacuate).collect())
    }

    /// Moves an interrupt to another CPU. On return no new arrival goes to the old one; what was pending there
    /// is handled once, there or at the new one. Whatever the controller, the way is the same: it prepares the
    /// new target, the endpoint is masked, rewritten and read back if its message changes, the controller
    /// finishes; if a step fails, all is as before. Task.
    ///
    /// # Errors
    /// [`MsiError::WouldTear`], among others: see [`MoveError`].
    pub fn set_affinity(&self, irq: Irq, to: Cpu) -> Result<Moved, MoveError> {
        let descriptor = self.find(irq).ok_or(MoveError::UnknownIrq(irq))?;
        self.move_to(&descriptor, to)
    }

    /// Delivers an interrupt to one of `among` from now on. It is moved if it is at none of them, to the one that
    /// the policy chooses. When its CPU goes off line it follows to another of them; with the last of them it
    /// goes to any CPU, and `among` is forgotten. Task.
    ///
    /// # Errors
    /// [`MoveError::NoneOnline`] if none of `among` is on line; as for [`set_affinity`](Self::set_affinity).
    pub fn set_affinity_among(&self, irq: Irq, among: &[Cpu]) -> Result<Moved, MoveError> {
        let descriptor = self.find(irq).ok_or(MoveError::UnknownIrq(irq))?;
        let managed = |cpu: &&Cpu| descriptor.among.as_ref().is_none_or(|managed| managed.contains(cpu));
        if let Some(stray) = among.iter().find(|cpu| !managed(cpu)) {
            return Err(MoveError::NotAmong(*stray));
        }
        let here = descriptor.target();
        let moved = if among.contains(&here) && self.is_online(here) {
            Moved { to: here, irqs: Vec::new() }
        } else {
            let cpus = self.preferred(among);
            Self::first_of(cpus.into_iter(), |cpu| self.relocate(&descriptor, cpu))
                .ok_or(MoveError::NoneOnline)??
        };
        *descriptor.wanted.lock(self.host()) = Some(Arc::from(among));
        Ok(moved)
    }

    /// Where an interrupt is delivered; `None` for private and unknown ones. Task.
    pub fn effective_affinity(&self, irq: Irq) -> Option<Cpu> {
        let descriptor = self.find(irq)?;
        match descriptor.source {
            Source::PerCpu(_) => None,
            Source::Msi { .. } | Source::Wired(_) => Some(descriptor.target()),
        }
    }

    /// May interrupts be sent to this CPU? Any.
    pub fn is_online(&self, cpu: Cpu) -> bool {
        self.online.get(cpu.index()).is_some_and(|online| online.load(Ordering::SeqCst))
    }

    /// The CPUs on line, ascending. Task.
    pub fn online_cpus(&self) -> Vec<Cpu> {
        (0..).map(Cpu::new).take(self.cpus()).filter(|cpu| self.is_online(*cpu)).collect()
    }

    /// [`set_affinity`](Self::set_affinity) for a known interrupt.
    pub(crate) fn move_to(&self, descriptor: &Descriptor, to: Cpu) -> Result<Moved, MoveError> {
        let moved = self.relocate(descriptor, to)?;
        *descriptor.wanted.lock(self.host()) = Some(Arc::from([to]));
        Ok(moved)
    }

    pub(crate) fn relocate(&self, descriptor: &Descriptor, to: Cpu) -> Result<Moved, MoveError> {
        match &descriptor.source {
            Source::Msi { domain, slot } => domain.relocate(self, descriptor, *slot, to),
            Source::Wired(parent) => self.relocate_wired(descriptor, &**parent, to),
            Source::PerCpu(_) => Err(MoveError::PerCpu(descriptor.irq)),
        }
    }

    fn relocate_wired(
        &self,
        descriptor: &Descriptor,
        parent: &dyn WiredParent,
        to: Cpu,
    ) -> Result<Moved, MoveError> {
        let _targets = self.wired_targets.lock(self.host());
        // The input is given back under this lock, after its handler went.
        let present = descriptor.control.lock(self.host()).handler;
        if present != Presence::Installed {
            return Err(MoveError::UnknownIrq(descriptor.irq));
        }
        self.check_online(to)?;
        if descriptor.target() == to {
            return Ok(Moved { to, irqs: Vec::new() });
        }
        parent.set_target(descriptor.vector, to)?;
        descriptor.set_target(to);
        Ok(Moved { to, irqs: vec![descriptor.irq] })
    }

    /// Moves an interrupt away from `from`, if it is there.
    fn evacuate(&self, descriptor: &Descriptor, from: Cpu) -> Result<(), MoveError> {
        if self.settled_target(descriptor) != Some(from) {
            return Ok(());
        }
        let relocate = |cpu| self.relocate(descriptor, cpu).map(drop);
        if let Some(among) = &descriptor.among {
            let moved = Self::first_of(self.least_managed(among).into_iter(), relocate);
            return moved.map_or_else(
                || {
                    self.shut_down(descriptor);
                    Ok(())
                },
                unless_unknown,
            );
        }
        if let Some(moved) = self.among_wanted(descriptor, relocate) {
            return unless_unknown(moved);
        }
        let choice = self.choose_cpu().ok_or(MoveError::Offline(from))?;
        unless_unknown(self.first_reachable(choice, relocate))
    }

    /// Moves an interrupt to another of the CPUs that the kernel wants it at; forgets them if none can be reached.
    fn among_wanted(
        &self,
        descriptor: &Descriptor,
        relocate: impl FnMut(Cpu) -> Result<(), MoveError>,
    ) -> Option<Result<(), MoveError>> {
        let wanted = descriptor.wanted.lock(self.host()).clone()?;
        let moved = Self::first_of(self.preferred(&wanted).into_iter(), relocate)
            .filter(|moved| !moved.as_ref().is_err_and(Unreachable::is_unreachable));
        if moved.is_none() {
            *descriptor.wanted.lock(self.host()) = None;
        }
        moved
    }

    /// Those of `among` that are on line, the policy's choice first.
    fn preferred(&self, among: &[Cpu]) -> Vec<Cpu> {
        let mut online = self.online_cpus();
        online.retain(|cpu| among.contains(cpu));
        if !online.is_empty() {
            let chosen = self.policy.choose(&online);
            online.sort_by_key(|cpu| *cpu != chosen);
        }
        online
    }

    /// Holds a managed interrupt back until one of its CPUs is on line again: what its device sends stays pending.
    fn shut_down(&self, descriptor: &Descriptor) {
        let mut control = descriptor.control.lock(self.host());
        if !core::mem::replace(&mut control.shut_down, true) {
            self.disable(descriptor, &mut control);
        }
    }

    /// Lets a managed interrupt through again that was shut down, on one of its CPUs.
    fn start(&self, descriptor: &Descriptor, cpu: Cpu) -> Result<(), MoveError> {
        let managed = descriptor.among.as_ref().is_some_and(|among| among.contains(&cpu));
        if !managed || !descriptor.control.lock(self.host()).shut_down {
            return Ok(());
        }
        unless_unknown(self.relocate(descriptor, cpu).map(drop))?;
        let mut control = descriptor.control.lock(self.host());
        control.shut_down = false;
        self.enable(descriptor, &mut control);
        Ok(())
    }

    /// Those of `among` that are on line, the one with the fewest managed interrupts first.
    pub(crate) fn least_managed(&self, among: &[Cpu]) -> Vec<Cpu> {
        let mut load = vec![0_u32; self.cpus()];
        for descriptor in self.numbers.lock(self.host()).iter().filter(|other| other.among.is_some()) {
            if let Some(load) = load.get_mut(descriptor.target().index()) {
                *load += 1;
            }
        }
        let mut online: Vec<_> = among.iter().copied().filter(|cpu| self.is_online(*cpu)).collect();
        online.sort_by_key(|cpu| load.get(cpu.index()).copied());
        online
    }

    /// The target once no move is under way. A move to a CPU checks that it is on line under the same lock:
    /// seen after the CPU was marked off line, the answer cannot become that CPU again.
    fn settled_target(&self, descriptor: &Descriptor) -> Option<Cpu> {
        match &descriptor.source {
            Source::PerCpu(_) => None,
            Source::Wired(_) => {
                let _targets = self.wired_targets.lock(self.host());
                Some(descriptor.target())
            }
            Source::Msi { domain, .. } => Some(domain.settled_target(self, descriptor)),
        }
    }

    pub(crate) fn check_online(&self, cpu: Cpu) -> Result<(), MoveError> {
        if self.is_online(cpu) { Ok(()) } else { Err(MoveError::Offline(cpu)) }
    }

    /// The policy's choice among the CPUs on line; `None` if there are none.
    pub(crate) fn choose_cpu(&self) -> Option<Cpu> {
        let online = self.online_cpus();
        let first = *online.first()?;
        let chosen = self.policy.choose(&online);
        Some(if online.contains(&chosen) { chosen } else { first })
    }

    /// Tries `choice`, then the other CPUs on line as long as they cannot be reached: by the controller, or by an endpoint
    /// whose address is too narrow for their doorbell.
    pub(crate) fn first_reachable<T, E: Unreachable>(
        &self,
        choice: Cpu,
        mut attempt: impl FnMut(Cpu) -> Result<T, E>,
    ) -> Result<T, E> {
        let result = attempt(choice);
        let others = self.online_cpus().into_iter().filter(|cpu| *cpu != choice);
        Self::as_long_as_unreachable(result, others, attempt)
    }

    /// The same for these CPUs in their order; `None` if there are none.
    pub(crate) fn first_of<T, E: Unreachable>(
        mut cpus: impl Iterator<Item = Cpu>,
        mut attempt: impl FnMut(Cpu) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let result = attempt(cpus.next()?);
        Some(Self::as_long_as_unreachable(result, cpus, attempt))
    }

    fn as_long_as_unreachable<T, E: Unreachable>(
        mut result: Result<T, E>,
        others: impl Iterator<Item = Cpu>,
        mut attempt: impl FnMut(Cpu) -> Result<T, E>,
    ) -> Result<T, E> {
        for cpu in others {
            match &result {
                Err(error) if error.is_unreachable() => result = attempt(cpu),
                _ => break,
            }
        }
        result
    }
}

/// An interrupt that was freed meanwhile is nobody's to move.
fn unless_unknown(moved: Result<(), MoveError>) -> Result<(), MoveError> {
    match moved {
        Err(MoveError::UnknownIrq(_)) => Ok(()),
        other => other,
    }
}

/// Errors after which another CPU is worth a try.
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
