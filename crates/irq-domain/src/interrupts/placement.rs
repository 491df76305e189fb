//! Placement of interrupts on CPUs.

use super::Interrupts;
use crate::affinity::Moved;
use crate::cpu_choice::first_of;
use crate::cpu_lists::Candidates;
use crate::descriptor::{Descriptor, Source};
use crate::error::MoveError;
use crate::irq::Irq;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use msi_types::Cpu;

impl Interrupts {
    /// Moves an interrupt to another CPU. On return no new arrival goes to the old one; what was
    /// pending there is handled once, there or at the new one. Whatever the controller, the way is
    /// the same: it prepares the new target, the endpoint is masked, rewritten and read back if its
    /// message changes, the controller finishes; if a step fails, all is as before. Task.
    ///
    /// # Errors
    /// [`MsiError::WouldTear`](msi_types::MsiError::WouldTear), among others: see [`MoveError`].
    pub fn set_affinity(&self, irq: Irq, to: Cpu) -> Result<Moved, MoveError> {
        let descriptor = self.find(irq).ok_or(MoveError::UnknownIrq(irq))?;
        self.move_to(&descriptor, to)
    }

    /// Delivers an interrupt to one of `among` from now on. It is moved if it is at none of them,
    /// to the one that the policy chooses. When its CPU goes off line it follows to another of
    /// them; with the last of them it goes to any CPU, and `among` is forgotten. Task.
    ///
    /// # Errors
    /// [`MoveError::NoneOnline`] if none of `among` is on line; as for
    /// [`set_affinity`](Self::set_affinity).
    pub fn set_affinity_among(&self, irq: Irq, among: &[Cpu]) -> Result<Moved, MoveError> {
        let descriptor = self.find(irq).ok_or(MoveError::UnknownIrq(irq))?;
        let managed =
            |cpu: &&Cpu| descriptor.among.as_ref().is_none_or(|managed| managed.contains(cpu));
        if let Some(stray) = among.iter().find(|cpu| !managed(cpu)) {
            return Err(MoveError::NotAmong(*stray));
        }
        let wanted = try_collect(among.iter().copied())?;
        let here = descriptor.target();
        let moved = if among.contains(&here) && self.is_online(here) {
            Moved { to: here, irqs: Vec::new() }
        } else {
            let mut room = Candidates::try_new(self.cpus())?;
            room.fill(&self.hotplug.read(self.host()).online, among);
            first_of(self.choice.preferred(&mut room), |cpu| {
                self.relocate_and_tell(&descriptor, cpu)
            })
            .ok_or(MoveError::NoneOnline)??
        };
        *descriptor.wanted.lock(self.host()) = Some(wanted);
        Ok(moved)
    }

    /// The CPU that an interrupt is delivered to; `None` for private and unknown ones. Task.
    pub fn effective_affinity(&self, irq: Irq) -> Option<Cpu> {
        let descriptor = self.find(irq)?;
        match descriptor.source {
            Source::PerCpu(_) => None,
            Source::Device(_) | Source::Wired(_) => Some(descriptor.target()),
        }
    }

    /// [`set_affinity`](Self::set_affinity) for a known interrupt.
    pub(crate) fn move_to(&self, descriptor: &Descriptor, to: Cpu) -> Result<Moved, MoveError> {
        let wanted = try_collect(core::iter::once(to))?;
        let moved = self.relocate_and_tell(descriptor, to)?;
        *descriptor.wanted.lock(self.host()) = Some(wanted);
        Ok(moved)
    }

    fn relocate_and_tell(&self, descriptor: &Descriptor, to: Cpu) -> Result<Moved, MoveError> {
        let mut irqs = Vec::new();
        self.relocate(descriptor, to, Some(&mut irqs))?;
        Ok(Moved { to, irqs })
    }

    /// Moves an interrupt, and lists what moved if the caller wants to know. Without a list it
    /// allocates nothing.
    pub(super) fn relocate(
        &self,
        descriptor: &Descriptor,
        to: Cpu,
        list: Option<&mut Vec<Irq>>,
    ) -> Result<(), MoveError> {
        match &descriptor.source {
            Source::Device(source) => source.relocate(&self.runtime, descriptor, to, list),
            Source::Wired(parent) => {
                self.root.relocate(&self.runtime, (descriptor, &**parent), to, list)
            }
            Source::PerCpu(_) => Err(MoveError::PerCpu(descriptor.irq)),
        }
    }
}

/// An interrupt that was freed meanwhile is nobody's to move.
pub(super) fn unless_unknown(moved: Result<(), MoveError>) -> Result<(), MoveError> {
    match moved {
        Err(MoveError::UnknownIrq(_)) => Ok(()),
        other => other,
    }
}
