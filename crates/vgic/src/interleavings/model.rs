//! Scenarios for the whole model: devices write to the ITS's doorbell, vCPUs acknowledge through
//! system registers, and commands arrive through the queue.

use super::event_lpis::LPI;
use super::machine::{Kicks, Ram};
use super::std::vec::Vec;
use super::{explore, explore_random, store_buffer};
use crate::AccessWidth::{Double, Word};
use crate::frames::its::ItsConfig;
use crate::{GuestMemory, InGuest, ListRegisterVcpu, Sleep, Vcpu, Vgic, VgicConfig};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use gic_arch::gits::{self, Baser, Cbaser, Cwriter, PageSize};
use gic_arch::ich::{ListRegisterState, Vtr};
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use gic_arch::{IntId, IntIdLocation, gicd, gicr, icc};
use msi_types::{Cpu, Delivery, DeviceId, EventId, Level, Line, MsiMessage, SetLine};
use shuttle::thread;

pub(super) const ITS: u64 = 0x0808_0000;
pub(super) const REDISTRIBUTORS: u64 = 0x080a_0000;
pub(super) const CONFIGURATION: u64 = 0;
const PENDING: [u64; 2] = [0x1_0000, 0x2_0000];
const QUEUE: u64 = 0x3_0000;
const DEVICES: u64 = 0x4_0000;
const COLLECTIONS: u64 = 0x5_0000;
const RAM_BYTES: usize = 0x6_0000;
pub(super) const DEVICE: DeviceId = DeviceId::new(1);
pub(super) const EVENT: EventId = EventId::new(0);
/// Level-sensitive SPI routed to vCPU 0.
pub(super) const SPI: IntId = IntId::new(40);
pub(super) const SPURIOUS: u64 = 1023;
/// Number of executions per check. Each execution is slow, because the guest has to set up the
/// whole machine.
pub(super) const EXECUTIONS: usize = 500;

/// A machine whose guest has mapped one event of one device to [`LPI`] at vCPU 0. Collection n is
/// mapped to vCPU n.
pub(super) struct VgicMachine {
    pub(super) gic: Arc<Vgic>,
    pub(super) ram: Arc<Ram>,
    pub(super) kicks: Arc<Kicks>,
}

pub(super) fn machine() -> (Arc<VgicMachine>, [Vcpu; 2]) {
    let ram = Arc::new(Ram::new(RAM_BYTES));
    ram.write(CONFIGURATION, &[0xa1]).unwrap();
    let kicks = Kicks::new();
    let config = VgicConfig {
        lpi_id_bits: Some(14),
        its_events: 64,
        its_devices: 4,
        redistributor_invalidation: true,
        its: Vec::from([ItsConfig::new(ITS).with_device_id_bits(2)]),
        ..VgicConfig::new(2)
    };
    let (gic, vcpus) = Vgic::new(config, ram.clone(), kicks.clone()).unwrap();
    let machine = VgicMachine { gic, ram, kicks };
    let mut vcpus: [Vcpu; 2] = vcpus.try_into().unwrap();
    let enable_groups = gicd::Ctlr::new().with_enable_grp0(true).with_enable_grp1(true);
    machine.write(machine.gic.config().distributor, gicd::CTLR.offset(), enable_groups.into());
    (0..2).for_each(|vcpu| machine.start(vcpu, &mut vcpus[vcpu]));
    machine.start_its();
    (Arc::new(machine), vcpus)
}

impl VgicMachine {
    pub(super) fn write(&self, base: u64, offset: u32, value: u32) {
        self.gic.write_until_done(base + u64::from(offset), Word, value.into()).unwrap();
    }

    pub(super) fn write_double(&self, base: u64, offset: u32, value: u64) {
        self.gic.write_until_done(base + u64::from(offset), Double, value).unwrap();
    }

