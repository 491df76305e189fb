//! Guest entry and exit for vCPUs with list registers: the cost that a hypervisor incurs on every
//! exit, whatever the reason for the exit.

use crate::floors::{self, VCPUS};
use crate::model::{EventMapping, MeasuredGic, NoKick};
use crate::probe::{Fallible, MeasureError, Probe, each, named};
use gic_arch::ich::{ListRegister, ListRegisterState, Vtr};
use msi_types::Delivery;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vgic::{ListRegisterVcpu, VirtualInterface};

/// Number of timed rounds. An additional round before the timed ones fills the caches.
const ROUNDS: u32 = 32;

/// Returns the CPUs' virtual interface, which has 16 list registers and the priorities of the
/// measured model.
pub(crate) fn interface() -> Vtr {
    let priorities = Vtr::new().with_pri_bits_minus_one(5).with_pre_bits_minus_one(5);
    priorities.with_list_regs_minus_one(15).with_tds(true)
}

/// A machine whose vCPUs are the targets of separate events.
struct Guests {
    model: MeasuredGic,
    vcpus: Vec<ListRegisterVcpu>,
    clock: Clock,
}

/// The virtual interface state of each vCPU in guest mode, which its guest modifies.
type Entered = Vec<VirtualInterface>;

/// A clock for operations that hardly take longer than reading the clock.
struct Clock {
    own: Duration,
}

impl Clock {
    fn new() -> Self {
        let own = (0..1000).map(|_| Instant::now().elapsed()).min();
        Self { own: own.unwrap_or_default() }
    }

    /// Returns the time that `run` takes, minus the overhead of the clock.
    fn time<R>(&self, run: impl FnOnce() -> R) -> (R, Duration) {
        let start = Instant::now();
        let result = run();
        (result, start.elapsed().saturating_sub(self.own))
    }
}

impl Guests {
    fn new(mapping: EventMapping, vcpus: u16) -> Fallible<Self> {
        let (model, all) = MeasuredGic::mapped(mapping, vcpus, Arc::new(NoKick))?;
        let mut with_list_registers = Vec::new();
        for vcpu in all.into_iter().take(vcpus.into()) {
            with_list_registers.push(vcpu.with_list_registers(interface())?);
        }
        Ok(Self { model, vcpus: with_list_registers, clock: Clock::new() })
    }

    /// Sends a device's first events, in the order given by [`event_of`](EventMapping).
    fn send(&self, device: u32, events: u32) -> Fallible<()> {
        for event in 0..events {
            if self.model.send(device, event) != Delivery::Pending {
                return Err("a message was not delivered".into());
            }
        }
        Ok(())
    }

    fn send_to_each(&self, events: u32) -> Fallible<()> {
        (0..u32::from(VCPUS)).try_for_each(|device| self.send(device, events))
    }

    /// Makes all vCPUs enter the guest, each with `listed` list registers in use.
    fn enter(&mut self, listed: u32) -> Fallible<(Entered, Duration)> {
        let Self { vcpus, clock, .. } = self;
        let enter = |vcpu: &mut ListRegisterVcpu| {
            let _inside = vcpu.enter();
        };
        let ((), time) = clock.time(|| vcpus.iter_mut().for_each(enter));
        let inside = vcpus.iter_mut().filter_map(ListRegisterVcpu::in_guest);
        let left: Vec<_> = inside.map(|guest| *guest.interface()).collect();
        if left.iter().all(|interface| pending(interface) == listed) {
            Ok((left, time))
        } else {
            Err(format!("a vCPU does not have {listed} interrupts in list registers").into())
        }
    }

    /// Makes all vCPUs enter the guest with `listed` list registers in use, has their guests end
    /// these interrupts, and makes the vCPUs exit. Returns the time spent on the exits.
    fn run_to_end(&mut self, listed: u32) -> Fallible<Duration> {
        let (mut entered, _) = self.enter(listed)?;
        entered.iter_mut().for_each(end_all);
        Ok(self.exit(&entered))
    }

    /// Makes all vCPUs exit the guest.
    fn exit(&mut self, left: &[VirtualInterface]) -> Duration {
        let Self { vcpus, clock, .. } = self;
        let inside = vcpus.iter_mut().filter_map(ListRegisterVcpu::in_guest);
        clock.time(|| inside.zip(left).for_each(|(guest, left)| guest.exit(left))).1
    }
}

/// Returns the number of list registers with a pending interrupt.
pub(crate) fn pending(interface: &VirtualInterface) -> u32 {
    let pending = |state| u32::from(state == ListRegisterState::Pending);
    interface.list.iter().map(|register| pending(register.state())).sum()
}

/// Ends all interrupts in list registers, like the guest.
pub(crate) fn end_all(interface: &mut VirtualInterface) {
    let end = |register: &ListRegister| register.with_state(ListRegisterState::Invalid);
    interface.list = interface.list.each_ref().map(end);
}

/// Returns probes for entries and exits, with few and with many LPIs pending.
pub(crate) fn probes() -> Result<Vec<Probe>, MeasureError> {
    let entries = [("enter-0", 0), ("enter-1", 1), ("enter-4", 4), ("enter-16", 16)];
    let exits = [("exit-0", 0), ("exit-1", 1), ("exit-4", 4)];
    let entries = entries.into_iter().map(|(name, pending)| named(name, entry(name, pending)));
    let exits = exits.into_iter().map(|(name, ended)| named(name, exit(name, ended)));
    entries.chain(exits).collect()
}

/// Measures vCPU entries with `pending` LPIs pending. The guests have handled some LPIs before, and
/// do not acknowledge the pending ones.
fn entry(name: &'static str, pending: u32) -> Fallible<Probe> {
    let mut guests = Guests::new(EventMapping::new(VCPUS.into(), 4), VCPUS)?;
    guests.send_to_each(4)?;
    guests.run_to_end(4)?;
    Ok(Probe::new(name, floors::ENTER, move || {
        guests.send_to_each(pending)?;
        let mut spent = Duration::ZERO;
        for round in 0..=ROUNDS {
            let (entered, time) = guests.enter(pending)?;
            spent += if round == 0 { Duration::ZERO } else { time };
            guests.exit(&entered);
        }
        Ok(each(spent, ROUNDS * u32::from(VCPUS)))
    }))
}

/// Measures vCPU exits after the guests have ended all pending interrupts.
fn exit(name: &'static str, ended: u32) -> Fallible<Probe> {
    let mut guests = Guests::new(EventMapping::new(VCPUS.into(), 4), VCPUS)?;
    Ok(Probe::new(name, floors::ENTER, move || {
        let mut spent = Duration::ZERO;
        for round in 0..=ROUNDS {
            guests.send_to_each(ended)?;
            let time = guests.run_to_end(ended)?;
            spent += if round == 0 { Duration::ZERO } else { time };
        }
        Ok(each(spent, ROUNDS * u32::from(VCPUS)))
    }))
}
