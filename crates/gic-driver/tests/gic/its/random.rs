//! Random operations checked against a model. After each step, even a failed one, the tests compare
//! the driver's answers, the ITS's behavior and the allocated memory with the model.

use super::queue::{CPUS, Step, hardware, step};
use super::setup::{Setup, config, lpi, request};
use crate::fake::{Board, Hardware};
use gic_arch::Lpi;
use gic_driver::{Coherence, ItsConfig, ItsError};
use msi_types::{Attachment, Cpu, DeviceId, HwIrqBlock, Initially, Pending};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::{BTreeMap, BTreeSet};

/// Expected state of an event.
#[derive(Debug)]
struct Event {
    device: u32,
    cpu: u32,
    masked: bool,
    pending: bool,
}

struct ModelShare {
    attachment: Attachment,
    device: u32,
    max: u32,
    blocks: Vec<HwIrqBlock>,
}

struct Model {
    setup: Setup,
    free: u32,
    shares: Vec<ModelShare>,
    events: BTreeMap<Lpi, Event>,
    /// LPIs of events that have been unmapped.
    gone: BTreeSet<Lpi>,
    on: [bool; CPUS as usize],
    stuck: bool,
    memory: bool,
}

impl Model {
    fn new(hardware: Hardware, config: &ItsConfig) -> Self {
        let setup = Setup::with_config(hardware, config);
        let mut world = setup.board.world();
        world.patience = 3;
        drop(world);
        Self {
            free: setup.its.lpis().available(),
            setup,
            shares: Vec::new(),
            events: BTreeMap::new(),
            gone: BTreeSet::new(),
            on: [true; CPUS as usize],
            stuck: false,
            memory: true,
        }
    }

    fn board(&self) -> &Board {
        &self.setup.board
    }

