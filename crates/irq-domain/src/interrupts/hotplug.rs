//! CPUs that come and go, and interrupts that follow. Nothing here allocates: what a CPU that goes
//! off line takes was reserved when the core was made.

use super::Interrupts;
use super::placement::unless_unknown;
use crate::cpu_choice::{Unreachable, first_of, first_reachable};
use crate::cpu_lists::Hotplug;
use crate::descriptor::{Descriptor, Source};
use crate::error::{MoveError, Stranded, UnknownCpu};
use msi_types::Cpu;

impl Interrupts {
    /// The CPU can take interrupts from now on: its controller interface works. Managed interrupts
    /// that were shut down for want of a CPU start again there; nothing else is moved to it. Calls
    /// `stranded` for each that could not be started: it stays shut down. `stranded` calls nothing
    /// of the core. Task.
    pub fn cpu_online(
        &self,
        cpu: Cpu,
        mut stranded: impl FnMut(Stranded),
    ) -> Result<(), UnknownCpu> {
        self.check_known(cpu)?;
        let mut hotplug = self.hotplug.write(self.host());
        self.runtime.set_online(cpu, true);
        hotplug.insert(cpu);
        for descriptor in self.each() {
            if let Err(error) = self.start(&descriptor, cpu) {
                stranded(Stranded { irq: descriptor.irq, error });
            }
        }
        Ok(())
    }

    /// The CPU is about to go off line: moves every interrupt away from it, and lets none come any
    /// more. A managed interrupt that has no CPU left is shut down until one is back. Calls
    /// `stranded` for each that could not be moved; it calls nothing of the core. Never fails for
    /// want of memory. The CPU still takes interrupts when this is called, and until its controller
    /// interface has handed out what was pending there. Task.
    pub fn cpu_offline(
        &self,
        cpu: Cpu,
        mut stranded: impl FnMut(Stranded),
    ) -> Result<(), UnknownCpu> {
        self.check_known(cpu)?;
        let mut hotplug = self.hotplug.write(self.host());
        self.runtime.set_online(cpu, false);
        hotplug.remove(cpu);
        for descriptor in self.each() {
            if let Err(error) = self.evacuate(&descriptor, cpu, &mut hotplug) {
                stranded(Stranded { irq: descriptor.irq, error });
            }
        }
        Ok(())
    }

    /// May interrupts be sent to this CPU? Any.
    pub fn is_online(&self, cpu: Cpu) -> bool {
        self.runtime.is_online(cpu)
    }

    fn check_known(&self, cpu: Cpu) -> Result<(), UnknownCpu> {
        if cpu.index() < self.cpus() { Ok(()) } else { Err(UnknownCpu(cpu)) }
    }

    /// The CPUs on line, ascending. Task.
    pub fn online_cpus(&self) -> impl Iterator<Item = Cpu> {
        (0..).map(Cpu::new).take(self.cpus()).filter(|cpu| self.is_online(*cpu))
    }

    /// Moves an interrupt away from `from`, if it is there.
    fn evacuate(
        &self,
        descriptor: &Descriptor,
        from: Cpu,
        hotplug: &mut Hotplug,
    ) -> Result<(), MoveError> {
        if self.settled_target(descriptor) != Some(from) {
            return Ok(());
        }
        let Hotplug { online, room } = hotplug;
        let relocate = |cpu| self.relocate(descriptor, cpu, None);
        if let Some(among) = &descriptor.among {
            let moved = first_of(self.least_managed(among, online, room), relocate);
            return moved.map_or_else(
                || {
                    self.interrupt(descriptor).shut_down();
                    Ok(())
                },
                unless_unknown,
            );
        }
        if let Some(moved) = self.among_wanted(descriptor, hotplug, relocate) {
            return unless_unknown(moved);
        }
        let choice = self.choice.choose(&hotplug.online).ok_or(MoveError::Offline(from))?;
        unless_unknown(first_reachable(choice, &hotplug.online, relocate))
    }

    /// Moves an interrupt to another of the CPUs that the kernel wants it at; forgets them if none
    /// can be reached.
    fn among_wanted(
        &self,
        descriptor: &Descriptor,
        Hotplug { online, room }: &mut Hotplug,
        relocate: impl FnMut(Cpu) -> Result<(), MoveError>,
    ) -> Option<Result<(), MoveError>> {
        room.fill(online, descriptor.wanted.lock(self.host()).as_deref()?);
        let moved = first_of(self.choice.preferred(room), relocate)
            .filter(|moved| !moved.as_ref().is_err_and(Unreachable::is_unreachable));
        if moved.is_none() {
            *descriptor.wanted.lock(self.host()) = None;
        }
        moved
    }

    /// Lets a managed interrupt through again that was shut down, on one of its CPUs.
    fn start(&self, descriptor: &Descriptor, cpu: Cpu) -> Result<(), MoveError> {
        let managed = descriptor.among.as_ref().is_some_and(|among| among.contains(&cpu));
        if !managed || !descriptor.control.lock(self.host()).is_shut_down() {
            return Ok(());
        }
        unless_unknown(self.relocate(descriptor, cpu, None))?;
        self.interrupt(descriptor).start();
        Ok(())
    }

    /// The target once no move is under way. A move to a CPU checks that it is on line under the
    /// same lock: seen after the CPU was marked off line, the answer cannot become that CPU again.
    fn settled_target(&self, descriptor: &Descriptor) -> Option<Cpu> {
        match &descriptor.source {
            Source::PerCpu(_) => None,
            Source::Wired(_) => Some(self.root.settled_target(self.host(), descriptor)),
            Source::Device(source) => Some(source.settled_target(self.host(), descriptor)),
        }
    }
}
