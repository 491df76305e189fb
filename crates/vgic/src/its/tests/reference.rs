//! A naive ITS, by lists and searches, against the real one: after each of a random sequence of commands, messages,
//! register writes and acknowledgements, both have the same LPIs pending at the same redistributors, and have refused
//! the same commands for the same reason.

use super::rig::*;
use crate::its::CommandFault;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use gic_arch::its::CommandErrorReason::{self, *};
use gic_arch::its::{Command, MapAction, RdBase};
use gic_arch::{Lpi, Priority};
use proptest::prelude::*;

const VCPUS: u16 = 3;
/// Entries of the device and of the collection table.
const TABLE: u32 = 8192;
const LPIS: Range<u32> = 8192..8198;

/// What the guest or a device does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Command(Command),
    Send {
        device: u32,
        event: u32,
    },
    Configure {
        lpi: u32,
        enable: bool,
        priority: u8,
    },
    Acknowledge {
        vcpu: u16,
        than: u8,
    },
    EnableLpis(u16),
    DisableLpis(u16),
    InvalidateAll(u16),
    Invalidate {
        vcpu: u16,
        lpi: u32,
    },
    SetLpi {
        vcpu: u16,
        lpi: u32,
    },
    ClearLpi {
        vcpu: u16,
        lpi: u32,
    },
    EnableIts(bool),
    /// Everything is saved, and goes on where it was restored.
    Migrate,
}

/// A configuration byte as a redistributor has cached it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cached {
    enable: bool,
    priority: u8,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    lpi: u32,
    collection: u16,
    /// Where its messages went last.
    at: u16,
    pending: bool,
    deliverable: bool,
    cached: Cached,
}

#[derive(Clone, Default)]
struct Model {
    its_enabled: bool,
    devices: BTreeMap<u32, u8>,
    events: BTreeMap<(u32, u32), Event>,
    collections: BTreeMap<u16, u16>,
    lpis_enabled: BTreeSet<u16>,
    /// Pending at a redistributor by itself, with what it has cached.
    own: BTreeMap<(u16, u32), (bool, Cached)>,
    memory: BTreeMap<u32, Cached>,
    tables: BTreeMap<u16, BTreeSet<u32>>,
}

fn known(target: RdBase) -> Result<u16, CommandErrorReason> {
    target.processor_number().filter(|vcpu| *vcpu < VCPUS).ok_or(ProcessorNumberOutOfRange)
}

fn provided(collection: u16) -> Result<(), CommandErrorReason> {
    if u32::from(collection) < TABLE { Ok(()) } else { Err(CollectionOutOfRange) }
}

impl Model {
    fn in_memory(&self, lpi: u32) -> Cached {
        self.memory.get(&lpi).copied().unwrap_or(Cached { enable: false, priority: 0 })
    }

    /// Brings the events' places up to date. One that becomes deliverable has its configuration read.
    fn settle(&mut self) {
        let mut events = core::mem::take(&mut self.events);
        for event in events.values_mut() {
            let vcpu = self.collections.get(&event.collection);
            event.at = vcpu.copied().unwrap_or(event.at);
            let deliverable = self.its_enabled && vcpu.is_some() && self.lpis_enabled.contains(&event.at);
            if deliverable && !event.deliverable {
                event.cached = self.in_memory(event.lpi);
            }
            event.deliverable = deliverable;
        }
        self.events = events;
    }

    fn pend_own(&mut self, vcpu: u16, lpi: u32) {
        // Configuration is cached for a chunk of LPIs at a time, and all of this test's are in one.
        for neighbour in LPIS {
            let config = self.in_memory(neighbour);
            self.own.entry((vcpu, neighbour)).or_insert((false, config));
        }
        if let Some(own) = self.own.get_mut(&(vcpu, lpi)) {
            own.0 = true;
        }
    }

    fn clear_own(&mut self, vcpu: u16, lpi: u32) -> bool {
        self.own.get_mut(&(vcpu, lpi)).is_some_and(|own| core::mem::take(&mut own.0))
    }