    /// Prepares a vCPU to take interrupts, including LPIs.
    fn start(&self, index: usize, vcpu: &mut Vcpu) {
        let frame = REDISTRIBUTORS + 0x2_0000 * index as u64;
        let tables = gicr::Propbaser::new().with_id_bits_minus_one(13).with_address(CONFIGURATION);
        let pending = gicr::Pendbaser::new().with_address(PENDING[index]);
        self.write(frame, gicr::WAKER.offset(), 0);
        self.write_double(frame, gicr::PROPBASER.offset(), tables.into_bits());
        self.write_double(frame, gicr::PENDBASER.offset(), pending.into_bits());
        let enable = gicr::Ctlr::new().with_enable_lpis(true);
        self.write(frame, gicr::CTLR.offset(), enable.into_bits());
        vcpu.write_sysreg(icc::PMR.encoding(), 0xff).unwrap();
        vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1).unwrap();
    }

    fn start_its(&self) {
        let table =
            |at| Baser::new().with_page_size(PageSize::Size64K).with_address(at).with_valid(true);
        let queue = Cbaser::new().with_address(QUEUE).with_valid(true);
        self.write_double(ITS, gits::BASER.get(0).unwrap().offset(), table(DEVICES).into_bits());
        self.write_double(
            ITS,
            gits::BASER.get(1).unwrap().offset(),
            table(COLLECTIONS).into_bits(),
        );
        self.write_double(ITS, gits::CBASER.offset(), queue.into_bits());
        self.write(ITS, gits::CTLR.offset(), 1);
        self.run(0, &[mapc(0), mapc(1), mapd(), mapti()]);
    }

    /// Sets an interrupt's bit in a distributor register.
    fn set_bit(&self, bit: Option<IntIdLocation>) {
        let bit = bit.unwrap();
        let distributor = self.gic.config().distributor;
        self.write(distributor, bit.register().offset(), bit.mask());
    }

    pub(super) fn enable_spi(&self) {
        self.set_bit(gicd::IGROUPR.locate(SPI));
        self.set_bit(gicd::ISENABLER.locate(SPI));
    }

    /// Writes commands to the queue, starting at slot `first`, and waits until they are complete.
    fn run(&self, first: u32, commands: &[Command]) {
        let mut at = 32 * first;
        for command in commands {
            let image: Vec<u8> = command.encode().into_iter().flat_map(u64::to_le_bytes).collect();
            self.ram.write(QUEUE + u64::from(at), &image).unwrap();
            at += 32;
        }
        self.write_double(ITS, gits::CWRITER.offset(), Cwriter::at_offset(at).into_bits());
        let creadr = ITS + u64::from(gits::CREADR.offset());
        while self.gic.read(creadr, Double).unwrap() != u64::from(at) {
            thread::yield_now();
        }
    }

    /// Runs commands in the queue slots that follow the setup's commands.
    pub(super) fn command(&self, commands: &[Command]) {
        self.run(4, commands);
    }

    /// Keeps vCPU 0 in its guest until some time after it was kicked.
    pub(super) fn linger(&self) {
        let _ = (0..200).find(|_| {
            thread::yield_now();
            self.kicks.count(Cpu::new(0)) > 0
        });
        (0..40).for_each(|_| thread::yield_now());
    }

    /// Asserts the SPI.
    pub(super) fn fire(&self) {
        let raised = self.gic.set_line(Line::Spi(SPI.get()), Level::High);
        assert_eq!(raised, Delivery::Pending);
    }

    pub(super) const fn message() -> MsiMessage {
        let address = ITS + gits::TRANSLATER.offset() as u64;
        MsiMessage { address, data: EVENT.get() }
    }

    pub(super) fn send(&self) {
        let delivery = self.gic.its(0).unwrap().signal_msi(DEVICE, Self::message());
        assert_eq!(delivery, Delivery::Pending);
    }
}

/// Acknowledges and ends the LPI, if it is signaled.
pub(super) fn handle(vcpu: &mut Vcpu) -> bool {
    let taken = vcpu.read_sysreg(icc::IAR1.encoding()).unwrap();
    if taken != SPURIOUS {
        assert_eq!(taken, u64::from(LPI));
        vcpu.write_sysreg(icc::EOIR1.encoding(), taken).unwrap();
    }
    taken != SPURIOUS
}

pub(super) fn count(vcpu: &mut Vcpu) -> usize {
    core::iter::from_fn(|| handle(vcpu).then_some(())).count()
}

pub(super) fn spawn<T: Send + 'static>(
    machine: &Arc<VgicMachine>,
    act: impl FnOnce(&VgicMachine) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let machine = machine.clone();
    thread::spawn(move || act(&machine))
}

/// A vCPU handles its interrupts and falls asleep while a device sends twice.
fn a_device_sends_to_a_sleeper() {
    let (machine, [mut vcpu, _]) = machine();
    let device = spawn(&machine, |machine| (0..2).for_each(|_| machine.send()));
    handle(&mut vcpu);
    let sleeps = vcpu.prepare_to_sleep() == Sleep::Ready;
    device.join().unwrap();
    let kicks = machine.kicks.count(Cpu::new(0));
    let left = count(&mut vcpu);
    assert!(kicks <= 1, "one departure must cause at most one kick");
    assert!(!(sleeps && left > 0) || kicks == 1, "the vCPU sleeps despite its interrupt");
}

#[test]
fn a_message_wakes_a_vcpu_falling_asleep() {
    explore(a_device_sends_to_a_sleeper);
}

