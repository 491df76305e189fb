//! One ITS against an abstract GIC. The guest executes random commands, right and wrong, and
//! changes the registers; devices send; and the machine may be saved and restored at every step.
//! Compared are each message's delivery, the number of failed commands, and the LPIs that each CPU
//! drains.

use crate::guest::{self, FIRST_LPI, Guest};
use crate::kicks::Kicks;
use crate::lifecycle;
use crate::outcome::Outcome;
use doorbell_test_support::guest::{
    AbstractGic, clear, discard, handle, int, inv, invall, movi, sync, unmapd,
};
use fastrand::Rng;
use gic_arch::gits::{self, Creadr};
use gic_arch::icc;
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use msi_types::{Delivery, DeviceId, MsiMessage};
use std::sync::Arc;
use vgic::its::{ErrorPolicy, ItsConfig};
use vgic::{Vcpu, VgicConfig};

const BASE: u64 = 0x1000_0000;
const CPUS: usize = 3;
/// Number of steps with one machine.
const STEPS: u32 = 400;
/// Mapped DeviceIDs, and DeviceIDs beyond the tables.
const DEVICES: [u32; 5] = [0, 1, 2, 3, 5];
const NO_DEVICES: [u32; 3] = [8192, 8193, 70_000];
const EVENTS: u32 = 12;
/// Number of LPIs to which [`lpi`] maps events.
const LPIS: usize = 256;
/// Number of collections.
const COLLECTIONS: u16 = 5;

/// Sends `messages` messages.
pub(crate) fn run(seed: u64, messages: u64) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let mut outcome = Outcome::default();
    while outcome.messages < messages {
        let mut trial = Trial::new(&mut rng);
        trial.prepare();
        for step in 0..STEPS {
            trial.step = step;
            trial.act(&mut rng, &mut outcome);
        }
        trial.drain_all(&mut outcome);
    }
    outcome
}

struct Trial {
    guest: Guest,
    vcpus: Vec<Vcpu>,
    kicks: Arc<Kicks>,
    reference: AbstractGic,
    policy: ErrorPolicy,
    /// Number of faults at the machines before the last migration.
    faults: u64,
    /// Number of commands that must have failed.
    wanted_faults: u64,
    step: u32,
}

fn config(policy: ErrorPolicy, rng: &mut Rng) -> VgicConfig {
    let budget = [1, 1, 3, 1024][rng.usize(..4)];
    let its = ItsConfig::new(BASE).with_error_policy(policy).with_work_per_access(budget);
    VgicConfig::new(3)
        .with_lpi_id_bits(Some(16))
        .with_lpi_work_per_access(budget)
        .with_redistributor_invalidation(true)
        .with_its(vec![its])
}

