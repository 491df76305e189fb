//! Model-checked concurrency tests: moves, masking, CPU hotplug and unmapping while devices send
//! messages. The scenarios run the real driver against the ITS interpreter. The scheduler may
//! switch threads at every hardware access, and the ITS executes one command per read of `CREADR`.
//! The same scenarios also run on real threads.

use super::setup::{Setup, config, lpi, request};
use crate::fake::Board;
use crate::fake::Hardware;
use crate::interleaving::{self, CHECKED, REAL, World, threads};
use gic_arch::Lpi;
use gic_driver::ItsError;
use msi_types::{Attachment, Cpu, HwIrqBlock, Initially};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// Number of schedules of each kind, with random switches and with few switches.
const SCHEDULES: usize = 250;
/// Maximum number of thread switches that a schedule with few switches contains.
const DEPTH: usize = 4;
/// Number of runs of each scenario on real threads.
const ROUNDS: usize = 40;
/// Number of times that a CPU polls for interrupts while the other threads run.
const LOOKS: usize = 6;
/// The CPU that goes offline, the CPU that takes over its vectors, and the vectors' initial target.
const LEAVING: u32 = 1;
const HEIR: u32 = 2;
const START: u32 = 0;

/// Number of messages that an event's device has sent, and number of messages that a CPU has seen.
#[derive(Default)]
struct Vector {
    lpi: Mutex<Option<Lpi>>,
    event: (u32, u32),
    sent: AtomicU64,
    seen: AtomicU64,
    /// `true` between the return of `mask` and the call of `unmask`.
    masked: AtomicBool,
}

/// Mechanism by which masking invalidates the redistributors' cached configurations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Masks {
    /// Masking through the INV command.
    Command,
    /// Masking through `GICR_INVLPIR`.
    Register,
}

/// A four-CPU machine, and devices 1 and 2 with one vector each.
struct Scenario {
    setup: Setup,
    attachments: [Attachment; 2],
    blocks: Mutex<[Option<HwIrqBlock>; 2]>,
    vectors: [Vector; 2],
    /// `true` while [`LEAVING`] is off, i.e. has no power and takes no interrupts.
    is_off: AtomicBool,
}

impl Scenario {
    fn new(masks: Masks, at: [u32; 2]) -> Arc<Self> {
        Self::with_pace(Some(1), masks, at)
    }

    /// Creates a scenario whose ITS executes `pace` commands per read of `CREADR`, or all commands
    /// as soon as they are posted.
    fn with_pace(pace: Option<usize>, masks: Masks, at: [u32; 2]) -> Arc<Self> {
        let hardware = Hardware { pace, ..Hardware::default() };
        let board = Board::with_its(vec![hardware], 4);
        board.world().distributor.typer.set_num_lpis(3);
        for redistributor in &mut board.world().redistributors {
            redistributor.has_invlpir = masks == Masks::Register;
        }
        let setup = Setup::on(board, &config(0));
        (0..4).for_each(|cpu| setup.bring_up(cpu));
        // Make the time limit long, so that waits do not time out just because other threads are
        // slow.
        setup.board.world().patience = 10_000_000;
        let attachments = [1, 2].map(|device| setup.attach(device, 2));
        let block = |index: usize| setup.map(&attachments[index], 1, at[index]);
        let blocks = [block(0), block(1)];
        let vector = |index: usize| {
            let lpi = lpi(&blocks[index], 0);
            let (device, event, _) = setup.its.event_of(lpi).unwrap();
            Vector {
                lpi: Mutex::new(Some(lpi)),
                event: (device.get(), event.get()),
                ..Vector::default()
            }
        };
        let vectors = [vector(0), vector(1)];
        let blocks = Mutex::new(blocks.map(Some));
        Arc::new(Self { setup, attachments, blocks, vectors, is_off: AtomicBool::new(false) })
    }

    fn lpi(&self, vector: usize) -> Lpi {
        self.vectors[vector].lpi.lock().unwrap().unwrap()
    }

    /// Makes a device send a message and asserts that it reaches a powered CPU.
    fn fire(&self, vector: usize) {
        interleaving::access();
        let Vector { event: (device, event), sent, .. } = &self.vectors[vector];
        let mut world = self.setup.board.world();
        sent.fetch_add(1, SeqCst);
        let (cpu, _) = world.message(0, *device, *event).expect("the message has no target");
        assert!(
            cpu != LEAVING as usize || !self.is_off.load(SeqCst),
            "the message was delivered to a CPU that is off"
        );
    }

    /// Acknowledges and checks the LPIs that a CPU's redistributor signals.
    fn take(&self, cpu: u32) -> bool {
        interleaving::access();
        let mut world = self.setup.board.world();
        if cpu == LEAVING && self.is_off.load(SeqCst) {
            return false;
        }
        let taken = world.redistributors[cpu as usize].acknowledge();
        for intid in &taken {
            let vector = self
                .vectors
                .iter()
                .find(|vector| vector.lpi.lock().unwrap().is_some_and(|lpi| lpi.get() == *intid));
            let vector = vector.unwrap_or_else(|| panic!("unmapped LPI {intid} was signaled"));
            assert!(!vector.masked.load(SeqCst), "a masked LPI was signaled to CPU {cpu}");
            vector.seen.fetch_max(vector.sent.load(SeqCst), SeqCst);
        }
        !taken.is_empty()
    }