    fn pick(&self, index: Index) -> Option<Lpi> {
        (!self.events.is_empty())
            .then(|| *self.events.keys().nth(index.index(self.events.len())).unwrap())
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Attach { device, max } => self.attach(*device, *max),
            Step::Detach(index) => self.detach(*index),
            Step::Release(index) => self.release(*index),
            Step::Map { attachment, count, cpu, initially } => {
                self.map(*attachment, (*count, *cpu), *initially);
            }
            Step::Unmap(index) => self.unmap(*index),
            Step::Move { event, cpu } => self.move_event(*event, *cpu),
            Step::Mask(index) => self.set_mask(*index, true),
            Step::Unmask(index) => self.set_mask(*index, false),
            Step::Pend(index, pending) => self.set_pending(*index, *pending),
            Step::Send(index) => self.send(*index),
            Step::Take(cpu) => self.take(*cpu),
            Step::CpuOff { cpu, heir } => self.cpu_off(*cpu, *heir),
            Step::CpuOn(cpu) => self.cpu_on(*cpu),
            Step::Suspend => self.suspend(),
            Step::Memory(given) => {
                self.memory = *given;
                self.board().world().memory.allowance = if *given { None } else { Some(0) };
            }
            Step::Stuck(stuck) => {
                self.stuck = *stuck;
                self.board().world().set_stuck(*stuck);
            }
        }
    }

    fn attach(&mut self, device: u32, max: u32) {
        let known = self.shares.iter().any(|share| share.device == device);
        let result = self.setup.its.attach(DeviceId::new(device), max);
        assert!(result.is_ok() || known || self.stuck || !self.memory, "{result:?}");
        if let Ok(attachment) = result {
            self.shares.push(ModelShare { attachment, device, max, blocks: Vec::new() });
        }
    }

    fn detach(&mut self, index: Index) {
        let idle: Vec<_> =
            (0..self.shares.len()).filter(|at| self.shares[*at].blocks.is_empty()).collect();
        if !idle.is_empty() {
            let share = self.shares.remove(idle[index.index(idle.len())]);
            self.setup.its.detach(share.attachment);
        }
    }

    fn release(&mut self, index: Index) {
        if self.shares.is_empty() {
            return;
        }
        let ModelShare { attachment, blocks, .. } =
            self.shares.remove(index.index(self.shares.len()));
        for block in &blocks {
            for index in 0..block.count().get() {
                self.events.remove(&lpi(block, index)).unwrap();
                self.gone.insert(lpi(block, index));
            }
        }
        let traffic =
            self.setup.traffic(|| self.setup.its.release(attachment, &mut blocks.into_iter()));
        assert!(self.stuck || traffic.writes <= 1, "{} writes", traffic.writes);
    }

    fn map(&mut self, index: Index, (count, cpu): (u16, u32), initially: Initially) {
        if self.shares.is_empty() {
            return;
        }
        let at = index.index(self.shares.len());
        let share = &mut self.shares[at];
        let used: u32 = share.blocks.iter().map(|block| u32::from(block.count().get())).sum();
        let fits = used + u32::from(count) <= share.max;
        let on = self.on[Cpu::new(cpu).index()];
        let request = request(count, cpu).with_initially(initially);
        match self.setup.its.map_events(&share.attachment, request) {
            Ok(block) => {
                assert!(fits && on && !self.stuck);
                for index in 0..count {
                    let masked = initially == Initially::Masked;
                    let event = Event { device: share.device, cpu, masked, pending: false };
                    let lpi = lpi(&block, index);
                    assert!(self.events.insert(lpi, event).is_none(), "{lpi} was allocated twice");
                    self.gone.remove(&lpi);
                }
                share.blocks.push(block);
            }
            Err(error) => {
                // Blocks that were mapped and unmapped before may have left gaps between the
                // remaining ones.
                let device = self.shares[at].device;
                let empty = self.events.values().all(|event| event.device != device);
                let gaps = matches!(error, ItsError::NoEvents { .. }) && !empty;
                assert!(!fits || !on || self.stuck || gaps, "{error}");
            }
        }
    }

    fn unmap(&mut self, index: Index) {
        let blocks = self.shares.iter().flat_map(|share| &share.blocks).count();
        if blocks == 0 {
            return;
        }
        let mut at = index.index(blocks);
        for share in &mut self.shares {
            if at < share.blocks.len() {
                let block = share.blocks.remove(at);
                for index in 0..block.count().get() {
                    self.events.remove(&lpi(&block, index)).unwrap();
                    self.gone.insert(lpi(&block, index));
                }
                return self.setup.its.unmap_events(&share.attachment, block);
            }
            at -= share.blocks.len();
        }
    }

    fn move_event(&mut self, index: Index, cpu: u32) {
        let Some(lpi) = self.pick(index) else { return };
        let event = self.events.get_mut(&lpi).unwrap();
        match self.setup.its.move_event(lpi, Cpu::new(cpu)) {
            Ok(from) => {
                assert_eq!(from, Cpu::new(event.cpu));
                event.cpu = cpu;
            }
            Err(error) => assert!(self.stuck || !self.on[cpu as usize], "{error}"),
        }
    }

    fn set_mask(&mut self, index: Index, masked: bool) {
        let Some(lpi) = self.pick(index) else { return };
        let its = &self.setup.its;
        let result = if masked { its.mask(lpi) } else { its.unmask(lpi) };
        assert_eq!(result.is_ok(), !self.stuck, "{result:?}");
        // A command that timed out is still executed once the ITS continues.
        self.events.get_mut(&lpi).unwrap().masked = masked;
    }

    fn set_pending(&mut self, index: Index, pending: Pending) {
        let Some(lpi) = self.pick(index) else { return };
        let result = self.setup.its.set_pending(lpi, pending);
        assert_eq!(result.is_ok(), !self.stuck, "{result:?}");
        self.events.get_mut(&lpi).unwrap().pending = pending == Pending::Set;
    }

    fn send(&mut self, index: Index) {
        if self.stuck {
            return;
        }
        let Some(lpi) = self.pick(index) else { return };
        let event = self.events.get_mut(&lpi).unwrap();
        assert_eq!(self.setup.send(lpi), Some((event.cpu as usize, lpi.get())));
        event.pending = true;
    }

    fn take(&mut self, cpu: u32) {
        if self.stuck {
            return;
        }
        let here = |event: &Event| event.cpu == cpu && event.pending && !event.masked;
        let ready = self.events.iter_mut().filter(|(_, event)| here(event));
        let expected: Vec<_> = ready
            .map(|(lpi, event)| {
                event.pending = false;
                lpi.get()
            })
            .collect();
        assert_eq!(self.setup.take(cpu as usize), expected);
    }

    fn cpu_off(&mut self, cpu: u32, heir: u32) {
        if self.stuck {
            return;
        }
        let possible = cpu != heir && self.on[cpu as usize] && self.on[heir as usize];
        let result = self.setup.its.cpu_off(Cpu::new(cpu), Cpu::new(heir));
        assert_eq!(result.is_ok(), possible, "{result:?}");
        if possible {
            self.on[cpu as usize] = false;
            for event in self.events.values_mut().filter(|event| event.cpu == cpu) {
                event.cpu = heir;
            }
            let leaving = &mut self.board().world().redistributors[cpu as usize];
            assert!(leaving.pending.is_empty());
            leaving.forget();
        }
    }

    fn cpu_on(&mut self, cpu: u32) {
        if !self.stuck {
            self.setup.cpu_on(cpu).unwrap();
            self.on[cpu as usize] = true;
        }
    }

    fn suspend(&mut self) {
        if !self.stuck {
            self.setup.its.suspend().unwrap();
            self.board().world().its[0].lose_power();
            self.setup.its.resume().unwrap();
        }
    }

    /// Ends the simulated failures of the ITS and the allocator, and completes deferred operations.
    fn heal(&mut self) {
        self.apply(&Step::Stuck(false));
        self.apply(&Step::Memory(true));
        let probe = self.setup.its.attach(DeviceId::new(0x4444), 1).unwrap();
        self.setup.its.detach(probe);
        // Post commands, so that the ITS also executes all earlier ones.
        for cpu in 0..CPUS {
            if self.on[cpu as usize] {
                self.setup.cpu_on(cpu).unwrap();
            }
        }
    }

    fn check(&mut self) {
        let setup = &self.setup;
        for (lpi, event) in &self.events {
            let (device, _, cpu) = setup.its.event_of(*lpi).unwrap();
            assert_eq!((device.get(), cpu.get()), (event.device, event.cpu));
        }
        if self.stuck {
            return;
        }
        for lpi in &self.gone {
            assert_eq!(setup.its.event_of(*lpi), None);
            assert_eq!(
                setup.board.world().traces_of(lpi.get()),
                0,
                "{lpi} is pending after it was unmapped"
            );
        }
    }

    /// Asserts that the driver holds exactly the same resources as the model.
    fn check_resources(&mut self) {
        let taken = u32::try_from(self.events.len()).unwrap();
        assert_eq!(self.setup.its.lpis().available(), self.free - taken);
        let devices: BTreeSet<_> = self.shares.iter().map(|share| share.device).collect();
        let mapped: BTreeSet<_> = self.board().world().its[0].mapped.keys().copied().collect();
        assert!(mapped.is_subset(&devices), "{mapped:?} mapped, {devices:?} attached");
        for cpu in 0..CPUS {
            self.take(cpu);
        }
    }
}

