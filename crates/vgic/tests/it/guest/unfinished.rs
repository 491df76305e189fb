//! Tests for operations that take more work than a single access may perform. The remaining work
//! must continue even if the guest doesn't poll for its completion.

use doorbell_test_support::guest::{ITS, Machine, RAM, int, mapc, mapd, mapti};
use gic_arch::gits;
use gic_arch::its::Command;
use msi_types::Delivery;
use vgic::AccessWidth::Word;
use vgic::its::ItsConfig;
use vgic::{GuestMemory, Progress, Sleep, VgicConfig};

const CONFIGURATION: u64 = RAM + 0x10_0000;
const PENDING: u64 = RAM + 0x20_0000;
const FIRST: u32 = 8192;
/// Number of commands, which is more than a single access executes.
const EVENTS: u32 = 1500;
/// Maximum number of times that a test lets the model continue its work.
const MANY: usize = 1000;

fn config(cpus: u16) -> VgicConfig {
    VgicConfig::new(cpus).with_lpi_id_bits(Some(16)).with_its(vec![ItsConfig::new(ITS)])
}

/// Creates a machine whose ITS has a device with 2^11 unmapped events. All LPIs are enabled.
fn machine(cpus: u16) -> Machine {
    let machine = Machine::running(config(cpus));
    machine.ram.write(CONFIGURATION, &vec![0xa1; 57_344]).unwrap();
    machine.enable_lpis(16, CONFIGURATION, PENDING);
    machine.start_its();
    machine.queue([mapc(0, 0), mapd(1, 11, 0)]);
    machine
}

fn map(event: u32) -> Command {
    mapti(1, event, FIRST + event, 0)
}

/// Maps all events and signals the last one, with more commands than one access executes.
fn map_and_ring(machine: &Machine) {
    machine.queue((0..EVENTS).map(map).chain([int(1, EVENTS - 1)]));
    assert_eq!(send(machine, EVENTS - 1), Delivery::Blocked, "one access executed all commands");
}

fn send(machine: &Machine, event: u32) -> Delivery {
    machine.send(1, event)
}

fn last() -> u64 {
    u64::from(FIRST + EVENTS - 1)
}

/// Runs vCPU 0 while its guest executes WFI: prepares to sleep, and sleeps until a kick.
fn waits(machine: &mut Machine) -> Option<u64> {
    for _ in 0..MANY {
        let kicks = machine.kicks.of(0);
        let sleeps = machine.vcpus[0].prepare_to_sleep() == Sleep::Ready;
        if sleeps && machine.kicks.of(0) == kicks {
            return None;
        }
        machine.vcpus[0].returned();
        if machine.vcpus[0].irq_pending() {
            return Some(machine.acknowledge(0));
        }
    }
    None
}

#[test]
fn surplus_commands_complete_while_the_guest_waits() {
    let mut machine = machine(1);
    map_and_ring(&machine);
    assert_eq!(waits(&mut machine), Some(last()));
    machine.end(0, last());
    assert_eq!(machine.vcpus[0].prepare_to_sleep(), Sleep::Ready, "no work must be left");
}

#[test]
fn surplus_commands_complete_while_the_guest_runs() {
    let mut machine = machine(1);
    map_and_ring(&machine);
    for _ in 0..MANY {
        let kicks = machine.kicks.of(0);
        let inputs = machine.vcpus[0].enter_guest();
        assert!(inputs.irq || machine.kicks.of(0) > kicks, "the guest continues without a kick");
        machine.vcpus[0].returned();
        if inputs.irq {
            break;
        }
    }
    assert_eq!(machine.acknowledge(0), last());
}

#[test]
fn surplus_commands_complete_on_a_list_register_vcpu() {
    let mut machine = machine(1);
    map_and_ring(&machine);
    let mut vcpu = machine.list_register_vcpu();
    for _ in 0..MANY {
        let kicks = machine.kicks.of(0);
        let guest = vcpu.enter();
        let registers = *guest.interface();
        if registers.list.iter().any(|register| u64::from(register.virtual_intid()) == last()) {
            return;
        }
        assert!(machine.kicks.of(0) > kicks, "the guest continues without a kick");
        guest.exit(&registers);
    }
    panic!("the work is never done");
}

#[test]
fn surplus_commands_complete_while_the_vcpu_powers_down() {
    let mut machine = machine(1);
    map_and_ring(&machine);
    for _ in 0..MANY {
        assert_eq!(machine.vcpus[0].prepare_to_power_down(), Sleep::DontSleep, "over commands");
        machine.vcpus[0].returned();
        if machine.vcpus[0].irq_pending() {
            break;
        }
    }
    assert_eq!(machine.acknowledge(0), last());
}

#[test]
fn deferred_work_kicks_one_sleeping_vcpu() {
    let mut machine = machine(3);
    for vcpu in &mut machine.vcpus {
        assert_eq!(vcpu.prepare_to_sleep(), Sleep::Ready);
    }
    map_and_ring(&machine);
    let kicks = || [0, 1, 2].map(|cpu| machine.kicks.of(cpu));
    assert_eq!(kicks().iter().sum::<usize>(), 1, "{:?}", kicks());
    let kicked = kicks().iter().position(|kicks| *kicks == 1).unwrap();
    machine.vcpus[kicked].returned();
    for _ in 0..MANY {
        if machine.vcpus[kicked].prepare_to_sleep() == Sleep::Ready {
            break;
        }
        machine.vcpus[kicked].returned();
        if machine.vcpus[kicked].irq_pending() {
            break;
        }
    }
    assert_eq!(machine.acknowledge(0), last());
}

