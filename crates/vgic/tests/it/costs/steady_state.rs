//! Checks the cost of sending a message and handling its interrupt once all events are mapped.
//! Neither may allocate, access guest memory, wait for a command that is being executed, or kick a
//! vCPU that is awake.

use super::machine::{
    FIRST, Machine, Memory, SPI, handle_all, map, start, with_direct_lpis, with_its,
};
use doorbell_test_support::guest::{inv, vtr};
use doorbell_test_support::heap_use;
use gic_arch::ich::{ListRegister, ListRegisterState};
use gic_arch::{gicd, gicr};
use msi_types::{Delivery, Level, Line, MsiMessage, NoIdentity, SetLine, SignalMsi};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use vgic::AccessWidth::Word;
use vgic::{FaultReason, Sleep, Vcpu, VgicConfig};

/// A device whose events fit in a single chunk of the model's table. The events of `WIDE` need a
/// tree of chunks.
const NARROW: u32 = 1;
const WIDE: u32 = 2;
const WIDE_BITS: u32 = 11;

fn started(config: VgicConfig) -> (Machine, Vcpu) {
    let mut machine = start(config);
    let vcpu = machine.vcpus.remove(0);
    (machine, vcpu)
}

fn mapped() -> (Machine, Vcpu) {
    let (machine, vcpu) = started(with_its());
    map(&machine, NARROW, 5, FIRST);
    map(&machine, WIDE, 11, FIRST + 32);
    (machine, vcpu)
}

/// Runs `act` ten times. Returns the number of bytes allocated and the number of accesses to guest
/// memory.
fn costs(memory: &Memory, mut act: impl FnMut()) -> (usize, usize) {
    let before = memory.accesses();
    let ((), used) = heap_use(|| (0..10).for_each(|_| act()));
    (used.allocated, memory.accesses() - before)
}

/// Sends two messages for every 37th event of `WIDE` and for each of the first 32 events of
/// `NARROW`.
fn ring(machine: &Machine) -> usize {
    let events = (0..1 << WIDE_BITS).step_by(37).map(|event| (WIDE, event));
    let events = events.chain((0..32).map(|event| (NARROW, event)));
    let rung = events.map(|(device, event)| {
        assert_eq!(machine.send(device, event), Delivery::Pending);
        assert_eq!(machine.send(device, event), Delivery::Pending);
    });
    rung.count()
}

#[test]
fn its_messages_allocate_nothing() {
    let (machine, mut vcpu) = mapped();
    let costs = costs(&machine.ram, || {
        let rung = ring(&machine);
        assert_eq!(machine.send(3, 0), Delivery::Blocked, "the device must not exist");
        assert_eq!(handle_all(&mut vcpu), rung);
    });
    assert_eq!(costs, (0, 0));
}

/// Sends a message for an LPI to its redistributor.
fn ring_directly(machine: &Machine, lpi: u32) {
    let address = machine.gic.config().redistributors[0].base + u64::from(gicr::SETLPIR.offset());
    let message = MsiMessage { address, data: lpi };
    assert_eq!(machine.gic.signal_msi(NoIdentity, message), Delivery::Pending);
}

fn invalidate(machine: &Machine, lpi: u32) {
    machine.write(machine.frame(0) + u64::from(gicr::INVLPIR.offset()), Word, lpi.into());
}

/// Returns one LPI from each of 20 consecutive blocks of 32. Each round uses different blocks.
fn group(round: u32) -> impl Iterator<Item = u32> {
    (0..20).map(move |at| FIRST + 32 * (20 * round + at) + at)
}

#[test]
fn direct_lpis_allocate_nothing() {
    let (machine, mut vcpu) = started(with_direct_lpis());
    let mut round = 0;
    let costs = costs(&machine.ram, || {
        group(round).for_each(|lpi| ring_directly(&machine, lpi));
        round += 1;
    });
    assert_eq!(costs, (0, 0));
    assert_eq!(handle_all(&mut vcpu), 20 * round as usize);
}

#[test]
fn invalidated_direct_lpis_allocate_nothing() {
    let (machine, mut vcpu) = started(with_direct_lpis());
    (0..10).flat_map(group).for_each(|lpi| invalidate(&machine, lpi));
    let mut round = 0;
    let costs = costs(&machine.ram, || {
        group(round).for_each(|lpi| ring_directly(&machine, lpi));
        assert_eq!(handle_all(&mut vcpu), 20);
        round += 1;
    });
    assert_eq!(costs, (0, 0));
}

