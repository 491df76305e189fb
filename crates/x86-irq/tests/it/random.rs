//! Random sequences of device and CPU events: no interrupt is lost, none reaches another
//! interrupt's handler, and all resources are freed.

use crate::board::{Board, Device, Sender};
use msi_types::{Cpu, MoveOutcome, MsiError, MsiParent, Pending, Rewrite};
use proptest::prelude::*;
use std::collections::BTreeSet;
use x86_irq::Arrival;

const CPUS: u16 = 3;

#[derive(Clone, Debug)]
enum Op {
    Attach(Rewrite, u32),
    Free(prop::sample::Index),
    Fire(prop::sample::Index),
    /// The target CPU; whether the device sends before and after its message is rewritten; and
    /// whether the move fails.
    Move(prop::sample::Index, u32, bool, bool, MoveOutcome),
    Mask(prop::sample::Index),
    Unmask(prop::sample::Index),
    AttachManaged(u32, u32),
    Retrigger(prop::sample::Index),
    Run(u32),
    CleanUp(u32),
    Offline(u32),
    Online(u32),
}

fn ops() -> impl Strategy<Value = Op> {
    let device = any::<prop::sample::Index>;
    let cpu = || 0..u32::from(CPUS);
    let rewrite = prop_oneof![
        2 => Just(Rewrite::Masked),
        1 => Just(Rewrite::Atomic64),
        1 => Just(Rewrite::AddressOnly),
        2 => Just(Rewrite::LowWordOnly),
        1 => Just(Rewrite::Never)
    ];
    let outcome = prop_oneof![3 => Just(MoveOutcome::Written), 1 => Just(MoveOutcome::RolledBack)];
    prop_oneof![
        4 => (rewrite, cpu()).prop_map(|(r, c)| Op::Attach(r, c)),
        2 => (cpu(), cpu()).prop_map(|(at, other)| Op::AttachManaged(at, other)),
        2 => device().prop_map(Op::Free),
        8 => device().prop_map(Op::Fire),
        8 => (device(), cpu(), any::<bool>(), any::<bool>(), outcome)
            .prop_map(|(d, c, before, after, o)| Op::Move(d, c, before, after, o)),
        1 => device().prop_map(Op::Mask),
        2 => device().prop_map(Op::Unmask),
        1 => device().prop_map(Op::Retrigger),
        6 => cpu().prop_map(Op::Run),
        4 => cpu().prop_map(Op::CleanUp),
        1 => cpu().prop_map(Op::Offline),
        2 => cpu().prop_map(Op::Online),
    ]
}

struct World {
    board: Board,
    devices: Vec<Device>,
    freed: BTreeSet<Sender>,
    /// Devices whose last message has not been dispatched yet.
    undelivered: BTreeSet<Sender>,
    masked: BTreeSet<Sender>,
    next: Sender,
}

impl World {
    fn new() -> Self {
        let (devices, freed, undelivered, masked) = Default::default();
        Self { board: Board::new(CPUS), devices, freed, undelivered, masked, next: 0 }
    }

    fn pick(&self, index: prop::sample::Index) -> Option<usize> {
        (!self.devices.is_empty()).then(|| index.index(self.devices.len()))
    }

    fn fire(&mut self, device: usize) {
        let device = &self.devices[device];
        if self.board.write(device.message, device.serial) {
            self.undelivered.insert(device.serial);
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Attach(rewrite, cpu) => {
                let domain = &*self.board.domain;
                self.take_in(Device::new(domain, self.next, rewrite, Cpu::new(cpu)));
            }
            Op::AttachManaged(at, other) => {
                let (domain, among) = (&*self.board.domain, [at, other].map(Cpu::new));
                let at = Cpu::new(at);
                self.take_in(Device::managed(domain, self.next, Rewrite::Masked, at, &among));
            }
            Op::Free(index) => {
                let Some(index) = self.pick(index) else { return };
                let device = self.devices.swap_remove(index);
                self.freed.insert(device.serial);
                self.undelivered.remove(&device.serial);
                self.masked.remove(&device.serial);
                device.free(&*self.board.domain);
            }
            Op::Fire(index) => self.pick(index).into_iter().for_each(|index| self.fire(index)),
            Op::Move(index, to, before, after, outcome) => {
                let Some(index) = self.pick(index) else { return };
                self.relocate(index, Cpu::new(to), [before, after], outcome);
            }
            Op::Mask(index) => {
                let Some(index) = self.pick(index) else { return };
                self.board.domain.mask(self.devices[index].vector());
                self.masked.insert(self.devices[index].serial);
            }
            Op::Unmask(index) => self.pick(index).into_iter().for_each(|index| self.unmask(index)),
            Op::Retrigger(index) => {
                let Some(index) = self.pick(index) else { return };
                self.board.domain.set_pending(self.devices[index].vector(), Pending::Set);
                self.undelivered.insert(self.devices[index].serial);
            }
            Op::Run(cpu) => self.run(Cpu::new(cpu)),
            Op::CleanUp(cpu) => self.board.clean_up(Cpu::new(cpu)),
            Op::Offline(cpu) => self.offline(Cpu::new(cpu)),
            Op::Online(cpu) => {
                if !self.board.is_online(Cpu::new(cpu)) {
                    self.board.online(Cpu::new(cpu));
                }
            }
        }
    }

