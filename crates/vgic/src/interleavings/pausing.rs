//! Scenarios in which a device signals while the machine is paused, saved or restored.

use super::explore_random;
use super::model::{
    DEVICE, EVENT, EXECUTIONS, ITS, SPI, SPURIOUS, VgicMachine, count, handle, machine, spawn,
};
use super::std::vec::Vec;
use crate::saved_state::SavedState;
use crate::{Sleep, Vcpu};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use gic_arch::{gits, icc};
use msi_types::{Cpu, Level, Line, MsiMessage, SetLine};
use shuttle::thread;

const LINE: Line = Line::Spi(SPI.get());
const FIRST_LPI: u64 = 8192;

fn save(machine: &VgicMachine, vcpus: &mut [Vcpu]) -> SavedState {
    let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
    machine.gic.save().unwrap()
}

fn restore(machine: &VgicMachine, vcpus: &mut [Vcpu], saved: &SavedState) {
    let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
    machine.gic.restore(saved).unwrap();
}

/// Acknowledges and ends all signaled interrupts, and returns their INTIDs. The SPI's device lowers
/// its line when the SPI is handled.
fn taken(machine: &VgicMachine, vcpu: &mut Vcpu) -> Vec<u64> {
    let take = || {
        let taken = vcpu.read_sysreg(icc::IAR1.encoding()).unwrap();
        if taken == u64::from(SPI.get()) {
            let _ = machine.gic.set_line(LINE, Level::Low);
        }
        let is_signaled = taken != SPURIOUS;
        is_signaled.then(|| vcpu.write_sysreg(icc::EOIR1.encoding(), taken).unwrap())?;
        Some(taken)
    };
    core::iter::from_fn(take).collect()
}

/// A device sends a message and raises a line while the machine is saved. Both must be pending
/// after the resume. If they were signaled before the save, they must also be pending in a machine
/// that restores the state.
fn a_device_signals_during_a_save() {
    let (source, mut vcpus) = machine();
    source.enable_spi();
    let signaled = Arc::new(AtomicUsize::new(0));
    let device = {
        let signaled = signaled.clone();
        spawn(&source, move |machine| {
            machine.send();
            signaled.store(1, SeqCst);
            let _ = machine.gic.set_line(LINE, Level::High);
            signaled.store(2, SeqCst);
        })
    };
    (0..20).for_each(|_| thread::yield_now());
    let before = signaled.load(SeqCst);
    let saved = save(&source, &mut vcpus);
    device.join().unwrap();

    let (copy, mut restored) = machine();
    restore(&copy, &mut restored, &saved);
    assert!(taken(&copy, &mut restored[0]).len() >= before, "an earlier signal is not saved");
    assert_eq!(taken(&source, &mut vcpus[0]).len(), 2, "a signal was lost by the pause");
}

#[test]
fn a_signal_before_a_save_is_saved() {
    explore_random(EXECUTIONS, a_device_signals_during_a_save);
}

/// A device sends a message while a state with the same LPI pending is restored. The vCPU
/// is asleep.
fn a_device_sends_during_a_restore() {
    let (machine, mut vcpus) = machine();
    machine.send();
    let saved = save(&machine, &mut vcpus);
    assert!(handle(&mut vcpus[0]));
    assert_eq!(vcpus[0].prepare_to_sleep(), Sleep::Ready);
    let device = spawn(&machine, |machine| {
        let address = ITS + u64::from(gits::TRANSLATER.offset());
        let message = MsiMessage { address, data: EVENT.get() };
        // The message is dropped if its event is not restored yet.
        let _ = machine.gic.its(0).unwrap().signal_msi(DEVICE, message);
    });
    restore(&machine, &mut vcpus, &saved);
    device.join().unwrap();
    assert_eq!(machine.kicks.count(Cpu::new(0)), 1, "the vCPU sleeps despite its interrupt");
    assert_eq!(count(&mut vcpus[0]), 1, "the restored LPI and the message merge");
    machine.send();
    assert_eq!(count(&mut vcpus[0]), 1, "messages are delivered after the restore");
}

#[test]
fn a_restored_lpi_is_delivered_once() {
    explore_random(EXECUTIONS, a_device_sends_during_a_restore);
}

fn count_lpis(taken: &[u64]) -> usize {
    taken.iter().filter(|intid| **intid >= FIRST_LPI).count()
}

/// Each vCPU is paused and resumed by its own thread, while another thread saves the machine and a
/// device raises a line. Before that, the device has sent a message, which the first vCPU may
/// handle before its pause. The source must handle the message and the line once each. Either the
/// source handles the message before the pause, or the copy does.
fn owners_pause_while_a_device_signals() {
    let (source, vcpus) = machine();
    source.enable_spi();
    source.send();
    let is_saved = Arc::new(AtomicBool::new(false));
    let owners = vcpus.map(|mut vcpu| {
        let is_saved = is_saved.clone();
        spawn(&source, move |machine| {
            let before = taken(machine, &mut vcpu);
            let paused = vcpu.pause();
            while !is_saved.load(SeqCst) {
                thread::yield_now();
            }
            paused.resume();
            (before, vcpu)
        })
    });
    let device = spawn(&source, |machine| {
        // A first vCPU that handles the message and pauses takes about as many steps.
        (0..80).for_each(|_| thread::yield_now());
        let _ = machine.gic.set_line(LINE, Level::High);
    });
    let saved = loop {
        match source.gic.save() {
            Ok(saved) => break saved,
            Err(_) => thread::yield_now(),
        }
    };
    is_saved.store(true, SeqCst);
    device.join().unwrap();
    let [(before, mut vcpu), _] = owners.map(|owner| owner.join().unwrap());

    let (copy, mut restored) = machine();
    restore(&copy, &mut restored, &saved);
    let moved = taken(&copy, &mut restored[0]);
    assert_eq!(count_lpis(&before) + count_lpis(&moved), 1, "the message is lost or doubled");
    let after = taken(&source, &mut vcpu);
    assert_eq!(before.len() + after.len(), 2, "a signal is lost or doubled by the pause");
}

#[test]
fn pausing_a_vcpu_neither_loses_nor_repeats_an_interrupt() {
    explore_random(EXECUTIONS, owners_pause_while_a_device_signals);
}