#[test]
fn wired_interrupts_and_mbis_allocate_nothing() {
    let (machine, mut vcpu) = mapped();
    let address = machine.gic.config().distributor + u64::from(gicd::SETSPI_NSR.offset());
    let costs = costs(&machine.ram, || {
        for level in [Level::High, Level::Low] {
            machine.gic.set_line(Line::Spi(SPI), level);
        }
        assert_eq!(handle_all(&mut vcpu), 1);
        machine.gic.signal_msi(NoIdentity, MsiMessage { address, data: SPI });
        assert_eq!(handle_all(&mut vcpu), 1);
    });
    assert_eq!(costs, (0, 0));
}

#[test]
fn kicking_a_sleeping_vcpu_allocates_nothing() {
    let (machine, mut vcpu) = mapped();
    let costs = costs(&machine.ram, || {
        let kicks = machine.kicks.of(0);
        ring(&machine);
        assert_eq!(machine.kicks.of(0), kicks, "a vCPU that is awake needs no kick");
        handle_all(&mut vcpu);
        assert_eq!(vcpu.prepare_to_sleep(), Sleep::Ready);
        ring(&machine);
        assert_eq!(machine.kicks.of(0), kicks + 1, "it sleeps");
        vcpu.returned();
        handle_all(&mut vcpu);
    });
    assert_eq!(costs, (0, 0));
}

#[test]
fn filling_list_registers_allocates_nothing() {
    let (machine, vcpu) = mapped();
    let mut vcpu = vcpu.with_list_registers(vtr(4, 5)).unwrap();
    let mut run = || {
        let rung = ring(&machine);
        let mut listed = 0;
        while listed < rung {
            let guest = vcpu.enter();
            let mut registers = *guest.interface();
            // The guest acknowledges and ends all interrupts in its list registers.
            let valid =
                |register: &&mut ListRegister| register.state() != ListRegisterState::Invalid;
            for register in registers.list.iter_mut().filter(valid) {
                *register = ListRegister::new();
                listed += 1;
            }
            guest.exit(&registers);
        }
    };
    run();
    assert_eq!(costs(&machine.ram, run), (0, 0));
}

/// Checks that `act` completes while `hold` is waiting for guest memory. `hold` must read the
/// configuration of LPI [`FIRST`].
fn ends_meanwhile(machine: &Machine, hold: impl FnOnce() + Send, act: impl FnOnce() + Send) {
    machine.ram.close(FIRST);
    thread::scope(|scope| {
        scope.spawn(hold);
        machine.ram.wait_for_a_reader();
        let (done, ended) = mpsc::channel();
        scope.spawn(move || {
            act();
            done.send(()).unwrap();
        });
        let ended = ended.recv_timeout(Duration::from_secs(30));
        machine.ram.open();
        assert_eq!(ended, Ok(()), "the message must not wait for the command");
    });
}

#[test]
fn its_messages_do_not_wait_for_commands() {
    let (machine, mut vcpu) = mapped();
    ends_meanwhile(
        &machine,
        || machine.run([inv(NARROW, 0)]),
        || {
            let rung = ring(&machine);
            assert_eq!(machine.send(3, 0), Delivery::Blocked, "the device must not exist");
            assert_eq!(handle_all(&mut vcpu), rung);
            assert_eq!(vcpu.prepare_to_sleep(), Sleep::Ready);
            ring(&machine);
            vcpu.returned();
        },
    );
    assert_eq!(machine.kicks.of(0), 1);
}

#[test]
fn unmapped_messages_do_not_wait_for_commands() {
    let (machine, _) = mapped();
    let ring = || {
        for (device, event) in [(3, 0), (NARROW, 32), (1 << 16, 0)] {
            assert_eq!(machine.send(device, event), Delivery::Blocked);
        }
    };
    assert_eq!(costs(&machine.ram, ring), (0, 0));
    let counts = || {
        [FaultReason::UnmappedDevice, FaultReason::EventOutOfRange]
            .map(|reason| machine.gic.events().count(reason))
    };
    let [devices, events] = counts();
    ends_meanwhile(&machine, || machine.run([inv(NARROW, 0)]), ring);
    assert_eq!(counts(), [devices + 2, events + 1]);
}

#[test]
fn wired_interrupts_do_not_wait_for_commands() {
    let (machine, mut vcpu) = mapped();
    let ring = || {
        machine.raise(SPI);
        assert_eq!(handle_all(&mut vcpu), 1);
    };
    ends_meanwhile(&machine, || machine.run([inv(NARROW, 0)]), ring);
}

#[test]
fn direct_lpis_do_not_wait_for_invalidations() {
    let (machine, mut vcpu) = started(with_direct_lpis());
    invalidate(&machine, FIRST);
    let ring = || {
        ring_directly(&machine, FIRST);
        assert_eq!(handle_all(&mut vcpu), 1);
        group(1).for_each(|lpi| ring_directly(&machine, lpi));
        assert_eq!(handle_all(&mut vcpu), 20);
    };
    ends_meanwhile(&machine, || invalidate(&machine, FIRST), ring);
}