    fn send(&mut self, device: u32, event: u32) {
        if let Some(event) = self.events.get_mut(&(device, event))
            && self.its_enabled
            && self.collections.contains_key(&event.collection)
            && self.lpis_enabled.contains(&event.at)
        {
            event.pending = true;
        }
    }

    fn reload(&mut self, vcpu: u16, is_meant: impl Fn(u32) -> bool) {
        if !self.lpis_enabled.contains(&vcpu) {
            return;
        }
        let memory = self.memory.clone();
        let read = |lpi: u32| memory.get(&lpi).copied().unwrap_or(Cached { enable: false, priority: 0 });
        for event in self.events.values_mut().filter(|event| event.at == vcpu && is_meant(event.lpi)) {
            event.cached = read(event.lpi);
        }
        for ((at, lpi), own) in &mut self.own {
            if *at == vcpu && is_meant(*lpi) {
                own.1 = read(*lpi);
            }
        }
    }

    fn device(&self, device: u32, event: u32) -> Result<(), CommandErrorReason> {
        match self.devices.get(&device) {
            Some(bits) if event >> bits == 0 => Ok(()),
            Some(_) => Err(EventOutOfRange),
            None if device < TABLE => Err(UnmappedDevice),
            None => Err(DeviceOutOfRange),
        }
    }

    fn event(&self, device: u32, event: u32) -> Result<Event, CommandErrorReason> {
        self.device(device, event)?;
        self.events.get(&(device, event)).copied().ok_or(UnmappedInterrupt)
    }

    fn routed(&self, device: u32, event: u32) -> Result<Event, CommandErrorReason> {
        let event = self.event(device, event)?;
        self.collections.get(&event.collection).map(|_| event).ok_or(UnmappedCollection)
    }

    fn execute(&mut self, command: Command) -> Result<(), CommandErrorReason> {
        match command {
            Command::Mapd { device, event_bits_minus_one, action, .. } => {
                self.mapd(device.get(), event_bits_minus_one, action)
            }
            Command::Mapc { collection, target, action } => {
                provided(collection.get())?;
                let vcpu = (action == MapAction::Map).then(|| known(target)).transpose()?;
                match vcpu {
                    Some(vcpu) => drop(self.collections.insert(collection.get(), vcpu)),
                    None => drop(self.collections.remove(&collection.get())),
                }
                Ok(())
            }
            Command::Mapti { device, event, intid, collection } => {
                self.mapti((device.get(), event.get()), intid, collection.get())
            }
            Command::Mapi { device, event, collection } => {
                self.mapti((device.get(), event.get()), event.get(), collection.get())
            }
            Command::Movi { device, event, collection } => {
                self.movi((device.get(), event.get()), collection.get())
            }
            Command::Discard { device, event }
            | Command::Clear { device, event }
            | Command::Int { device, event }
            | Command::Inv { device, event } => self.with_event(command, (device.get(), event.get())),
            Command::Invall { collection } => {
                provided(collection.get())?;
                let vcpu = *self.collections.get(&collection.get()).ok_or(UnmappedCollection)?;
                self.reload(vcpu, |_| true);
                Ok(())
            }
            Command::Movall { from, to } => {
                let (from, to) = (known(from)?, known(to)?);
                self.movall(from, to);
                Ok(())
            }
            Command::Sync { target } => known(target).map(drop),
        }
    }

    fn mapd(&mut self, device: u32, bits_minus_one: u8, action: MapAction) -> Result<(), CommandErrorReason> {
        if device >= TABLE {
            return Err(DeviceOutOfRange);
        }
        if action == MapAction::Map && bits_minus_one > 15 {
            return Err(IttSizeOutOfRange);
        }
        self.events.retain(|(of, _), _| *of != device);
        self.devices.remove(&device);
        if action == MapAction::Map {
            self.devices.insert(device, bits_minus_one + 1);
        }
        Ok(())
    }

    fn mapti(&mut self, at: (u32, u32), intid: u32, collection: u16) -> Result<(), CommandErrorReason> {
        self.device(at.0, at.1)?;
        provided(collection)?;
        if !(8192..1 << 16).contains(&intid) {
            return Err(PhysicalIdOutOfRange);
        }
        let event = Event {
            lpi: intid,
            collection,
            at: self.collections.get(&collection).copied().unwrap_or(0),
            pending: false,
            deliverable: false,
            cached: self.in_memory(intid),
        };
        self.events.insert(at, event);
        Ok(())
    }