    fn take_in(&mut self, made: Result<Device, MsiError>) {
        match made {
            Ok(device) => {
                self.next += 1;
                self.devices.push(device);
            }
            Err(MsiError::NotReachable(..) | MsiError::NoVectors { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn relocate(&mut self, index: usize, to: Cpu, fires: [bool; 2], outcome: MoveOutcome) {
        let domain = self.board.domain.clone();
        let moved = match domain.begin_move(&self.devices[index].block, 0, to) {
            Ok(moved) => moved,
            Err(MsiError::NotReachable(..) | MsiError::WouldTear) => {
                let among = self.devices[index].among.as_ref();
                let follows = among.is_some_and(|among| among.contains(&to));
                assert!(
                    !follows || !self.board.is_online(to),
                    "a managed interrupt has a vector reserved there"
                );
                return;
            }
            Err(error) => panic!("{error}"),
        };
        if fires[0] {
            self.fire(index);
        }
        let old = self.devices[index].message;
        if let Some(message) = moved.message {
            self.devices[index].store(message);
            if fires[1] {
                self.fire(index);
            }
            if outcome == MoveOutcome::RolledBack {
                self.devices[index].store(old);
            }
        }
        domain.end_move(moved, outcome).unwrap();
        let place = domain.cpu_vector(self.devices[index].vector()).unwrap();
        assert_eq!(domain.compose(&self.devices[index].block, 0), Ok(self.devices[index].message));
        assert!(place.cpu == to || outcome == MoveOutcome::RolledBack);
    }

    fn unmask(&mut self, index: usize) {
        self.board.domain.unmask(self.devices[index].vector());
        self.masked.remove(&self.devices[index].serial);
    }

    fn run(&mut self, cpu: Cpu) {
        for taken in self.board.run(cpu) {
            let senders = taken.from.iter().filter(|sender| **sender != Sender::MAX);
            let alive: BTreeSet<_> =
                senders.copied().filter(|sender| !self.freed.contains(sender)).collect();
            match taken.arrival {
                Arrival::Deliver(vector) => {
                    let owner =
                        self.devices.iter().find(|device| device.vector() == vector).unwrap();
                    assert!(!self.masked.contains(&owner.serial), "{taken:?} is masked");
                    assert!(
                        taken.from.iter().all(|s| *s == owner.serial || *s == Sender::MAX),
                        "{taken:?}"
                    );
                    self.undelivered.remove(&owner.serial);
                }
                Arrival::Held => {
                    assert!(alive.iter().all(|sender| self.masked.contains(sender)), "{taken:?}");
                }
                Arrival::Released => assert!(alive.is_empty(), "{taken:?}"),
                Arrival::Unknown => panic!("{taken:?}"),
            }
        }
    }

    /// Takes a CPU offline as an interrupt core does: first moves all interrupts that can be moved,
    /// then reads the APIC.
    fn offline(&mut self, cpu: Cpu) {
        let heir = self.board.cpus().find(|other| *other != cpu && self.board.is_online(*other));
        let Some(heir) = heir.filter(|_| self.board.is_online(cpu)) else { return };
        for index in 0..self.devices.len() {
            if self.place_of(index) == cpu {
                self.relocate(index, heir, [false; 2], MoveOutcome::Written);
            }
        }
        let stranded = (0..self.devices.len()).filter(|index| self.place_of(*index) == cpu).count();
        assert_eq!(self.board.offline(cpu).stranded as usize, stranded);
    }

    fn place_of(&self, index: usize) -> Cpu {
        self.board.domain.cpu_vector(self.devices[index].vector()).unwrap().cpu
    }

    fn settle(&mut self) {
        for cpu in self.board.cpus().filter(|cpu| !self.board.is_online(*cpu)).collect::<Vec<_>>() {
            self.board.online(cpu);
        }
        (0..self.devices.len()).for_each(|index| self.unmask(index));
        for _ in 0..3 {
            self.board.cpus().for_each(|cpu| self.run(cpu));
            self.board.cpus().for_each(|cpu| self.board.clean_up(cpu));
        }
    }

    fn end(mut self) {
        self.settle();
        assert_eq!(self.undelivered, BTreeSet::new(), "lost");
        for device in core::mem::take(&mut self.devices) {
            self.freed.insert(device.serial);
            device.free(&*self.board.domain);
        }
        self.settle();
        assert_eq!(self.board.domain.hwirqs_in_use(), 0);
        for cpu in self.board.cpus() {
            assert_eq!(self.board.domain.available_on(cpu), 12);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn random_operations_lose_or_misdeliver_nothing(ops in prop::collection::vec(ops(), 0..150)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        world.end();
    }
}