    fn look(&self, cpu: u32, between: fn()) {
        for _ in 0..LOOKS {
            self.take(cpu);
            between();
        }
    }

    /// Moves a vector. Returns `false` if the CPU was off or going offline.
    fn move_to(&self, vector: usize, cpu: u32) -> bool {
        match self.setup.its.move_event(self.lpi(vector), Cpu::new(cpu)) {
            Ok(_) => true,
            Err(ItsError::NotReachable(..)) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn cpu_off(&self) {
        self.setup.its.cpu_off(Cpu::new(LEAVING), Cpu::new(HEIR)).unwrap();
        let mut world = self.setup.board.world();
        let leaving = &mut world.redistributors[LEAVING as usize];
        assert!(leaving.pending.is_empty(), "LPIs are still pending: {:?}", leaving.pending);
        leaving.forget();
        leaving.power.asleep = true;
        self.is_off.store(true, SeqCst);
    }

    fn cpu_on(&self) {
        self.setup.board.world().redistributors[LEAVING as usize].power.asleep = false;
        self.is_off.store(false, SeqCst);
        self.setup.cpu_on(LEAVING).unwrap();
    }

    fn mask(&self, vector: usize, between: fn()) {
        let lpi = self.lpi(vector);
        self.setup.its.mask(lpi).unwrap();
        self.vectors[vector].masked.store(true, SeqCst);
        (0..LOOKS).for_each(|_| between());
        self.vectors[vector].masked.store(false, SeqCst);
        self.setup.its.unmask(lpi).unwrap();
    }

    /// Unmaps a vector, and asserts that its LPI is no longer pending.
    fn unmap(&self, vector: usize) {
        let block = self.blocks.lock().unwrap()[vector].take().unwrap();
        self.setup.its.unmap_events(&self.attachments[vector], block);
        let old = self.vectors[vector].lpi.lock().unwrap().take().unwrap();
        let world = self.setup.board.world();
        assert_eq!(world.traces_of(old.get()), 0, "{old} is pending after it was unmapped");
    }

    /// Maps a new vector for a device without one. The new vector's LPI may have belonged to
    /// another vector before.
    fn map(&self, vector: usize, cpu: u32) {
        let wanted = request(1, cpu).with_initially(Initially::Masked);
        let block = self.setup.its.map_events(&self.attachments[vector], wanted).unwrap();
        *self.vectors[vector].lpi.lock().unwrap() = Some(lpi(&block, 0));
        self.blocks.lock().unwrap()[vector] = Some(block);
        self.setup.its.unmask(self.lpi(vector)).unwrap();
    }

    fn finish(&self) {
        while (0..4).any(|cpu| self.take(cpu)) {}
        for vector in &self.vectors {
            assert_eq!(vector.seen.load(SeqCst), vector.sent.load(SeqCst), "a message was lost");
        }
        let (faults, last) = self.setup.its.faults();
        assert_eq!(faults, 0, "{last:?}");
        let world = self.setup.board.world();
        assert_eq!(world.its[0].refused, []);
        if self.is_off.load(SeqCst) {
            let left: Vec<_> = world.redistributors[LEAVING as usize].pending.iter().collect();
            assert!(left.is_empty(), "{left:?} are pending at a CPU that is off");
        }
    }
}

/// Takes the CPU offline while a vector moves to it and another one targets it.
fn a_vector_moves_to_a_cpu_that_leaves(world: World, masks: Masks) {
    let machine = Scenario::new(masks, [START, LEAVING]);
    threads! { world, machine:
        for _ in 0..2 { machine.fire(0); (world.between)() },
        for _ in 0..2 { machine.fire(1); (world.between)() },
        _ = machine.move_to(0, LEAVING),
        machine.cpu_off(),
        machine.look(START, world.between),
        machine.look(LEAVING, world.between),
        machine.look(HEIR, world.between),
    }
    machine.fire(0);
    machine.finish();
}

/// Takes the CPU offline and online again, while vectors move to it.
fn a_cpu_comes_back_while_vectors_move(world: World, masks: Masks) {
    let machine = Scenario::new(masks, [START, LEAVING]);
    threads! { world, machine:
        for _ in 0..2 { machine.fire(0); machine.fire(1); (world.between)() },
        {
            machine.cpu_off();
            machine.cpu_on();
            assert!(machine.move_to(1, LEAVING));
        },
        _ = machine.move_to(0, LEAVING),
        machine.look(START, world.between),
        machine.look(LEAVING, world.between),
        machine.look(HEIR, world.between),
    }
    machine.finish();
}

/// Masks and unmasks a vector while it moves.
fn a_vector_is_masked_while_it_moves(world: World, masks: Masks, path: &'static [u32]) {
    masked_while_it_moves(world, &Scenario::new(masks, [START, LEAVING]), path);
}

fn masked_while_it_moves(world: World, machine: &Arc<Scenario>, path: &'static [u32]) {
    threads! { world, machine:
        for _ in 0..3 { machine.fire(0); (world.between)() },
        for cpu in path { assert!(machine.move_to(0, *cpu)); },
        machine.mask(0, world.between),
        machine.look(START, world.between),
        machine.look(HEIR, world.between),
        machine.look(3, world.between),
    }
    machine.finish();
}

/// Masks vectors while their CPU goes offline.
fn vectors_are_masked_while_their_cpu_leaves(world: World, masks: Masks, pace: Option<usize>) {
    let machine = Scenario::with_pace(pace, masks, [LEAVING, LEAVING]);
    threads! { world, machine:
        for _ in 0..2 { machine.fire(0); machine.fire(1); (world.between)() },
        machine.cpu_off(),
        machine.mask(0, world.between),
        machine.mask(1, world.between),
        machine.look(LEAVING, world.between),
        machine.look(HEIR, world.between),
    }
    machine.finish();
}

/// Unmaps a vector and reuses its LPI, while a CPU goes offline and another vector moves.
fn a_vector_ends_while_others_move(world: World, masks: Masks) {
    let machine = Scenario::new(masks, [LEAVING, START]);
    machine.vectors[0].sent.store(0, SeqCst);
    threads! { world, machine:
        {
            machine.unmap(0);
            machine.map(0, HEIR);
            machine.fire(0);
        },
        for _ in 0..2 { machine.fire(1); (world.between)() },
        { _ = machine.move_to(1, LEAVING); assert!(machine.move_to(1, 3)); },
        machine.cpu_off(),
        machine.mask(1, world.between),
        machine.look(HEIR, world.between),
        machine.look(3, world.between),
    }
    machine.finish();
}

/// Masks a vector while its owner frees it.
fn a_vector_is_masked_while_it_ends(world: World, masks: Masks) {
    let machine = Scenario::new(masks, [START, START]);
    let lpi = machine.lpi(0);
    threads! { world, machine:
        machine.unmap(0),
        for result in [machine.setup.its.mask(lpi), machine.setup.its.unmask(lpi)] {
            assert!(matches!(result, Ok(()) | Err(ItsError::NotMapped(_))), "{result:?}");
        },
        for _ in 0..2 { machine.fire(1); (world.between)() },
        assert!(machine.move_to(1, HEIR)),
        machine.look(START, world.between),
        machine.look(HEIR, world.between),
    }
    machine.finish();
}

fn check(scenario: fn(Masks)) {
    for masks in [Masks::Command, Masks::Register] {
        interleaving::check(SCHEDULES, DEPTH, move || scenario(masks));
    }
}

#[test]
fn a_move_to_a_cpu_that_goes_off_loses_no_message() {
    check(|masks| a_vector_moves_to_a_cpu_that_leaves(CHECKED, masks));
}

#[test]
fn a_cpu_that_comes_back_loses_nothing() {
    check(|masks| a_cpu_comes_back_while_vectors_move(CHECKED, masks));
}

#[test]
fn a_vector_stays_masked_during_a_move() {
    check(|masks| a_vector_is_masked_while_it_moves(CHECKED, masks, &[HEIR, 3]));
}

#[test]
fn vectors_stay_masked_while_their_cpu_goes_off() {
    check(|masks| vectors_are_masked_while_their_cpu_leaves(CHECKED, masks, Some(1)));
    check(|masks| vectors_are_masked_while_their_cpu_leaves(CHECKED, masks, None));
}

#[test]
fn freeing_a_vector_loses_no_message_of_others() {
    check(|masks| a_vector_ends_while_others_move(CHECKED, masks));
}

#[test]
fn a_mask_racing_free_is_harmless() {
    check(|masks| a_vector_is_masked_while_it_ends(CHECKED, masks));
}

#[test]
fn a_mask_without_invalidation_delivers_masked_messages() {
    for masks in [Masks::Command, Masks::Register] {
        assert!(interleaving::is_caught(|| {
            interleaving::check(SCHEDULES, DEPTH, move || {
                let machine = Scenario::new(masks, [START, START]);
                machine.setup.board.world().redistributors[0].ignores_invalidation = true;
                masked_while_it_moves(CHECKED, &machine, &[]);
            });
        }));
    }
}

#[test]
fn moves_masks_and_cpu_off_lose_no_message_on_real_threads() {
    for masks in [Masks::Command, Masks::Register].repeat(ROUNDS) {
        a_vector_moves_to_a_cpu_that_leaves(REAL, masks);
        a_cpu_comes_back_while_vectors_move(REAL, masks);
        a_vector_is_masked_while_it_moves(REAL, masks, &[HEIR, 3]);
        vectors_are_masked_while_their_cpu_leaves(REAL, masks, Some(1));
        a_vector_ends_while_others_move(REAL, masks);
        a_vector_is_masked_while_it_ends(REAL, masks);
    }
}