    fn movi(&mut self, at: (u32, u32), collection: u16) -> Result<(), CommandErrorReason> {
        let old = self.routed(at.0, at.1)?;
        provided(collection)?;
        let to = *self.collections.get(&collection).ok_or(UnmappedCollection)?;
        let by_itself = to != old.at && self.clear_own(old.at, old.lpi);
        if let Some(event) = self.events.get_mut(&at) {
            event.collection = collection;
            event.pending |= by_itself;
        }
        Ok(())
    }

    fn with_event(&mut self, command: Command, at: (u32, u32)) -> Result<(), CommandErrorReason> {
        let discards = matches!(command, Command::Discard { .. });
        let old = if discards { self.event(at.0, at.1)? } else { self.routed(at.0, at.1)? };
        match command {
            Command::Int { .. } => self.send(at.0, at.1),
            Command::Inv { .. } => {
                if self.lpis_enabled.contains(&old.at) {
                    let read = self.in_memory(old.lpi);
                    self.events.entry(at).and_modify(|event| event.cached = read);
                    self.own.entry((old.at, old.lpi)).and_modify(|own| own.1 = read);
                }
            }
            _ => {
                self.clear_own(old.at, old.lpi);
                self.events.entry(at).and_modify(|event| event.pending = false);
                self.events.retain(|of, _| !discards || *of != at);
            }
        }
        Ok(())
    }

    fn movall(&mut self, from: u16, to: u16) {
        if from == to {
            return;
        }
        let mut moved = Vec::new();
        for event in self.events.values_mut().filter(|event| event.at == from && event.pending) {
            event.pending = false;
            moved.push(event.lpi);
        }
        for ((at, lpi), own) in &mut self.own {
            if *at == from && core::mem::take(&mut own.0) {
                moved.push(*lpi);
            }
        }
        for lpi in moved {
            self.pend_own(to, lpi);
        }
    }

    fn set_lpi(&mut self, vcpu: u16, lpi: u32) {
        if self.lpis_enabled.contains(&vcpu) {
            self.pend_own(vcpu, lpi);
        }
    }

    fn clear_lpi(&mut self, vcpu: u16, lpi: u32) {
        self.clear_own(vcpu, lpi);
        let here = |event: &&mut Event| event.at == vcpu && event.lpi == lpi;
        self.events.values_mut().filter(here).for_each(|event| event.pending = false);
    }

    /// What may be the case after LPIs were enabled: where two events share an LPI that the table has pending, either
    /// is pending.
    fn after_enabling(mut self, vcpu: u16) -> Vec<Self> {
        if !self.lpis_enabled.insert(vcpu) {
            return vec![self];
        }
        self.reload(vcpu, |_| true);
        let table = self.tables.remove(&vcpu).unwrap_or_default();
        table.into_iter().fold(vec![self], |models, lpi| {
            models.into_iter().flat_map(|model| model.after_loading(vcpu, lpi)).collect()
        })
    }

    fn after_loading(mut self, vcpu: u16, lpi: u32) -> Vec<Self> {
        let sharing = |event: &(&(u32, u32), &Event)| event.1.at == vcpu && event.1.lpi == lpi;
        let sharing: Vec<_> = self.events.iter().filter(sharing).map(|(at, _)| *at).collect();
        if sharing.is_empty() {
            self.pend_own(vcpu, lpi);
            return vec![self];
        }
        let mut possible = Vec::new();
        for at in sharing {
            let mut loaded = self.clone();
            loaded.events.get_mut(&at).into_iter().for_each(|event| event.pending = true);
            possible.push(loaded);
        }
        let held = self.own.contains_key(&(vcpu, lpi));
        possible.extend(held.then(|| {
            self.pend_own(vcpu, lpi);
            self
        }));
        possible
    }