/// Creates a machine with unfinished work and two vCPUs that slept. Returns the number of the vCPU
/// that has been kicked for the work.
fn woken_for_work() -> (Machine, usize) {
    let mut machine = machine(2);
    for vcpu in &mut machine.vcpus {
        assert_eq!(vcpu.prepare_to_sleep(), Sleep::Ready);
    }
    map_and_ring(&machine);
    let kicked = usize::from(machine.kicks.of(0) == 0);
    machine.vcpus[kicked].returned();
    (machine, kicked)
}

#[test]
fn resetting_a_vcpu_kicks_another_for_its_deferred_work() {
    let (mut machine, kicked) = woken_for_work();
    machine.vcpus[kicked].reset();
    assert_eq!([machine.kicks.of(0), machine.kicks.of(1)], [1, 1]);
}

#[test]
fn pausing_a_vcpu_kicks_another_for_its_deferred_work() {
    let (mut machine, kicked) = woken_for_work();
    let _paused = machine.vcpus[kicked].pause();
    assert_eq!([machine.kicks.of(0), machine.kicks.of(1)], [1, 1]);
}

#[test]
fn a_restored_queue_continues_its_unfinished_commands() {
    let mut source = machine(2);
    map_and_ring(&source);
    let saved = source.save();
    for asleep in [false, true] {
        let mut target = Machine::over(source.gic.config().clone(), source.ram.clone());
        if asleep {
            for vcpu in &mut target.vcpus {
                assert_eq!(vcpu.prepare_to_sleep(), Sleep::Ready);
            }
        }
        target.restore(&saved);
        let kicks = target.kicks.of(0) + target.kicks.of(1);
        assert_eq!(kicks, usize::from(asleep), "only a sleeping vCPU must be kicked");
        assert_eq!(waits(&mut target), Some(last()), "asleep: {asleep}");
    }
}

#[test]
fn polling_completes_deferred_work_without_vcpus() {
    let machine = machine(1);
    map_and_ring(&machine);
    let polls = (0..MANY).take_while(|_| machine.gic.poll() == Progress::Unfinished).count();
    assert!(polls < 3, "{polls}");
    assert_eq!(send(&machine, EVENTS - 1), Delivery::Pending);
}

/// Repeats a write, like a vCPU that reenters its guest without advancing the PC. Returns the
/// number of writes.
fn repeat(machine: &Machine, address: u64, value: u64) -> usize {
    for times in 1..MANY {
        if machine.gic.write(address, Word, value).unwrap() == Progress::Done {
            assert_eq!(machine.read(address, Word) & 1, 1);
            return times;
        }
    }
    panic!("the write is never done");
}

const DEVICES: u32 = 40;

/// Lets the model finish its work.
fn settle(machine: &Machine) {
    while machine.gic.poll() == Progress::Unfinished {}
}

/// Creates a machine with more events than a single access visits: 1024 on each device.
fn machine_with_many_events() -> Machine {
    let machine = machine(1);
    for device in 2..2 + DEVICES {
        let map = |event| mapti(device, event, FIRST + event, 0);
        machine.queue(core::iter::once(mapd(device, 10, 0)).chain((0..1024).map(map)));
        settle(&machine);
    }
    machine
}

#[test]
fn a_resumable_write_enables_many_events_in_several_calls() {
    let machine = machine_with_many_events();
    let (its, redistributor) = (ITS + u64::from(gits::CTLR.offset()), machine.frame(0));
    for address in [its, redistributor] {
        machine.write(address, Word, 0);
        settle(&machine);
        let times = repeat(&machine, address, 1);
        assert!(times > 1, "{DEVICES} devices were enabled in {times} pieces");
        machine.write(address, Word, 0);
        settle(&machine);
        machine.write(address, Word, 1);
        assert_eq!(machine.read(address, Word) & 1, 1, "a write must be done when it returns");
    }
}

/// `GITS_CTLR.Enabled` and `Quiescent`.
const STATE: u64 = 1 | 1 << 31;

#[test]
fn a_save_completes_enabling_and_disabling_of_an_its() {
    let mut source = machine_with_many_events();
    let ctlr = ITS + u64::from(gits::CTLR.offset());
    let (first, last) = (2, 1 + DEVICES);
    assert_eq!(source.send(first, 0), Delivery::Pending);

    source.write(ctlr, Word, 0);
    assert_eq!(source.read(ctlr, Word) & STATE, 0, "the ITS must not be quiescent");
    let disabled = source.save();
    let mut target = Machine::over(source.gic.config().clone(), source.ram.clone());
    target.restore(&disabled);
    assert_eq!(target.read(ctlr, Word) & STATE, 1 << 31);
    assert_eq!([first, last].map(|device| target.send(device, 1)), [Delivery::Blocked; 2]);
    assert_eq!(target.acknowledge(0), u64::from(FIRST), "the pending LPI stays pending");

    assert_eq!(target.gic.write(ctlr, Word, 1), Ok(Progress::Unfinished));
    assert_eq!(target.read(ctlr, Word) & STATE, 0, "the ITS must not be enabled");
    let enabled = target.save();
    let mut after = Machine::over(source.gic.config().clone(), source.ram.clone());
    after.restore(&enabled);
    assert_eq!(after.gic.write(ctlr, Word, 1), Ok(Progress::Done), "the repeated write");
    assert_eq!(after.read(ctlr, Word) & STATE, 1);
    assert_eq!([first, last].map(|device| after.send(device, 1)), [Delivery::Pending; 2]);
}