fn run(hardware: Hardware, config: &ItsConfig, steps: &[Step]) {
    let mut model = Model::new(hardware, config);
    for step in steps {
        let was_stuck = model.stuck;
        model.apply(step);
        if was_stuck && !model.stuck {
            model.heal();
            model.check_resources();
        }
        model.check();
    }
    model.heal();
    model.check();
    model.check_resources();
    let before = model.board().world().memory.live_regions();
    let devices: BTreeSet<_> = model.shares.iter().map(|share| share.device).collect();
    for share in std::mem::take(&mut model.shares) {
        for block in share.blocks {
            model.setup.its.unmap_events(&share.attachment, block);
        }
        model.setup.its.detach(share.attachment);
    }
    model.events.clear();
    model.check_resources();
    assert_eq!(model.board().world().memory.live_regions(), before - devices.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn driver_agrees_with_the_model(
        hardware in hardware(),
        coherent: bool,
        large_queue: bool,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let coherence = if coherent { Coherence::Coherent } else { Coherence::NonCoherent };
        // With the small queue, the ring fills up if the ITS hangs for a while.
        let queue_bytes = if large_queue { 0x1_0000 } else { 0x1000 };
        run(hardware, &config(0).with_coherence(coherence).with_queue_bytes(queue_bytes), &steps);
    }
}