    fn disable_lpis(&mut self, vcpu: u16) {
        if !self.lpis_enabled.remove(&vcpu) {
            return;
        }
        let pending = self.pending(vcpu);
        self.events.values_mut().filter(|event| event.at == vcpu).for_each(|event| event.pending = false);
        self.own.retain(|(at, _), _| *at != vcpu);
        self.tables.insert(vcpu, pending);
    }

    /// Of LPIs that are not pending, a redistributor by itself knows no configuration any more.
    fn migrate(&mut self) {
        let own = core::mem::take(&mut self.own);
        for ((vcpu, lpi), (_, cached)) in own.into_iter().filter(|(_, (pending, _))| *pending) {
            self.pend_own(vcpu, lpi);
            self.own.entry((vcpu, lpi)).and_modify(|own| own.1 = cached);
        }
    }

    fn pending(&self, vcpu: u16) -> BTreeSet<u32> {
        let events = self.events.values().filter(|event| event.at == vcpu && event.pending);
        let own = self.own.iter().filter(|((at, _), own)| *at == vcpu && own.0);
        events.map(|event| event.lpi).chain(own.map(|((_, lpi), _)| *lpi)).collect()
    }

    /// What may be taken: each LPI with the priority level that its vCPU sees.
    fn ready(&self, vcpu: u16) -> Vec<(u8, u32)> {
        if !self.lpis_enabled.contains(&vcpu) {
            return Vec::new();
        }
        let events = self
            .events
            .values()
            .filter(|event| event.at == vcpu && event.pending)
            .map(|event| (event.cached, event.lpi));
        let own = self
            .own
            .iter()
            .filter(|((at, _), own)| *at == vcpu && own.0)
            .map(|((_, lpi), own)| (own.1, *lpi));
        events
            .chain(own)
            .filter(|(config, _)| config.enable)
            .map(|(config, lpi)| (config.priority & 0xf8, lpi))
            .collect()
    }

    /// What may be the case after one of what is pending was taken: where two events share the LPI, either.
    fn after_taking(&self, vcpu: u16, priority: u8, lpi: u32) -> Vec<Self> {
        let is_it = |cached: Cached| cached.enable && cached.priority & 0xf8 == priority;
        let mut possible = Vec::new();
        for (at, event) in &self.events {
            if event.at == vcpu && event.lpi == lpi && event.pending && is_it(event.cached) {
                let mut taken = self.clone();
                if let Some(event) = taken.events.get_mut(at) {
                    event.pending = false;
                }
                possible.push(taken);
            }
        }
        if self.own.get(&(vcpu, lpi)).is_some_and(|(pending, cached)| *pending && is_it(*cached)) {
            let mut taken = self.clone();
            taken.clear_own(vcpu, lpi);
            possible.push(taken);
        }
        possible
    }
}

fn device() -> impl Strategy<Value = u32> {
    prop_oneof![20 => 0u32..4, 1 => Just(8192), 1 => Just(70_000)]
}

fn event() -> impl Strategy<Value = u32> {
    prop_oneof![12 => 0u32..4, 4 => prop_oneof![Just(31u32), Just(32), Just(100), Just(3000)], 1 => 0u32..9000]
}

fn lpi() -> impl Strategy<Value = u32> {
    LPIS
}

fn collection() -> impl Strategy<Value = u16> {
    prop_oneof![20 => 0u16..4, 1 => Just(8192u16)]
}

fn any_vcpu() -> impl Strategy<Value = u16> {
    prop_oneof![20 => 0..VCPUS, 1 => Just(VCPUS)]
}