impl Trial {
    fn new(rng: &mut Rng) -> Self {
        let kicks = Arc::new(Kicks::new(CPUS));
        let policy = if rng.u8(..3) == 0 { ErrorPolicy::Stall } else { ErrorPolicy::Skip };
        let memory = guest::memory();
        let (gic, mut vcpus) = lifecycle::create(config(policy, rng), &memory, kicks.clone());
        let guest = Guest::new(gic, memory);
        guest::start_wired(&guest);
        (0..CPUS).for_each(|cpu| guest.start_lpis(cpu));
        guest.start_its(0, rng.bool());
        for vcpu in &mut vcpus {
            vcpu.write_sysreg(icc::PMR.encoding(), 0xff).unwrap();
            vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1).unwrap();
        }
        let reference = AbstractGic::new(CPUS, LPIS);
        Self { guest, vcpus, kicks, reference, policy, faults: 0, wanted_faults: 0, step: 0 }
    }

    /// Maps all devices, events and collections.
    fn prepare(&mut self) {
        for (device, number) in DEVICES.into_iter().zip(0..) {
            self.command(guest::mapd(0, device, 4));
            self.command(guest::mapc(number, number % 3));
            for event in 0..EVENTS {
                self.command(guest::mapti(device, event, lpi(device, event), number));
            }
        }
        self.settle();
    }

    fn act(&mut self, rng: &mut Rng, outcome: &mut Outcome) {
        let kind = rng.u8(..30);
        if kind < 14 {
            outcome.count("commands", 1);
            self.command(random_command(rng));
            if rng.u8(..4) != 0 {
                self.settle();
            }
            return;
        }
        if kind == 14 {
            outcome.count("machines restored", 1);
            self.migrate(rng);
            return;
        }
        self.settle();
        match kind {
            15..=22 => {
                outcome.messages += 1;
                self.send(rng);
            }
            23 | 24 => self.configure(rng),
            25 => self.toggle_lpis(rng.usize(..CPUS)),
            26 => self.toggle_its(),
            27 => self.wrong_command(rng),
            _ => {
                let cpu = rng.usize(..CPUS);
                self.drain(cpu, outcome);
            }
        }
        self.settle();
    }

    fn command(&mut self, command: Command) {
        self.guest.post(0, command.encode());
        self.wanted_faults += u64::from(!self.reference.execute(command));
    }

    fn wrong_command(&mut self, rng: &mut Rng) {
        let opcode = [0x00, 0x02, 0x21, 0xff][rng.usize(..4)];
        self.guest.post(0, [opcode, 0, 0, 0]);
        self.wanted_faults += 1;
    }

    /// Waits for the commands, and repairs those at which the queue stalls. Then compares the
    /// number of failed commands.
    fn settle(&mut self) {
        while !self.guest.is_done(0) {
            let read = Creadr::from_bits(self.guest.read_gits(0, gits::CREADR.offset()));
            if read.stalled() {
                assert_eq!(self.policy, ErrorPolicy::Stall, "step {}", self.step);
                let harmless = sync(0);
                self.guest.repair(0, read.offset(), harmless);
            }
        }
        let faults = self.faults + self.guest.gic.command_faults(0).unwrap().count;
        let last = self.guest.gic.command_faults(0).unwrap().last;
        let wanted = self.wanted_faults;
        assert_eq!(faults, wanted, "step {}: faults, the last is {last:?}", self.step);
    }

    fn send(&mut self, rng: &mut Rng) {
        let (device, event) = (any_device(rng), rng.u32(..EVENTS));
        let address = BASE + u64::from(gits::TRANSLATER.offset());
        let its = self.guest.gic.its(0).unwrap();
        let delivery = its.signal_msi(DeviceId::new(device), MsiMessage { address, data: event });
        let is_pending = self.reference.send(device, event);
        let wanted = if is_pending { Delivery::Pending } else { Delivery::Blocked };
        assert_eq!(delivery, wanted, "step {}: event {event} of {device}", self.step);
    }

    /// Changes an LPI's configuration at every redistributor.
    fn configure(&mut self, rng: &mut Rng) {
        let (lpi, enable) = (lpi(DEVICES[rng.usize(..5)], rng.u32(..EVENTS)), rng.bool());
        self.guest.configure(lpi, 0xa0, enable);
        self.reference.configure(lpi, enable);
        if rng.bool() {
            for number in 0..COLLECTIONS {
                self.command(invall(number));
            }
            self.settle();
        } else {
            (0..CPUS).for_each(|cpu| self.invalidate(cpu, rng.bool().then_some(lpi)));
        }
    }

    /// Invalidates a redistributor's cached configuration of an LPI, or of all LPIs.
    fn invalidate(&mut self, cpu: usize, lpi: Option<u32>) {
        self.guest.invalidate(cpu, lpi);
        self.reference.invalidate(cpu, lpi);
    }

    fn toggle_lpis(&mut self, cpu: usize) {
        let enable = self.reference.toggle_lpis(cpu);
        self.guest.enable_lpis(cpu, enable);
    }

    /// Disables the ITS, checks that it refuses messages, and enables it.
    fn toggle_its(&mut self) {
        self.guest.enable_its(0, false);
        self.reference.its_enabled = false;
        self.send(&mut Rng::with_seed(self.step.into()));
        self.guest.enable_its(0, true);
        self.reference.its_enabled = true;
    }

    fn migrate(&mut self, rng: &mut Rng) {
        self.faults += self.guest.gic.command_faults(0).unwrap().count;
        let before = self.wanted_faults;
        let saved = lifecycle::save(&self.guest.gic, &mut self.vcpus);
        let executed = self.guest.gic.command_faults(0).unwrap().count;
        assert!(executed <= before, "step {}: a save executes wrong commands", self.step);
        let config = config(self.policy, rng);
        let (gic, mut vcpus) = lifecycle::create(config, &self.guest.memory, self.kicks.clone());
        lifecycle::restore(&gic, &mut vcpus, &saved);
        self.guest.move_to(gic);
        self.vcpus = vcpus;
    }

    /// Acknowledges and ends all interrupts of a CPU, and compares them.
    fn drain(&mut self, cpu: usize, outcome: &mut Outcome) {
        let Self { step, reference, vcpus, .. } = self;
        loop {
            let intid = handle(&mut vcpus[cpu]);
            let lpi = u32::try_from(intid).unwrap();
            if lpi == 1023 {
                break;
            }
            let taken = reference.acknowledge(cpu, lpi);
            taken.unwrap_or_else(|problem| panic!("step {step}: {problem}"));
            outcome.count("drained", 1);
        }
        reference.find_none(cpu).unwrap_or_else(|problem| panic!("step {step}: {problem}"));
    }

    fn drain_all(&mut self, outcome: &mut Outcome) {
        self.settle();
        (0..CPUS).for_each(|cpu| self.drain(cpu, outcome));
    }
}

/// Returns the only LPI to which an event is mapped.
fn lpi(device: u32, event: u32) -> u32 {
    FIRST_LPI + 16 * (device % 16) + event
}

fn any_device(rng: &mut Rng) -> u32 {
    if rng.u8(..25) == 0 { NO_DEVICES[rng.usize(..3)] } else { DEVICES[rng.usize(..5)] }
}

fn random_command(rng: &mut Rng) -> Command {
    let (device, event) = (any_device(rng), rng.u32(..EVENTS));
    let collection = if rng.u8(..20) == 0 { 9000 } else { rng.u16(..COLLECTIONS) };
    let any_cpu = |rng: &mut Rng| if rng.u8(..20) == 0 { 3 } else { rng.u16(..3) };
    let cpu = any_cpu(rng);
    match rng.u8(..40) {
        0 => guest::mapd(0, device, if rng.u8(..10) == 0 { 17 } else { rng.u8(1..5) }),
        1 => unmapd(device),
        2..=10 => {
            let wrong = [0, 100, 8191, 65_536][rng.usize(..4)];
            let intid = if rng.u8(..15) == 0 { wrong } else { lpi(device, event) };
            guest::mapti(device, event, intid, collection)
        }
        11..=17 => movi(device, event, collection),
        18..=21 => guest::mapc(collection, cpu),
        22 => {
            // The target of an unmapping is ignored.
            let (collection, target) =
                (CollectionId::new(collection), RdBase::from_processor_number(cpu));
            Command::Mapc { collection, target, action: MapAction::Unmap }
        }
        23 | 24 => clear(device, event),
        25 | 26 => discard(device, event),
        27..=31 => int(device, event),
        32..=34 => guest::movall(any_cpu(rng), any_cpu(rng)),
        35 | 36 => invall(collection),
        37 => sync(cpu),
        _ => inv(device, event),
    }
}
