//! Functions that are replaced while their drivers still use them. Nothing that a driver does may
//! reach the function that has taken its function's slot.

use crate::asleep::overtaken;
use crate::board::{BUS, Board, OTHER, SLOT, channel_to, function, reason, request};
use crate::deletions::{board, compose_in_vain};
use crate::tamper::Fate;
use hyperv_vpci::guest::{Bus, BusEvent, VpciError};
use hyperv_vpci::host::Host;
use hyperv_vpci::protocol::{Request, Slot};
use msi_types::{
    Attachment, Cpu, Delivery, HwIrqBlock, MoveOutcome, MsiError, MsiParent, NoIdentity, Pending,
    Shape, SignalMsi,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::from_fn;
use std::sync::{Arc, Mutex};

/// A driver of a function that was removed: its attachment, a vector with a message, and one
/// without.
struct Stale {
    device: Attachment,
    granted: HwIrqBlock,
    fresh: HwIrqBlock,
}

type Operation = fn(&Board, &Stale);

fn is_refused<T: std::fmt::Debug>(result: Result<T, MsiError>) {
    assert_eq!(reason(result.unwrap_err()), "the function was removed");
}

const OPERATIONS: [Operation; 7] = [
    |board, stale| is_refused(board.bus.compose(&stale.fresh, 0)),
    |board, stale| is_refused(board.bus.compose(&stale.granted, 0)),
    |board, stale| {
        let one = request(1, Shape::Independent);
        is_refused(board.bus.allocate(&stale.device, &one));
        is_refused(board.bus.allocate_managed(&stale.device, &one, &[Cpu::new(1)]));
    },
    |board, stale| {
        let moved = board.bus.begin_move(&stale.granted, 0, Cpu::new(1)).unwrap();
        board.bus.end_move(moved, MoveOutcome::RolledBack).unwrap();
    },
    |board, stale| board.bus.unmask(stale.granted.first()),
    |board, stale| board.bus.set_pending(stale.granted.first(), Pending::Set),
    |board, _| assert_eq!(board.bus.eject_complete(SLOT), Err(VpciError::NoFunction(SLOT))),
];

#[test]
fn a_stale_driver_sends_no_request_for_its_successor() {
    for operation in OPERATIONS {
        let (board, device, granted, _) = Board::with_vector();
        let fresh = board.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
        board.kernel.change(|host| host.eject(SLOT).unwrap());
        board.hear();
        while board.bus.next_event().is_some() {}
        let sender = board.replace(10);
        let successor = board.attach(SLOT);
        let (block, message) = board.vector(&successor);
        board.requests();
        let stale = Stale { device, granted, fresh };
        operation(&board, &stale);
        let Stale { device, granted, fresh } = stale;
        board.bus.free(&device, granted);
        board.bus.free(&device, fresh);
        board.bus.detach(device);
        assert_eq!((board.requests(), board.mapped()), (vec![], 1));
        assert_eq!(board.gic.claimed(), [block.first().get()]);
        assert_eq!(sender.signal_msi(NoIdentity, message), Delivery::Pending);
        board.bus.free(&successor, block);
        assert_eq!((board.mapped(), board.gic.claimed()), (0, vec![]));
    }
}

#[test]
fn a_late_message_is_not_returned_to_a_successor() {
    let board = board();
    let device = board.attach(SLOT);
    let block = board.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    let filler = board.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    board.tamper.set(Fate::Kept);
    board.bus.compose(&block, 0).unwrap_err();
    board.tamper.set(Fate::Sent);
    // The answer arrives when the guest's ring has no room for a deletion.
    board.kernel.stall();
    compose_in_vain(&board, &filler, 36);
    assert!(matches!(board.bus.eject_complete(OTHER), Err(VpciError::Silent(_))));
    board.kernel.side.lock().unwrap().channel.let_go();
    assert!(board.bus.poll().is_ok());
    assert_eq!(board.bus.faults().late, 1);
    board.kernel.side.lock().unwrap().replace(SLOT, 10);
    board.kernel.go_on();
    board.rest();
    board.bus.free(&device, block);
    board.bus.free(&device, filler);
    let deleted = |request: &Request| matches!(request, Request::DeleteInterrupt { .. });
    assert!(!board.requests().iter().any(deleted));
}

#[test]
fn an_ejection_of_a_removed_function_cannot_be_completed() {
    let board = Board::new();
    while board.bus.next_event().is_some() {}
    let eject = || {
        board.kernel.change(|host| host.eject(SLOT).unwrap());
        board.hear();
    };
    let events = || from_fn(|| board.bus.next_event()).collect::<Vec<_>>();
    eject();
    assert_eq!(events(), [BusEvent::EjectRequested(SLOT)]);
    board.replace(10);
    // The successor's own ejection counts once it was reported.
    eject();
    assert_eq!(board.bus.eject_complete(SLOT), Err(VpciError::NoFunction(SLOT)));
    let replaced = [BusEvent::Gone(SLOT), BusEvent::Arrived(SLOT), BusEvent::EjectRequested(SLOT)];
    assert_eq!(events(), replaced);
    board.bus.eject_complete(SLOT).unwrap();
    board.hear();
    assert_eq!(board.bus.functions().unwrap().len(), 1);
}

#[test]
fn a_function_replaced_during_a_resume_is_reported_as_new() {
    let (board, device, block, _) = Board::with_vector();
    while board.bus.next_event().is_some() {}
    assert_eq!(board.bus.suspend(), Ok(()));
    let inner = channel_to(&board, Host::reset);
    let (kernel, mut is_replaced) = (board.kernel.clone(), false);
    // The guest has the list and is about to assign the function's resources.
    let before_idle = move || {
        let mut side = kernel.side.lock().unwrap();
        if side.host.window().is_some() && !is_replaced {
            is_replaced = true;
            side.replace(SLOT, 10);
        }
    };
    assert_eq!(board.bus.resume(Box::new(overtaken(inner, before_idle))), Ok(()));
    assert!(board.bus.poll().is_ok());
    let events: Vec<_> = from_fn(|| board.bus.next_event()).collect();
    assert_eq!(events, [BusEvent::Gone(SLOT), BusEvent::Arrived(SLOT)]);
    board.bus.free(&device, block);
    let (again, _) = board.vector(&board.attach(SLOT));
    assert_eq!((again.first().get(), board.mapped()), (64, 1));
}

const THIRD: Slot = Slot::new(2, 0);

#[derive(Clone, Debug)]
enum Step {
    Remove(Slot),
    Offer(Slot),
    /// Replaces a function while the guest waits for its next answer.
    ReplaceDuringRequest(Slot),
    /// Lets the host send what it has for the guest.
    Serve,
    Poll,
    Attach(Slot),
    Allocate(usize, u16),
    Compose(usize, usize),
    Unmask(usize, usize),
    Free(usize, usize),
    Detach(usize),
    Eject(Slot),
    /// Completes an ejection, even if its function was removed in the meantime.
    EjectComplete,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let slots = || prop_oneof![Just(SLOT), Just(OTHER), Just(THIRD)];
    let some = any::<usize>;
    let step = prop_oneof![
        2 => slots().prop_map(Step::Remove),
        3 => slots().prop_map(Step::Offer),
        1 => slots().prop_map(Step::ReplaceDuringRequest),
        2 => Just(Step::Serve),
        3 => Just(Step::Poll),
        4 => slots().prop_map(Step::Attach),
        5 => (some(), 0..3u32).prop_map(|(driver, log)| Step::Allocate(driver, 1 << log)),
        6 => (some(), some()).prop_map(|(driver, block)| Step::Compose(driver, block)),
        1 => (some(), some()).prop_map(|(driver, block)| Step::Unmask(driver, block)),
        3 => (some(), some()).prop_map(|(driver, block)| Step::Free(driver, block)),
        1 => some().prop_map(Step::Detach),
        1 => slots().prop_map(Step::Eject),
        1 => Just(Step::EjectComplete),
    ];
    prop::collection::vec(step, 0..60)
}

struct Driver {
    slot: Slot,
    serial: u32,
    device: Attachment,
    blocks: Vec<HwIrqBlock>,
}

impl Driver {
    fn release(self, bus: &Bus) {
        self.blocks.into_iter().for_each(|block| bus.free(&self.device, block));
        bus.detach(self.device);
    }
}

/// A board with drivers, some of which have not noticed yet that their functions were removed.
struct World {
    board: Board,
    drivers: Vec<Driver>,
    /// Serial number of each slot's function at the host.
    offered: Arc<Mutex<BTreeMap<Slot, u32>>>,
    serial: u32,
    ejected: BTreeSet<Slot>,
    /// Slot, serial number and SPI of each message that a driver has requested.
    requested: BTreeSet<(Slot, u32, u32)>,
}

impl World {
    fn new() -> Self {
        let offered = Arc::new(Mutex::new([SLOT, OTHER].map(|slot| (slot, 9)).into()));
        let (drivers, ejected, requested) = Default::default();
        Self { board: Board::new(), drivers, offered, serial: 9, ejected, requested }
    }

    fn offer(&mut self, slot: Slot) {
        self.serial += 1;
        let mut offer = function(slot);
        offer.description.serial = self.serial;
        if self.board.kernel.side.lock().unwrap().host.offer(offer).is_ok() {
            self.offered.lock().unwrap().insert(slot, self.serial);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Remove(slot) => {
                let _ = self.board.kernel.side.lock().unwrap().host.remove(slot);
            }
            Step::Offer(slot) => self.offer(slot),
            Step::ReplaceDuringRequest(slot) => {
                self.serial += 1;
                let (serial, offered) = (self.serial, self.offered.clone());
                self.board.kernel.meanwhile(move |side| {
                    if side.host.save().functions.iter().any(|of| of.slot == slot.to_wire()) {
                        side.replace(slot, serial);
                        offered.lock().unwrap().insert(slot, serial);
                    }
                });
            }
            Step::Serve => _ = self.board.kernel.side.lock().unwrap().serve().unwrap(),
            Step::Eject(slot) => {
                let _ = self.board.kernel.side.lock().unwrap().host.eject(slot);
            }
            other => self.guest(&other),
        }
    }

    fn guest(&mut self, step: &Step) {
        let bus = &self.board.bus;
        match *step {
            Step::Poll => assert!(bus.poll().is_ok()),
            Step::EjectComplete => {
                let ejected = |event| match event {
                    BusEvent::EjectRequested(slot) => Some(slot),
                    _ => None,
                };
                self.ejected.extend(from_fn(|| bus.next_event()).filter_map(ejected));
                let Some(slot) = self.ejected.pop_first() else { return };
                let of_slot = |driver: &mut Driver| driver.slot == slot;
                for driver in self.drivers.extract_if(.., of_slot) {
                    driver.release(bus);
                }
                let _ = bus.eject_complete(slot);
            }
            Step::Attach(slot) => {
                if let Ok(device) = bus.attach(slot.requester(BUS), 16) {
                    let functions = bus.functions().unwrap();
                    let of = functions.iter().find(|of| of.slot == slot).unwrap();
                    self.drivers.push(Driver { slot, serial: of.serial, device, blocks: vec![] });
                }
            }
            Step::Detach(driver) if !self.drivers.is_empty() => {
                let driver = self.drivers.swap_remove(driver % self.drivers.len());
                driver.release(bus);
            }
            Step::Allocate(driver, _)
            | Step::Compose(driver, _)
            | Step::Unmask(driver, _)
            | Step::Free(driver, _)
                if !self.drivers.is_empty() =>
            {
                let driver = driver % self.drivers.len();
                self.drive(driver, step);
            }
            _ => {}
        }
    }

    fn drive(&mut self, driver: usize, step: &Step) {
        let (bus, driver) = (&self.board.bus, &mut self.drivers[driver]);
        let pick = |at: usize, blocks: &[HwIrqBlock]| at % blocks.len().max(1);
        match *step {
            Step::Allocate(_, count) => {
                let group = request(count, Shape::AlignedGroup);
                driver.blocks.extend(bus.allocate(&driver.device, &group));
            }
            Step::Compose(_, at) => {
                if let Some(block) = driver.blocks.get(pick(at, &driver.blocks)) {
                    let _ = bus.compose(block, 0);
                    self.requested.insert((driver.slot, driver.serial, block.first().get()));
                }
            }
            Step::Unmask(_, at) => {
                if let Some(block) = driver.blocks.get(pick(at, &driver.blocks)) {
                    bus.unmask(block.first());
                }
            }
            Step::Free(_, at) if !driver.blocks.is_empty() => {
                let block = driver.blocks.swap_remove(pick(at, &driver.blocks));
                bus.free(&driver.device, block);
            }
            _ => {}
        }
    }

    /// Asserts that the host has only messages that its present functions' drivers requested, and
    /// only for vectors that are still allocated. Returns the number of messages.
    fn check(&self) -> usize {
        self.board.kernel.signals.settle();
        let saved = self.board.kernel.side.lock().unwrap().host.save();
        let offered = self.offered.lock().unwrap();
        for of in &saved.functions {
            let slot = Slot::from_wire(of.slot).unwrap();
            for mapping in &of.mappings {
                let request = (slot, offered[&slot], mapping.data);
                assert!(self.requested.contains(&request), "no driver requested {request:?}");
                assert!(self.board.gic.spi(mapping.data).claimed, "SPI {} is free", mapping.data);
            }
        }
        saved.functions.iter().map(|of| of.mappings.len()).sum()
    }
}

proptest! {
    #[test]
    fn the_host_has_only_messages_that_drivers_requested(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
        world.board.kernel.meanwhile(|_| {});
        for slot in [SLOT, OTHER, THIRD] {
            world.offer(slot);
        }
        world.board.kernel.side.lock().unwrap().serve().unwrap();
        while world.board.bus.poll().unwrap() == hyperv_vpci::channel::Idle::Busy {}
        // No stale driver keeps a new one from its messages.
        for slot in [SLOT, OTHER, THIRD] {
            let device = world.board.attach(slot);
            let (block, _) = world.board.vector(&device);
            world.board.bus.free(&device, block);
            world.board.bus.detach(device);
        }
        while !world.drivers.is_empty() {
            world.step(Step::Detach(0));
            world.check();
        }
        prop_assert_eq!(world.board.bus.close(), Ok(()));
        prop_assert_eq!((world.check(), world.board.gic.claimed()), (0, vec![]));
    }
}