/// A device numbers its interrupts, and the vCPU sleeps between them. The vCPU must not sleep over
/// the last one.
fn a_vcpu_sleeps_between_interrupts(signal: fn(&VgicMachine)) {
    const LAST: u64 = 3;
    let (machine, [mut vcpu, _]) = machine();
    machine.enable_spi();
    machine.set_bit(gicd::ICFGR.locate(SPI));
    let (number, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let device = {
        let (number, is_over) = (number.clone(), is_over.clone());
        spawn(&machine, move |machine| {
            for message in 1..=LAST {
                number.store(message, SeqCst);
                signal(machine);
            }
            is_over.store(true, SeqCst);
        })
    };
    let (mut seen, mut heard) = (0, 0);
    loop {
        let taken = vcpu.read_sysreg(icc::IAR1.encoding()).unwrap();
        if taken != SPURIOUS {
            seen = number.load(SeqCst);
            vcpu.write_sysreg(icc::EOIR1.encoding(), taken).unwrap();
        } else if vcpu.prepare_to_sleep() == Sleep::Ready {
            let was_kicked = loop {
                let ended = is_over.load(SeqCst);
                let kicks = machine.kicks.count(Cpu::new(0));
                if kicks > heard || ended {
                    break core::mem::replace(&mut heard, kicks) < kicks;
                }
                thread::yield_now();
            };
            if !was_kicked {
                break;
            }
            vcpu.returned();
        }
    }
    device.join().unwrap();
    assert_eq!(seen, LAST, "the vCPU sleeps over an interrupt");
}

#[test]
fn a_later_interrupt_wakes_a_vcpu_falling_asleep() {
    explore_random(EXECUTIONS, || a_vcpu_sleeps_between_interrupts(VgicMachine::send));
    let pulse = |machine: &VgicMachine| {
        machine.gic.pulse(Line::Spi(SPI.get()));
    };
    explore_random(EXECUTIONS, move || a_vcpu_sleeps_between_interrupts(pulse));
}

/// A device numbers its messages in memory. The handler of the last interrupt must see the last
/// number.
fn a_device_sends_numbers() {
    let (machine, [mut vcpu, _]) = machine();
    let number = Arc::new(AtomicU64::new(0));
    let device = {
        let number = number.clone();
        spawn(&machine, move |machine| {
            for message in 1..=2 {
                store_buffer::store(&number, message);
                machine.send();
            }
        })
    };
    let mut seen = 0;
    for _ in 0..2 {
        if handle(&mut vcpu) {
            seen = number.load(SeqCst);
        }
    }
    device.join().unwrap();
    let left = handle(&mut vcpu);
    store_buffer::drain_all();
    assert!(left || seen == 2, "message 2 was delivered, but only message {seen} was seen");
}

#[test]
fn a_handler_sees_the_message_that_it_handles() {
    explore_random(EXECUTIONS, a_device_sends_numbers);
}

/// MOVI moves a pending message to another vCPU, which concurrently falls asleep.
fn a_message_moves_to_a_sleeper() {
    let (machine, [mut old, mut new]) = machine();
    let device = spawn(&machine, VgicMachine::send);
    let commands = spawn(&machine, |machine| machine.command(&[movi(1), sync(0)]));
    let sleeper = thread::spawn(move || (new.prepare_to_sleep() == Sleep::Ready, new));
    let before = count(&mut old);
    device.join().unwrap();
    commands.join().unwrap();
    let (sleeps, mut new) = sleeper.join().unwrap();
    assert_eq!(before + count(&mut old) + count(&mut new), 1, "one message, one interrupt");
    let kicks = machine.kicks.count(Cpu::new(1));
    assert!(!(sleeps && before == 0) || kicks == 1, "the new vCPU sleeps despite its interrupt");
}

#[test]
fn a_message_that_moves_wakes_its_new_vcpu() {
    explore_random(EXECUTIONS, a_message_moves_to_a_sleeper);
}

/// Starts MOVI and SYNC, and returns a flag that must be set while the LPI is listed at vCPU 0.
pub(super) fn start_moving(
    machine: &Arc<VgicMachine>,
) -> (Arc<AtomicBool>, thread::JoinHandle<()>) {
    let is_listed = Arc::new(AtomicBool::new(false));
    let seen = is_listed.clone();
    let commands = spawn(machine, move |machine| {
        machine.command(&[movi(1), sync(0)]);
        assert!(!seen.load(SeqCst), "the LPI is still listed at the old vCPU");
    });
    (is_listed, commands)
}

/// A vCPU with list registers enters and exits, without acknowledging, concurrently with MOVI.
fn a_listed_message_moves() {
    let (machine, [old, mut new]) = machine();
    machine.send();
    let mut old = old.with_list_registers(list_registers()).unwrap();
    let (is_listed, commands) = start_moving(&machine);
    let guest = old.enter();
    let registers = *guest.interface();
    is_listed.store(is_one_listed(&guest), SeqCst);
    machine.linger();
    is_listed.store(false, SeqCst);
    guest.exit(&registers);
    commands.join().unwrap();
    assert!(!is_one_listed(&old.enter()), "pending at the old vCPU");
    assert_eq!(count(&mut new), 1, "one message, one interrupt");
}

#[test]
fn a_listed_message_moves_to_its_new_vcpu_once() {
    explore_random(EXECUTIONS, a_listed_message_moves);
}

/// Activity of a vCPU before an interrupt arrives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    HandledAMessage,
    /// The vCPU has been in its guest, and no interrupt arrived.
    Entered,
    /// The vCPU has been in its guest, and then stayed outside for a while.
    Returned,
}

