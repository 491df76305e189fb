//! An ITS implemented with lists and searches: one map for events, and one for LPIs that are
//! pending at a redistributor without an event.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use gic_arch::its::CommandErrorReason::{self, *};
use gic_arch::its::{Command, MapAction, RdBase};

pub(super) const VCPUS: u16 = 3;
/// Number of entries in the device table, and in the collection table.
const TABLE: u32 = 8192;
pub(super) const LPIS: Range<u32> = 8192..8200;

/// Configuration byte as cached by a redistributor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Cached {
    pub(super) enable: bool,
    pub(super) priority: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Event {
    lpi: u32,
    collection: u16,
    /// The event's last target.
    at: u16,
    pending: bool,
    deliverable: bool,
    cached: Cached,
}

#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Model {
    pub(super) its_enabled: bool,
    devices: BTreeMap<u32, u8>,
    events: BTreeMap<(u32, u32), Event>,
    pub(super) collections: BTreeMap<u16, u16>,
    pub(super) lpis_enabled: BTreeSet<u16>,
    /// LPIs that are pending at a redistributor without an event, with their cached configurations.
    own: BTreeMap<(u16, u32), (bool, Cached)>,
    pub(super) memory: BTreeMap<u32, Cached>,
    tables: BTreeMap<u16, BTreeSet<u32>>,
}

fn known(target: RdBase) -> Result<u16, CommandErrorReason> {
    target.processor_number().filter(|vcpu| *vcpu < VCPUS).ok_or(ProcessorNumberOutOfRange)
}

fn provided(collection: u16) -> Result<(), CommandErrorReason> {
    if u32::from(collection) < TABLE { Ok(()) } else { Err(CollectionOutOfRange) }
}

impl Model {
    /// Creates an enabled ITS without mappings.
    pub(super) fn enabled() -> Self {
        Self { its_enabled: true, ..Self::default() }
    }

    fn in_memory(&self, lpi: u32) -> Cached {
        self.memory.get(&lpi).copied().unwrap_or(Cached { enable: false, priority: 0 })
    }

    /// Updates the events' targets. When an event becomes deliverable, its configuration is read.
    pub(super) fn settle(&mut self) {
        let mut events = core::mem::take(&mut self.events);
        for event in events.values_mut() {
            let vcpu = self.collections.get(&event.collection);
            event.at = vcpu.copied().unwrap_or(event.at);
            let deliverable =
                self.its_enabled && vcpu.is_some() && self.lpis_enabled.contains(&event.at);
            if deliverable && !event.deliverable {
                event.cached = self.in_memory(event.lpi);
            }
            event.deliverable = deliverable;
        }
        self.events = events;
    }

    /// Returns the possible states after merging each LPI that is pending without an event into its
    /// event, if the event targets the vCPU. If several events share the LPI, the pending state may
    /// also stay at the redistributor.
    pub(super) fn after_joining(self) -> Vec<Self> {
        let own: Vec<_> = self.own.iter().filter(|(_, own)| own.0).map(|(at, _)| *at).collect();
        own.into_iter().fold(vec![self], |models, (vcpu, lpi)| {
            models.into_iter().flat_map(|model| model.after_joining_one(vcpu, lpi)).collect()
        })
    }

    fn after_joining_one(self, vcpu: u16, lpi: u32) -> Vec<Self> {
        let sharing: Vec<_> = self.events.iter().filter(|(_, event)| event.lpi == lpi).collect();
        let here = sharing.iter().filter(|(_, event)| event.at == vcpu).map(|(at, _)| **at);
        let joined = here.map(|at| {
            let mut joined = self.clone();
            joined.clear_own(vcpu, lpi);
            joined.events.entry(at).and_modify(|event| event.pending = true);
            joined
        });
        let mut possible: Vec<_> = joined.collect();
        if sharing.len() > 1 || possible.is_empty() {
            possible.push(self);
        }
        possible
    }

    /// Returns `true` if an event is mapped to the LPI.
    pub(super) fn maps(&self, lpi: u32) -> bool {
        self.events.values().any(|event| event.lpi == lpi)
    }

    /// Makes a redistributor cache the configuration of every LPI.
    pub(super) fn cache_all(&mut self, vcpu: u16) {
        for neighbour in LPIS {
            let config = self.in_memory(neighbour);
            self.own.entry((vcpu, neighbour)).or_insert((false, config));
        }
    }

    pub(super) fn invalidate(&mut self, vcpu: u16, lpi: u32) {
        self.reload(vcpu, |of| of == lpi);
    }

    fn pend_own(&mut self, vcpu: u16, lpi: u32) {
        self.cache_all(vcpu);
        if let Some(own) = self.own.get_mut(&(vcpu, lpi)) {
            own.0 = true;
        }
    }