fn command() -> impl Strategy<Value = Command> {
    let bits = prop_oneof![Just(1u8), Just(2), Just(5), Just(6), Just(12), Just(16), Just(17)];
    prop_oneof![
        2 => (device(), bits).prop_map(|(device, bits)| mapd(device, bits)),
        1 => device().prop_map(unmapd),
        3 => (collection(), any_vcpu()).prop_map(|(collection, vcpu)| mapc(collection, vcpu)),
        1 => collection().prop_map(unmapc),
        10 => (device(), event(), prop_oneof![20 => lpi(), 1 => Just(8191), 1 => Just(65536)], collection())
            .prop_map(|(device, event, lpi, collection)| mapti(device, event, lpi, collection)),
        4 => (device(), event(), collection()).prop_map(|(device, event, to)| movi(device, event, to)),
        2 => (device(), event()).prop_map(|(device, event)| discard(device, event)),
        3 => (device(), event()).prop_map(|(device, event)| int(device, event)),
        1 => (device(), event()).prop_map(|(device, event)| clear(device, event)),
        3 => (device(), event()).prop_map(|(device, event)| inv(device, event)),
        1 => collection().prop_map(invall),
        2 => (any_vcpu(), any_vcpu()).prop_map(|(from, to)| movall(from, to)),
        1 => any_vcpu().prop_map(sync),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => command().prop_map(Step::Command),
        12 => (0u32..4, event()).prop_map(|(device, event)| Step::Send { device, event }),
        4 => (lpi(), any::<bool>(), any::<u8>())
            .prop_map(|(lpi, enable, priority)| Step::Configure { lpi, enable, priority }),
        8 => (0..VCPUS, prop_oneof![3 => Just(0xffu8), 1 => any::<u8>()])
            .prop_map(|(vcpu, than)| Step::Acknowledge { vcpu, than }),
        2 => (0..VCPUS).prop_map(Step::EnableLpis),
        1 => (0..VCPUS).prop_map(Step::DisableLpis),
        1 => (0..VCPUS).prop_map(Step::InvalidateAll),
        1 => (0..VCPUS, lpi()).prop_map(|(vcpu, lpi)| Step::Invalidate { vcpu, lpi }),
        2 => (0..VCPUS, lpi()).prop_map(|(vcpu, lpi)| Step::SetLpi { vcpu, lpi }),
        1 => (0..VCPUS, lpi()).prop_map(|(vcpu, lpi)| Step::ClearLpi { vcpu, lpi }),
        1 => prop_oneof![3 => Just(true), 1 => Just(false)].prop_map(Step::EnableIts),
        1 => Just(Step::Migrate),
    ]
}

/// The two, side by side.
struct Pair {
    rig: Rig,
    /// What may be the case, as far as the real one has shown.
    models: Vec<Model>,
    queues: Vec<crate::lpi::LpiQueue>,
}

impl Pair {
    /// Running: three devices, an LPI of each event, collection n mapped to vCPU n; LPIs enabled everywhere.
    fn new() -> Self {
        let rig = Rig::running(VCPUS);
        let mut model = Model { its_enabled: true, ..Model::default() };
        for vcpu in 0..VCPUS {
            model.collections.insert(vcpu, vcpu);
            model.lpis_enabled.insert(vcpu);
        }
        for lpi in LPIS {
            model.memory.insert(lpi, Cached { enable: true, priority: 0xa0 });
        }
        let queues = (0..VCPUS).map(|vcpu| rig.vcpu(vcpu)).collect();
        let mut pair = Self { rig, models: vec![model], queues };
        let devices = [mapd(0, 1), mapd(1, 6), mapd(2, 12)];
        let events =
            (0..6u32).map(|at| mapti(at % 3, at / 3, LPIS.start + at, u16::try_from(at % 3).unwrap()));
        devices.into_iter().chain(events).for_each(|command| pair.command(command).unwrap());
        pair.each(Model::settle);
        pair
    }