pub(super) fn is_one_listed(guest: &InGuest<'_>) -> bool {
    guest.interface().list[0].state() != ListRegisterState::Invalid
}

/// Enters the guest, and exits with the loaded state unchanged.
fn enter_and_exit(vcpu: &mut ListRegisterVcpu) {
    let guest = vcpu.enter();
    let registers = *guest.interface();
    guest.exit(&registers);
}

/// An interrupt arrives at a vCPU that is entering with nothing pending. Either the interrupt must
/// be in the list register afterwards, or the vCPU must have been kicked.
fn arrives_at_an_entry(before: Before, arrive: fn(&VgicMachine)) {
    let (machine, [mut vcpu, _]) = machine();
    machine.enable_spi();
    if before == Before::HandledAMessage {
        machine.send();
        assert!(handle(&mut vcpu));
    }
    let mut vcpu = vcpu.with_list_registers(list_registers()).unwrap();
    if matches!(before, Before::Entered | Before::Returned) {
        enter_and_exit(&mut vcpu);
    }
    if before == Before::Returned {
        vcpu.returned();
    }
    let device = spawn(&machine, arrive);
    let guest = vcpu.enter();
    device.join().unwrap();
    let kicks = machine.kicks.count(Cpu::new(0));
    assert!(kicks <= 1, "one entry must cause at most one kick");
    assert!(is_one_listed(&guest) || kicks == 1, "the guest continues without the interrupt");
    let registers = *guest.interface();
    guest.exit(&registers);
    assert!(is_one_listed(&vcpu.enter()), "the interrupt was lost");
}

fn arrives_at_entries(executions: usize, arrive: fn(&VgicMachine)) {
    for before in [Before::Nothing, Before::Entered, Before::Returned] {
        explore_random(executions, move || arrives_at_an_entry(before, arrive));
    }
}

#[test]
fn a_message_that_arrives_during_a_vm_entry_is_not_missed() {
    explore_random(EXECUTIONS, || arrives_at_an_entry(Before::HandledAMessage, VgicMachine::send));
    arrives_at_entries(EXECUTIONS, VgicMachine::send);
}

/// Detects read-modify-writes, which would drain the store buffer.
fn an_idle_vcpu_enters_and_exits() {
    let (_machine, [vcpu, _]) = machine();
    let mut vcpu = vcpu.with_list_registers(list_registers()).unwrap();
    enter_and_exit(&mut vcpu);
    let stored = Arc::new(AtomicU64::new(0));
    store_buffer::store(&stored, 1);

    enter_and_exit(&mut vcpu);

    assert_eq!(stored.load(SeqCst), 0, "an idle entry must not perform a read-modify-write");
}

#[test]
fn an_idle_entry_and_exit_perform_no_read_modify_write() {
    explore_random(1, an_idle_vcpu_enters_and_exits);
}

#[test]
fn an_spi_that_fires_during_a_vm_entry_is_not_missed() {
    arrives_at_entries(EXECUTIONS, VgicMachine::fire);
}

#[test]
fn an_activation_during_a_vm_entry_is_not_missed() {
    let activate = |machine: &VgicMachine| machine.set_bit(gicd::ISACTIVER.locate(SPI));
    arrives_at_entries(10 * EXECUTIONS, activate);
}

/// Describes a virtual interface with one list register, and the model's number of priority bits.
pub(super) fn list_registers() -> Vtr {
    Vtr::new().with_pri_bits_minus_one(4).with_pre_bits_minus_one(4)
}

fn mapc(vcpu: u16) -> Command {
    let target = RdBase::from_processor_number(vcpu);
    Command::Mapc { collection: CollectionId::new(vcpu), target, action: MapAction::Map }
}

fn mapd() -> Command {
    Command::Mapd { device: DEVICE, itt: 0, event_bits_minus_one: 0, action: MapAction::Map }
}

fn mapti() -> Command {
    let collection = CollectionId::new(0);
    Command::Mapti { device: DEVICE, event: EVENT, intid: LPI, collection }
}

fn movi(vcpu: u16) -> Command {
    Command::Movi { device: DEVICE, event: EVENT, collection: CollectionId::new(vcpu) }
}

fn sync(vcpu: u16) -> Command {
    Command::Sync { target: RdBase::from_processor_number(vcpu) }
}
