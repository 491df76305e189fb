//! Stress test with senders, commands and vCPUs on separate threads. Senders number their messages
//! in memory, and every mapping change is announced, so that a vCPU can distinguish an interrupt
//! that arrives too late from an interrupt that arrived before the change.

use super::rig::*;
use super::std::thread;
use super::std::time::{Duration, Instant};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use gic_arch::Priority;

const VCPUS: u16 = 3;
const FIRST_LPI: u32 = 8192;
/// Number of events on device 1. These events move and are invalidated, but stay mapped.
const STEADY: u32 = 8;
/// Number of events on each of devices 2 and 3. These events are discarded, or mapped and unmapped
/// together with their device.
const FLEETING: u32 = 8;
const NOWHERE: u32 = u32::MAX;
const MESSAGES: u64 = 40_000;
const COMMANDS: u32 = 6_000;

struct Field {
    rig: Rig,
    /// Number of the last message sent for each LPI.
    sent: Vec<AtomicU64>,
    seen: Vec<AtomicU64>,
    /// Target vCPU of each LPI.
    place: Vec<AtomicU32>,
    /// Change counter, which is odd while a mapping is changing.
    changes: AtomicU64,
    stop: AtomicBool,
    misplaced: AtomicU32,
}

impl Field {
    fn new() -> Self {
        let lpis = (STEADY + FLEETING) as usize;
        Self {
            rig: Rig::running(VCPUS),
            sent: (0..lpis).map(|_| AtomicU64::new(0)).collect(),
            seen: (0..lpis).map(|_| AtomicU64::new(0)).collect(),
            place: (0..lpis).map(|_| AtomicU32::new(NOWHERE)).collect(),
            changes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            misplaced: AtomicU32::new(0),
        }
    }

    /// Changes an LPI's target with commands. The last command must be a SYNC.
    fn change(
        &self,
        index: u32,
        place: u32,
        commands: impl IntoIterator<Item = gic_arch::its::Command>,
    ) {
        self.changes.fetch_add(1, SeqCst);
        self.rig.run(commands);
        self.place[index as usize].store(place, SeqCst);
        self.changes.fetch_add(1, SeqCst);
    }

    fn send(&self, number: u64, seed: u64) {
        let index = (number.wrapping_mul(seed) >> 7) % u64::from(STEADY + FLEETING);
        let index = u32::try_from(index).unwrap();
        if index < STEADY {
            self.sent[index as usize].fetch_add(1, SeqCst);
            self.rig.send(1, index);
        } else {
            self.rig.send(2 + index % 2, index - STEADY);
        }
    }

    fn handle(&self, vcpu: u16, changes: u64, lpi: u32) {
        let index = (lpi - FIRST_LPI) as usize;
        let number = self.sent[index].load(SeqCst);
        self.seen[index].fetch_max(number, SeqCst);
        let place = self.place[index].load(SeqCst);
        let steady = changes.is_multiple_of(2) && self.changes.load(SeqCst) == changes;
        if steady && place != u32::from(vcpu) {
            self.misplaced.fetch_add(1, SeqCst);
        }
    }

    /// Runs a vCPU that takes interrupts, and sleeps when none is pending.
    fn attend(&self, vcpu: u16) {
        let mut queue = self.rig.vcpu(vcpu);
        while !self.stop.load(SeqCst) {
            let changes = self.changes.load(SeqCst);
            if let Some(lpi) = take(&mut queue) {
                self.handle(vcpu, changes, lpi);
                continue;
            }
            let kicks = self.rig.kicks(vcpu);
            self.rig.wakeup.words()[usize::from(vcpu)].leave();
            if queue.highest(Priority::IDLE).is_none() && !self.stop.load(SeqCst) {
                self.rig.wait_for_kick(vcpu, kicks);
            }
            self.rig.wakeup.words()[usize::from(vcpu)].returned();
        }
    }

    fn command(&self, round: u32) {
        let vcpu = u16::try_from(round / 3).unwrap() % VCPUS;
        let steady = round % STEADY;
        let fleeting = STEADY + round % FLEETING;
        let (device, event, lpi) = (2 + fleeting % 2, fleeting - STEADY, FIRST_LPI + fleeting);
        match round % 5 {
            0 | 1 => self.change(steady, vcpu.into(), [movi(1, steady, vcpu), sync(vcpu)]),
            2 => {
                let priority = [0x40, 0x60, 0x80, 0xa0][(round % 4) as usize];
                self.rig.configure(FIRST_LPI + steady, true, priority);
                self.rig.run([inv(1, steady)]);
            }
            3 => {
                let mapped = self.place[fleeting as usize].load(SeqCst) != NOWHERE;
                let discard = mapped.then(|| discard(device, event));
                self.change(fleeting, NOWHERE, discard.into_iter().chain([sync(0)]));
                self.change(fleeting, vcpu.into(), [mapti(device, event, lpi, vcpu), sync(vcpu)]);
            }
            _ => {
                let others = (STEADY..STEADY + FLEETING).filter(|other| other % 2 == fleeting % 2);
                self.changes.fetch_add(1, SeqCst);
                self.rig.run([unmapd(device), mapd(device, 3), sync(0)]);
                others.for_each(|other| self.place[other as usize].store(NOWHERE, SeqCst));
                self.changes.fetch_add(1, SeqCst);
            }
        }
    }

    fn is_drained(&self) -> bool {
        (0..STEADY as usize).all(|lpi| self.seen[lpi].load(SeqCst) == self.sent[lpi].load(SeqCst))
    }
}

#[test]
fn concurrent_remapping_loses_and_misroutes_no_lpi() {
    let field = Field::new();
    field.rig.run([mapd(1, 3), mapd(2, 3), mapd(3, 3)]);
    for event in 0..STEADY {
        field.change(event, 0, [mapti(1, event, FIRST_LPI + event, 0), sync(0)]);
    }

    let drained = thread::scope(|scope| {
        for vcpu in 0..VCPUS {
            let field = &field;
            scope.spawn(move || field.attend(vcpu));
        }
        let senders = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9].map(|seed| {
            let field = &field;
            scope.spawn(move || (0..MESSAGES).for_each(|number| field.send(number, seed)))
        });
        (0..COMMANDS).for_each(|round| field.command(round));
        for sender in senders {
            sender.join().unwrap();
        }
        let patience = Instant::now();
        while !field.is_drained() && patience.elapsed() < Duration::from_secs(30) {
            thread::yield_now();
        }
        let drained = field.is_drained();
        field.stop.store(true, SeqCst);
        (0..VCPUS).for_each(|vcpu| msi_types::Kick::kick(&*field.rig.kicks, cpu(vcpu)));
        drained
    });

    assert!(drained, "the last message of each event must be seen");
    assert_eq!(field.misplaced.load(SeqCst), 0, "interrupts arrived at a former vCPU");
    assert_eq!(field.rig.its.command_faults().count, 0);
}