    fn each(&mut self, change: impl FnMut(&mut Model)) {
        self.models.iter_mut().for_each(change);
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let rig = &self.rig;
        match step {
            Step::Command(command) => self.command(command)?,
            Step::Acknowledge { vcpu, than } => self.acknowledge(vcpu, than)?,
            Step::Send { device, event } => {
                rig.send(device, event);
                self.each(|model| model.send(device, event));
            }
            Step::Configure { lpi, enable, priority } => {
                rig.configure(lpi, enable, priority);
                self.each(|model| {
                    model.memory.insert(lpi, Cached { enable, priority });
                });
            }
            Step::EnableLpis(vcpu) => {
                rig.enable_lpis(vcpu);
                let before = core::mem::take(&mut self.models);
                self.models = before.into_iter().flat_map(|model| model.after_enabling(vcpu)).collect();
            }
            Step::DisableLpis(vcpu) => {
                rig.disable_lpis(vcpu);
                self.each(|model| model.disable_lpis(vcpu));
            }
            Step::InvalidateAll(vcpu) => {
                rig.lpis.invalidate_all(cpu(vcpu));
                rig.finish_sweeps();
                self.each(|model| model.reload(vcpu, |_| true));
            }
            Step::Invalidate { vcpu, lpi } => {
                rig.lpis.invalidate(cpu(vcpu), Lpi::try_from(lpi).unwrap());
                rig.finish_sweeps();
                self.each(|model| model.reload(vcpu, |of| of == lpi));
            }
            Step::SetLpi { vcpu, lpi } => {
                rig.lpis.set_lpi(cpu(vcpu), Lpi::try_from(lpi).unwrap());
                self.each(|model| model.set_lpi(vcpu, lpi));
            }
            Step::ClearLpi { vcpu, lpi } => {
                rig.lpis.clear_lpi(cpu(vcpu), Lpi::try_from(lpi).unwrap());
                self.each(|model| model.clear_lpi(vcpu, lpi));
            }
            Step::EnableIts(enabled) => {
                rig.set_enabled(enabled);
                self.each(|model| model.its_enabled = enabled);
            }
            Step::Migrate => self.migrate(),
        }
        self.compare(step)
    }

    fn migrate(&mut self) {
        let enabled: Vec<_> = self.models[0].lpis_enabled.iter().copied().collect();
        self.rig = self.rig.restored_elsewhere(VCPUS, &enabled);
        self.queues = (0..VCPUS).map(|vcpu| self.rig.vcpu(vcpu)).collect();
        self.each(Model::migrate);
    }

    /// A disabled ITS executes nothing; what would happen later is not this test's matter.
    fn command(&mut self, command: Command) -> Result<(), TestCaseError> {
        if !self.models[0].its_enabled {
            return Ok(());
        }
        let before = self.rig.its.command_faults().count;
        self.rig.run([command]);
        let faults = self.rig.its.command_faults();
        let found = faults.last.filter(|_| faults.count > before).map(|fault| match fault {
            CommandFault::Refused(error) => error.reason,
            other => panic!("{other}"),
        });
        for model in &mut self.models {
            prop_assert_eq!(found, model.execute(command).err(), "{}", command);
        }
        Ok(())
    }

    fn acknowledge(&mut self, vcpu: u16, than: u8) -> Result<(), TestCaseError> {
        let queue = &mut self.queues[usize::from(vcpu)];
        let peeked = queue.highest(Priority::new(than));
        let taken = queue.take(Priority::new(than));
        prop_assert_eq!(peeked, taken);
        let taken = taken.map(|taken| (taken.priority.get(), taken.lpi.get()));
        let before = core::mem::take(&mut self.models);
        for model in &before {
            let ready = model.ready(vcpu);
            let best = ready.iter().map(|(priority, _)| *priority).min().filter(|best| *best < than);
            if taken.map(|(priority, _)| priority) != best {
                continue;
            }
            match taken {
                Some((priority, lpi)) => self.models.extend(model.after_taking(vcpu, priority, lpi)),
                None => self.models.push(model.clone()),
            }
        }
        prop_assert!(!self.models.is_empty(), "taken: {:?}, ready: {:?}", taken, before[0].ready(vcpu));
        Ok(())
    }

    fn compare(&mut self, step: Step) -> Result<(), TestCaseError> {
        self.each(Model::settle);
        let pending = |vcpu| self.rig.pending(vcpu).into_iter().collect::<BTreeSet<u32>>();
        let found: Vec<_> = (0..VCPUS).map(pending).collect();
        let expected = |model: &Model| (0..VCPUS).map(|vcpu| model.pending(vcpu)).collect::<Vec<_>>();
        let first = expected(&self.models[0]);
        self.models.retain(|model| expected(model) == found);
        prop_assert!(!self.models.is_empty(), "pending: {:?}, not {:?}, after {:?}", found, first, step);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_leaves_the_same_lpis_pending_as_the_naive_its(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut pair = Pair::new();
        for step in steps {
            pair.step(step)?;
        }
    }
}
