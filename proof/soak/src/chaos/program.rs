//! The guest thread: it reprograms everything while interrupts arrive, and never in a way in which
//! the architecture permits an interrupt to get lost.

use super::ledger::{Signal, Source};
use super::machine::{CPUS, Plan, World};
use crate::guest::{self, Guest};
use doorbell_test_support::guest::Field;
use fastrand::Rng;
use gic_arch::gicd;
use gic_arch::gicr::{self, Waker};
use gic_arch::its::{CollectionId, Command, RdBase};
use msi_types::{DeviceId, EventId};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;
use vgic::{AccessWidth, Progress};

/// Number of different operations.
const KINDS: u8 = 21;

/// Returns a random priority that a fully open mask lets pass, also in the Non-secure view with
/// five priority bits.
fn priority(rng: &mut Rng) -> u8 {
    rng.u8(..29) * 8
}

/// The programs of a guest.
pub(crate) struct Programs<'a> {
    pub(crate) world: &'a World,
    pub(crate) stop: &'a AtomicBool,
    /// Time between two operations.
    pub(crate) pause: Duration,
}

impl Programs<'_> {
    /// Runs until `stop` is set, and returns the number of operations. Afterwards, everything is
    /// enabled.
    pub(crate) fn run(&self, rng: &mut Rng) -> u64 {
        let mut operations = 0;
        while !self.stop.load(SeqCst) {
            operations += 1;
            let sources = &self.world.ledger.sources;
            let source = &sources[rng.usize(..sources.len())];
            match source.signal {
                Signal::Event { .. } | Signal::Lpi => self.reprogram_lpi(source, rng),
                _ => self.reprogram_wired(source, rng),
            }
            if !self.pause.is_zero() {
                thread::sleep(self.pause);
            }
        }
        let guest = &self.world.guest;
        for cpu in 0..CPUS {
            guest.write_gicr(cpu, gicr::CTLR, 1.into());
            guest.write_gicr(cpu, gicr::WAKER, 0.into());
        }
        operations
    }

    fn guest(&self) -> &Guest {
        &self.world.guest
    }

    fn reprogram_wired(&self, source: &Source, rng: &mut Rng) {
        let (guest, intid) = (self.guest(), source.intid);
        let cpu = source.cpu.unwrap_or_else(|| rng.usize(..CPUS));
        match rng.u8(..9) {
            0 | 1 if source.cpu.is_none() => {
                let any = self.world.plan.has_one_of_n() && rng.u8(..3) == 0;
                guest.route(intid, (!any).then_some(cpu));
            }
            2 => {
                guest.set_field(cpu, Field::Disable, intid, 1);
                if rng.bool() && source.cpu.is_none() {
                    guest.wait_gicd();
                }
                guest.set_field(cpu, Field::Enable, intid, 1);
            }
            3 => guest.set_field(cpu, Field::Priority, intid, priority(rng).into()),
            4 => {
                guest.write_gicd(gicd::CTLR, rng.u32(..3).into());
                guest.write_gicd(gicd::CTLR, 3.into());
            }
            5 => self.sleep(cpu, rng),
            6 if !self.world.plan.is_non_secure() => {
                let group = guest.field(cpu, Field::Group, intid);
                guest.set_field(cpu, Field::Group, intid, group ^ 1);
            }
            7 if self.world.plan.has_one_of_n() => {
                let control = 1 | rng.u32(..8) << 24;
                guest.write_gicr(cpu, gicr::CTLR, control.into());
            }
            8 if matches!(source.signal, Signal::Pulse(_)) => {
                source.raise(|| guest.set_field(cpu, Field::Pend, intid, 1));
            }
            _ => {
                let fields = [Field::Pend, Field::Activate];
                _ = fields.map(|field| guest.field(cpu, field, intid));
            }
        }
    }

    /// Puts a redistributor to sleep and wakes it.
    fn sleep(&self, cpu: usize, rng: &mut Rng) {
        let guest = self.guest();
        let asleep = Waker::new().with_processor_sleep(true);
        guest.write_gicr(cpu, gicr::WAKER, asleep);
        if rng.bool() {
            for _ in 0..100 {
                if guest.read_gicr(cpu, gicr::WAKER) & 4 != 0 {
                    break;
                }
                thread::yield_now();
            }
        }
        guest.write_gicr(cpu, gicr::WAKER, 0.into());
    }

    fn reprogram_lpi(&self, source: &Source, rng: &mut Rng) {
        let guest = self.guest();
        let (cpu, lpi) = (source.cpu.unwrap_or_else(|| rng.usize(..CPUS)), source.intid);
        match rng.u8(..KINDS) {
            0..=2 => {
                guest.configure(lpi, priority(rng), true);
                self.invalidate(cpu, Some(source), rng);
            }
            3 => {
                guest.configure(lpi, 0, false);
                self.invalidate(cpu, Some(source), rng);
                guest.configure(lpi, priority(rng), true);
                self.invalidate_everywhere(source);
            }
            4 => {
                guest.configure(lpi, priority(rng), true);
                self.invalidate(cpu, None, rng);
            }
            5 => {
                guest.enable_lpis(cpu, false);
                guest.enable_lpis(cpu, true);
            }
            _ => self.command(source, rng),
        }
    }

    /// Makes a redistributor read the configuration of an LPI again, or that of all LPIs.
    fn invalidate(&self, cpu: usize, source: Option<&Source>, rng: &mut Rng) {
        let event = source.and_then(event);
        let collection = CollectionId::new(u16::try_from(cpu).unwrap());
        match event {
            Some((its, device, event)) if rng.bool() => {
                self.guest().run(its, Command::Inv { device, event });
            }
            None if self.world.plan.has_its() && rng.bool() => {
                self.guest().run(rng.usize(..2), Command::Invall { collection });
            }
            _ => self.guest().invalidate(cpu, source.map(|source| source.intid)),
        }
    }

    /// Makes all redistributors read the configuration again, because the LPI may be at any.
    fn invalidate_everywhere(&self, source: &Source) {
        if let Some((its, device, event)) = event(source) {
            self.guest().run(its, Command::Inv { device, event });
        }
        (0..CPUS).for_each(|cpu| self.guest().invalidate(cpu, Some(source.intid)));
    }

    fn command(&self, source: &Source, rng: &mut Rng) {
        let Some((its, device, event)) = event(source) else { return };
        if rng.u8(..20) == 0 {
            self.guest().enable_its(its, false);
            self.guest().enable_its(its, true);
        }
        match rng.u8(..8) {
            0 => source.raise(|| self.guest().run(its, Command::Int { device, event })),
            _ => self.guest().run(its, random_command(device, event, rng)),
        }
    }
}