    fn clear_own(&mut self, vcpu: u16, lpi: u32) -> bool {
        self.own.get_mut(&(vcpu, lpi)).is_some_and(|own| core::mem::take(&mut own.0))
    }

    pub(super) fn send(&mut self, device: u32, event: u32) {
        if let Some(event) = self.events.get_mut(&(device, event))
            && self.its_enabled
            && self.collections.contains_key(&event.collection)
            && self.lpis_enabled.contains(&event.at)
        {
            event.pending = true;
        }
    }

    pub(super) fn reload(&mut self, vcpu: u16, is_meant: impl Fn(u32) -> bool) {
        if !self.lpis_enabled.contains(&vcpu) {
            return;
        }
        let memory = self.memory.clone();
        let read =
            |lpi: u32| memory.get(&lpi).copied().unwrap_or(Cached { enable: false, priority: 0 });
        for event in
            self.events.values_mut().filter(|event| event.at == vcpu && is_meant(event.lpi))
        {
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

    pub(super) fn execute(&mut self, command: Command) -> Result<(), CommandErrorReason> {
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
            | Command::Inv { device, event } => {
                self.with_event(command, (device.get(), event.get()))
            }
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

    fn mapd(
        &mut self,
        device: u32,
        bits_minus_one: u8,
        action: MapAction,
    ) -> Result<(), CommandErrorReason> {
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

    fn mapti(
        &mut self,
        at: (u32, u32),
        intid: u32,
        collection: u16,
    ) -> Result<(), CommandErrorReason> {
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
        self.routed(at.0, at.1)?;
        provided(collection)?;
        self.collections.get(&collection).ok_or(UnmappedCollection)?;
        self.events.entry(at).and_modify(|event| event.collection = collection);
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

    pub(super) fn set_lpi(&mut self, vcpu: u16, lpi: u32) {
        if self.lpis_enabled.contains(&vcpu) {
            self.pend_own(vcpu, lpi);
        }
    }

    /// Clears an LPI. No-op while LPIs are disabled at the redistributor (IHI 0069,
    /// `GICR_CLRLPIR`).
    pub(super) fn clear_lpi(&mut self, vcpu: u16, lpi: u32) {
        if self.lpis_enabled.contains(&vcpu) {
            self.clear_own(vcpu, lpi);
        }
    }

    /// Returns the possible states after LPIs were enabled. If two events share an LPI that is
    /// pending in the table, either of them may be pending.
    pub(super) fn after_enabling(mut self, vcpu: u16) -> Vec<Self> {
        if !self.lpis_enabled.insert(vcpu) {
            return vec![self];
        }
        self.cache_all(vcpu);
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
        let loaded = sharing.into_iter().map(|at| {
            let mut loaded = self.clone();
            loaded.events.entry(at).and_modify(|event| event.pending = true);
            loaded
        });
        loaded.collect()
    }

    pub(super) fn disable_lpis(&mut self, vcpu: u16) {
        if !self.lpis_enabled.remove(&vcpu) {
            return;
        }
        let pending = self.pending(vcpu);
        self.events
            .values_mut()
            .filter(|event| event.at == vcpu)
            .for_each(|event| event.pending = false);
        self.own.retain(|(at, _), _| *at != vcpu);
        self.tables.insert(vcpu, pending);
    }

    /// Migrates the ITS. Afterwards, redistributors read the configurations of all LPIs again,
    /// except pending LPIs.
    pub(super) fn migrate(&mut self) {
        let own = core::mem::take(&mut self.own);
        for ((vcpu, lpi), (_, cached)) in own.into_iter().filter(|(_, (pending, _))| *pending) {
            self.pend_own(vcpu, lpi);
            self.own.entry((vcpu, lpi)).and_modify(|own| own.1 = cached);
        }
        for vcpu in self.lpis_enabled.clone() {
            self.cache_all(vcpu);
        }
    }

    pub(super) fn pending(&self, vcpu: u16) -> BTreeSet<u32> {
        let events = self.events.values().filter(|event| event.at == vcpu && event.pending);
        let own = self.own.iter().filter(|((at, _), own)| *at == vcpu && own.0);
        events.map(|event| event.lpi).chain(own.map(|((_, lpi), _)| *lpi)).collect()
    }

    /// Returns the LPIs that may be taken, each with its priority level as seen by the vCPU.
    pub(super) fn ready(&self, vcpu: u16) -> Vec<(u8, u32)> {
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

    /// Returns the possible states after a pending LPI was taken. If two events share the LPI,
    /// either of them may have been taken.
    pub(super) fn after_taking(&self, vcpu: u16, priority: u8, lpi: u32) -> Vec<Self> {
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
