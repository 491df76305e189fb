//! Scenarios in which a redistributor reports that a register write is complete, although it was
//! in progress when another vCPU began to read the register. A listed LPI must have left its list
//! register by then.

use super::model::{
    CONFIGURATION, EXECUTIONS, REDISTRIBUTORS, VgicMachine, is_one_listed, list_registers, machine,
    spawn,
};
use super::{explore_more, explore_random};
use crate::AccessWidth::Word;
use crate::GuestMemory;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use gic_arch::gicr::{self, Ctlr, Syncr};
use shuttle::thread;

/// A register write that recalls listed LPIs, and the test for its completion.
#[derive(Clone, Copy)]
struct Request {
    write: fn(&VgicMachine),
    is_complete: fn(&VgicMachine) -> bool,
    /// `true` if the LPI is also pending again, so that disabling LPIs doesn't have to wait for the
    /// vCPU to learn whether it is pending.
    is_pending_again: bool,
    /// `true` if `is_complete` returns `false` before the write, too.
    shows_begin: bool,
}

const DISABLE: Request = Request {
    write: |machine| machine.write(REDISTRIBUTORS, gicr::CTLR.offset(), 0),
    is_complete: |machine| {
        let ctlr = Ctlr::from(read(machine, gicr::CTLR.offset()));
        !ctlr.enable_lpis() && !ctlr.rwp()
    },
    shows_begin: true,
    is_pending_again: false,
};

const DISABLE_PENDING: Request = Request { is_pending_again: true, ..DISABLE };

/// Disables the LPI in the configuration table, and makes the redistributor reread the table.
const INVALIDATE: Request = Request {
    write: |machine| {
        machine.ram.write(CONFIGURATION, &[0xa0]).unwrap();
        machine.write_double(REDISTRIBUTORS, gicr::INVALLR.offset(), 0);
    },
    is_complete: |machine| !Syncr::from(read(machine, gicr::SYNCR.offset())).busy(),
    shows_begin: false,
    is_pending_again: false,
};

fn read(machine: &VgicMachine, offset: u32) -> u32 {
    let value = machine.gic.read(REDISTRIBUTORS + u64::from(offset), Word).unwrap();
    u32::try_from(value).unwrap()
}

/// One thread makes the request and waits until it is complete. Another thread reads the same
/// register, while the vCPU has the LPI in a list register.
fn is_requested_while_listed(request: Request) {
    let (machine, [vcpu, _]) = machine();
    machine.send();
    let mut vcpu = vcpu.with_list_registers(list_registers()).unwrap();
    let guest = vcpu.enter();
    let registers = *guest.interface();
    assert!(is_one_listed(&guest));
    if request.is_pending_again {
        machine.send();
    }
    let is_listed = Arc::new(AtomicBool::new(true));
    let writer = {
        let is_listed = is_listed.clone();
        spawn(&machine, move |machine| {
            (request.write)(machine);
            while !(request.is_complete)(machine) {
                thread::yield_now();
            }
            assert!(!is_listed.load(SeqCst), "complete although the LPI is still listed");
        })
    };
    let reader = {
        let is_listed = is_listed.clone();
        spawn(&machine, move |machine| {
            for _ in 0..3 {
                let is_done = (request.is_complete)(machine) && request.shows_begin;
                assert!(!is_done || !is_listed.load(SeqCst), "another vCPU reads `complete`");
            }
        })
    };
    machine.linger();
    is_listed.store(false, SeqCst);
    guest.exit(&registers);
    writer.join().unwrap();
    reader.join().unwrap();
}

#[test]
fn rwp_is_set_until_no_lpi_is_listed() {
    explore_random(EXECUTIONS, || is_requested_while_listed(DISABLE));
    explore_more(10, || is_requested_while_listed(DISABLE_PENDING));
}

#[test]
fn syncr_is_busy_until_no_lpi_is_listed() {
    explore_random(EXECUTIONS, || is_requested_while_listed(INVALIDATE));
}