/// Returns a random command that loses no interrupt.
pub(crate) fn random_command(device: DeviceId, event: EventId, rng: &mut Rng) -> Command {
    let (from, to) = (rng.u16(..4), rng.u16(..4));
    match rng.u8(..8) {
        0 => guest::mapc(from, to),
        1 => Command::Invall { collection: CollectionId::new(to) },
        2 => guest::movall(from, to),
        3 => Command::Sync { target: RdBase::from_processor_number(to) },
        _ => Command::Movi { device, event, collection: CollectionId::new(to) },
    }
}

/// Returns the ITS, the device and the event of an LPI's source.
pub(crate) fn event(source: &Source) -> Option<(usize, DeviceId, EventId)> {
    match source.signal {
        Signal::Event { its, device, event } => {
            Some((its, DeviceId::new(device), EventId::new(event)))
        }
        _ => None,
    }
}

/// Posts commands, disables LPIs and sends messages, and waits for none of them.
pub(crate) fn leave_work(world: &World, rng: &mut Rng) -> Vec<usize> {
    let guest = &world.guest;
    let events: Vec<_> = world.ledger.sources.iter().filter_map(event).collect();
    for _ in 0..if events.is_empty() { 0 } else { rng.usize(..60) } {
        let (its, device, event) = events[rng.usize(..events.len())];
        guest.post(its, random_command(device, event, rng));
    }
    let kept = |source: &&Source| !matches!(source.signal, Signal::Linked(_));
    for source in world.ledger.sources.iter().filter(kept) {
        if rng.bool() {
            world.send(source);
        }
    }
    let mut disabled = Vec::new();
    for cpu in 0..CPUS {
        if rng.u8(..3) == 0 {
            guest.write_gicr(cpu, gicr::CTLR, 0.into());
            disabled.push(cpu);
        }
        if rng.u8(..5) == 0 && !disabled.is_empty() && world.plan != Plan::Kvm {
            let address = guest.frame(disabled[0]) + u64::from(gicr::CTLR.offset());
            // Only the first step of the write, as a hypervisor does that can't be interrupted.
            let _: Progress = guest.gic.write(address, AccessWidth::Word, 1).unwrap();
        }
    }
    disabled
}
