//! An abstract ITS with its redistributors, written from IHI 0069 §5.3. It is nondeterministic:
//! where the architecture leaves open what becomes of a pending LPI or which configuration a
//! redistributor uses, the abstract GIC allows each outcome, until a vCPU acknowledges the LPI or
//! runs out of interrupts.
//!
//! All outcomes of an LPI are independent of those of other LPIs, so a set of outcomes for each LPI
//! represents all possible states. Two events that share an LPI may also have a pending state each,
//! so DISCARD, MOVI or an acknowledgment of one of them may leave the other's.
//!
//! Beyond the architecture, the abstract GIC requires three choices that our model shares with
//! Linux's KVM: MAPC and MOVI move the pending state, a mapping that exists stays as it is, and a
//! redistributor reads the configuration of an LPI whose event becomes deliverable. A command that
//! fails must not have any effect.

use gic_arch::its::CommandErrorReason::{
    self, CollectionOutOfRange, DeviceOutOfRange, EventOutOfRange, IttSizeOutOfRange,
    PhysicalIdOutOfRange, ProcessorNumberOutOfRange, UnmappedCollection, UnmappedDevice,
    UnmappedInterrupt,
};
use gic_arch::its::{Command, MapAction, RdBase};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Maximum number of redistributors.
const MAX_CPUS: usize = 3;
/// Number of entries in the device table, and in the collection table.
const TABLE: u32 = 8192;
/// Number of EventID bits.
const EVENT_BITS: u8 = 16;
const FIRST_LPI: u32 = 8192;
/// End of the implemented LPIs.
const LPIS_END: u32 = 1 << 14;
/// Enable bit of an LPI's configuration.
const ENABLE: u8 = 1;
/// Configuration of an enabled LPI.
pub(super) const ENABLED: u8 = 0xa0 | ENABLE;

/// The result of a command, or of one of its checks.
type Checked<T = ()> = Result<T, CommandErrorReason>;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Translation {
    lpi: u32,
    collection: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Device {
    event_bits: u8,
    /// Address of the interrupt translation table.
    itt: u64,
    events: BTreeMap<u32, Translation>,
}

/// Redistributors at which an LPI is pending, one bit each.
type Redistributors = u8;

/// All possible sets of [`Redistributors`] at which an LPI may be pending: bit n is set if it may
/// be pending at exactly the redistributors n.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Outcomes(u8);

impl Outcomes {
    const NOT_PENDING: Self = Self(1);

    fn of(self) -> impl Iterator<Item = Redistributors> {
        (0..1 << MAX_CPUS).filter(move |set| self.0 >> set & 1 != 0)
    }

    /// Changes every possible set in the same way.
    fn then(self, change: impl Fn(Redistributors) -> Redistributors) -> Self {
        Self(self.of().fold(0, |outcomes, set| outcomes | 1 << change(set)))
    }

    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn pended(self, at: usize) -> Self {
        self.then(|set| set | 1 << at)
    }

    fn cleared(self, at: usize) -> Self {
        self.then(|set| set & !(1 << at))
    }

    fn moved(self, from: usize, to: usize) -> Self {
        self.then(|set| if set >> from & 1 == 0 { set } else { set & !(1 << from) | 1 << to })
    }

    /// Keeps the sets that contain a redistributor.
    fn pending(self, at: usize) -> Self {
        Self(self.of().filter(|set| set >> at & 1 != 0).fold(0, |kept, set| kept | 1 << set))
    }

    fn not_pending(self, at: usize) -> Self {
        Self(self.0 & !self.pending(at).0)
    }

    const fn is_impossible(self) -> bool {
        self.0 == 0
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Lpi {
    pending: Outcomes,
    /// The byte in the configuration table: the priority, and the enable bit.
    configuration: u8,
    /// Other configurations that a redistributor may have cached.
    stale: BTreeSet<(usize, u8)>,
}

impl Lpi {
    /// Returns all configurations that a redistributor may have cached.
    fn cached(&self, at: usize) -> impl Iterator<Item = u8> {
        let stale = self.stale.iter().filter(move |(cpu, _)| *cpu == at);
        stale.map(|(_, cached)| *cached).chain([self.configuration])
    }

    /// Returns the least urgent priority with which the LPI must be signaled, or `None` if it may
    /// be disabled or not pending.
    fn must_be_signaled(&self, at: usize) -> Option<u8> {
        let is_certain = self.pending.not_pending(at).is_impossible()
            && self.cached(at).all(|cached| cached & ENABLE != 0);
        self.cached(at).max().filter(|_| is_certain)
    }
}

impl fmt::Display for Lpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (configuration, stale) = (self.configuration, &self.stale);
        write!(f, "configured as {configuration:#x}, stale are {stale:x?}, pending at one of")?;
        self.pending.of().try_for_each(|set| write!(f, " {set:#05b}"))
    }
}

/// All states of an ITS and its redistributors that are possible after a sequence of steps.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AbstractGic {
    /// `GITS_CTLR.Enabled`.
    pub its_enabled: bool,
    cpus: usize,
    /// `GICR_CTLR.EnableLPIs`.
    lpis_enabled: [bool; MAX_CPUS],
    devices: BTreeMap<u32, Device>,
    collections: BTreeMap<u16, usize>,
    /// The LPIs from [`FIRST_LPI`].
    lpis: Vec<Lpi>,
    /// Number of refused commands that have not been compared yet.
    pub(super) refused: u64,
}

impl AbstractGic {
    /// Creates an enabled ITS without mappings, and `cpus` redistributors whose LPIs are enabled.
    /// `lpis` is the number of LPIs that may be used, starting at INTID 8192. The configuration
    /// table enables all of them, with priority 0xa0.
    ///
    /// # Panics
    /// Panics for more than three redistributors.
    pub fn new(cpus: usize, lpis: usize) -> Self {
        assert!(cpus <= MAX_CPUS, "a set of redistributors has {MAX_CPUS} bits");
        let pending = Outcomes::NOT_PENDING;
        let lpi = Lpi { pending, configuration: ENABLED, stale: BTreeSet::new() };
        Self {
            its_enabled: true,
            cpus,
            lpis_enabled: [true; MAX_CPUS],
            devices: BTreeMap::new(),
            collections: BTreeMap::new(),
            lpis: vec![lpi; lpis],
            refused: 0,
        }
    }

    fn lpi(&mut self, lpi: u32) -> Option<&mut Lpi> {
        self.lpis.get_mut(usize::try_from(lpi.checked_sub(FIRST_LPI)?).ok()?)
    }

    /// Returns `true` if several events are mapped to an LPI.
    fn is_shared(&self, lpi: u32) -> bool {
        let events = self.devices.values().flat_map(|device| device.events.values());
        events.filter(|event| event.lpi == lpi).count() > 1
    }

    /// Returns a device's mapping for an event that it may have.
    fn device(&self, device: u32, event: u32) -> Checked<&Device> {
        match self.devices.get(&device) {
            Some(found) if event >> found.event_bits == 0 => Ok(found),
            Some(_) => Err(EventOutOfRange),
            None if device < TABLE => Err(UnmappedDevice),
            None => Err(DeviceOutOfRange),
        }
    }

    fn event(&self, device: u32, event: u32) -> Checked<Translation> {
        self.device(device, event)?.events.get(&event).copied().ok_or(UnmappedInterrupt)
    }

    fn target(&self, collection: u16) -> Checked<usize> {
        exists(collection)?;
        self.collections.get(&collection).copied().ok_or(UnmappedCollection)
    }

    /// Returns the LPI of an event, and the target of its collection.
    fn route(&self, device: u32, event: u32) -> Checked<(u32, usize)> {
        let Translation { lpi, collection } = self.event(device, event)?;
        Ok((lpi, self.target(collection)?))
    }

    fn cpu(&self, target: RdBase) -> Checked<usize> {
        let cpu = target.processor_number().map(usize::from).filter(|cpu| *cpu < self.cpus);
        cpu.ok_or(ProcessorNumberOutOfRange)
    }

    /// Sends a message from a device. Returns `true` if the interrupt must be pending afterwards.
    pub fn send(&mut self, device: u32, event: u32) -> bool {
        let route = self.route(device, event).ok().filter(|_| self.its_enabled);
        route.is_some_and(|(lpi, at)| self.set_lpi(at, lpi))
    }

    /// Writes `GICR_SETLPIR`. Returns `true` if the interrupt must be pending afterwards.
    pub fn set_lpi(&mut self, at: usize, lpi: u32) -> bool {
        let is_enabled = self.lpis_enabled[at];
        if let Some(lpi) = self.lpi(lpi).filter(|_| is_enabled) {
            lpi.pending = lpi.pending.pended(at);
        }
        is_enabled
    }

    /// Clears the pending state (CLEAR and `GICR_CLRLPIR`). If LPIs are disabled, the pending state
    /// is in a table in memory, and may stay there.
    pub fn clear_lpi(&mut self, at: usize, lpi: u32) {
        let is_certain = self.lpis_enabled[at];
        if let Some(lpi) = self.lpi(lpi) {
            let kept = if is_certain { Outcomes(0) } else { lpi.pending };
            lpi.pending = lpi.pending.cleared(at).or(kept);
        }
    }

    /// Writes an LPI's byte of the configuration table.
    pub fn configure(&mut self, lpi: u32, configuration: u8) {
        let cpus = self.cpus;
        if let Some(lpi) = self.lpi(lpi) {
            let old = std::mem::replace(&mut lpi.configuration, configuration);
            lpi.stale.extend((0..cpus).map(|cpu| (cpu, old)));
            lpi.stale.retain(|(_, cached)| *cached != configuration);
        }
    }

    /// Invalidates a redistributor's cached configuration of an LPI, or of all LPIs
    /// (`GICR_INVLPIR`, `GICR_INVALLR`).
    pub fn invalidate(&mut self, at: usize, only: Option<u32>) {
        for (lpi, number) in self.lpis.iter_mut().zip(FIRST_LPI..) {
            if self.lpis_enabled[at] && only.is_none_or(|only| only == number) {
                lpi.stale.retain(|(cpu, _)| *cpu != at);
            }
        }
    }

    /// Writes `GICR_CTLR.EnableLPIs`. A redistributor caches no configurations while LPIs are
    /// disabled.
    pub fn enable_lpis(&mut self, at: usize, enable: bool) {
        if !std::mem::replace(&mut self.lpis_enabled[at], enable) {
            self.invalidate(at, None);
        }
    }

    /// Executes a command.
    ///
    /// # Errors
    /// Returns the reason why the command fails.
    pub fn execute(&mut self, command: Command) -> Result<(), CommandErrorReason> {
        match command {
            Command::Mapd { device, itt, event_bits_minus_one, action } => {
                let (event_bits, events) = (event_bits_minus_one + 1, BTreeMap::new());
                let mapped = Device { event_bits, itt, events };
                self.map_device(device.get(), Some(mapped).filter(|_| action == MapAction::Map))
            }
            Command::Mapc { collection, target, action } => {
                self.map_collection(collection.get(), target, action)
            }
            Command::Mapti { device, event, intid, collection } => {
                let translation = Translation { lpi: intid, collection: collection.get() };
                self.map_event(device.get(), event.get(), translation)
            }
            Command::Mapi { device, event, collection } => {
                let translation = Translation { lpi: event.get(), collection: collection.get() };
                self.map_event(device.get(), event.get(), translation)
            }
            Command::Movi { device, event, collection } => {
                self.move_event(device.get(), event.get(), collection.get())
            }
            Command::Discard { device, event } => self.discard(device.get(), event.get()),
            Command::Clear { device, event } => {
                let (lpi, at) = self.route(device.get(), event.get())?;
                self.clear_lpi(at, lpi);
                Ok(())
            }
            Command::Int { device, event } => {
                self.route(device.get(), event.get())?;
                self.send(device.get(), event.get());
                Ok(())
            }
            Command::Inv { device, event } => {
                let (lpi, at) = self.route(device.get(), event.get())?;
                self.invalidate(at, Some(lpi));
                Ok(())
            }
            Command::Invall { collection } => {
                let at = self.target(collection.get())?;
                self.invalidate(at, None);
                Ok(())
            }
            Command::Movall { from, to } => {
                let (from, to) = (self.cpu(from)?, self.cpu(to)?);
                (FIRST_LPI..LPIS_END)
                    .take(self.lpis.len())
                    .for_each(|lpi| self.carry(lpi, from, to));
                Ok(())
            }
            Command::Sync { target } => self.cpu(target).map(drop),
        }
    }

    fn map_device(&mut self, device: u32, mapped: Option<Device>) -> Checked {
        if device >= TABLE {
            return Err(DeviceOutOfRange);
        }
        if mapped.as_ref().is_some_and(|mapped| mapped.event_bits > EVENT_BITS) {
            return Err(IttSizeOutOfRange);
        }
        let place = |device: &Device| (device.event_bits, device.itt);
        let old = self.devices.get(&device);
        if old.is_some() && old.map(place) == mapped.as_ref().map(place) {
            return Ok(());
        }
        let events = old.map(|device| device.events.clone());
        events.into_iter().flatten().for_each(|(_, mapped)| self.abandon(mapped));
        match mapped {
            Some(mapped) => self.devices.insert(device, mapped),
            None => self.devices.remove(&device),
        };
        Ok(())
    }

    /// Ends a mapping without a statement about the LPI's pending state, which may stay at the
    /// redistributor.
    fn abandon(&mut self, mapped: Translation) {
        let target = self.collections.get(&mapped.collection).copied();
        let cpus = (0..self.cpus).filter(|cpu| target.is_none_or(|target| target == *cpu));
        for cpu in cpus {
            if let Some(lpi) = self.lpi(mapped.lpi) {
                lpi.pending = lpi.pending.or(lpi.pending.cleared(cpu));
            }
        }
    }

    fn map_collection(&mut self, collection: u16, target: RdBase, action: MapAction) -> Checked {
        exists(collection)?;
        let to = match action {
            MapAction::Map => self.cpu(target)?,
            MapAction::Unmap => {
                self.collections.remove(&collection);
                return Ok(());
            }
        };
        let from = self.collections.insert(collection, to);
        let events = self.devices.values().flat_map(|device| device.events.values());
        let here = events.filter(|event| event.collection == collection).map(|event| event.lpi);
        for lpi in here.collect::<Vec<_>>() {
            match from {
                Some(from) => self.carry(lpi, from, to),
                None => self.find_again(lpi, to),
            }
        }
        Ok(())
    }

    /// Makes an LPI deliverable whose collection has just been mapped. An LPI that is pending at
    /// another redistributor may be moved, or stay there.
    fn find_again(&mut self, lpi: u32, to: usize) {
        let is_shared = self.is_shared(lpi);
        for from in 0..self.cpus {
            if let Some(lpi) = self.lpi(lpi) {
                let both = lpi.pending.pending(from).pended(to);
                let both = if is_shared { both } else { Outcomes(0) };
                lpi.pending = lpi.pending.or(lpi.pending.moved(from, to)).or(both);
            }
        }
        self.invalidate(to, Some(lpi));
    }

    fn map_event(&mut self, device: u32, event: u32, new: Translation) -> Checked {
        self.device(device, event)?;
        exists(new.collection)?;
        if !(FIRST_LPI..LPIS_END).contains(&new.lpi) {
            return Err(PhysicalIdOutOfRange);
        }
        match self.replace(device, event, Some(new)) {
            Some(old) if old == new => return Ok(()),
            Some(old) => self.abandon(old),
            None => {}
        }
        if let Ok((lpi, at)) = self.route(device, event) {
            self.invalidate(at, Some(lpi));
        }
        Ok(())
    }

    /// Replaces the translation of a mapped device's event. Returns the old one.
    fn replace(
        &mut self,
        device: u32,
        event: u32,
        new: Option<Translation>,
    ) -> Option<Translation> {
        let events = &mut self.devices.get_mut(&device)?.events;
        match new {
            Some(new) => events.insert(event, new),
            None => events.remove(&event),
        }
    }

    fn move_event(&mut self, device: u32, event: u32, collection: u16) -> Checked {
        let (lpi, from) = self.route(device, event)?;
        let to = self.target(collection)?;
        self.replace(device, event, Some(Translation { lpi, collection }));
        self.carry(lpi, from, to);
        Ok(())
    }

    /// Moves an LPI's pending state and cached configuration. If LPIs are disabled at the old
    /// redistributor, a pending state in its table in memory may stay there, also if the
    /// redistributor itself has moved another one.
    fn carry(&mut self, lpi: u32, from: usize, to: usize) {
        let is_certain = self.lpis_enabled[from] && !self.is_shared(lpi);
        if let Some(lpi) = self.lpi(lpi) {
            let moved = lpi.pending.moved(from, to);
            let kept = lpi.pending.or(lpi.pending.pending(from).pended(to));
            lpi.pending = if is_certain { moved } else { moved.or(kept) };
            let carried = lpi.cached(from).filter(|cached| *cached != lpi.configuration);
            let carried: Vec<_> = carried.map(|cached| (to, cached)).collect();
            lpi.stale.extend(carried);
        }
    }

    fn discard(&mut self, device: u32, event: u32) -> Checked {
        let old = self.event(device, event)?;
        match self.route(device, event) {
            Ok((lpi, at)) if !self.is_shared(lpi) => self.clear_lpi(at, lpi),
            _ => self.abandon(old),
        }
        self.replace(device, event, None);
        Ok(())
    }

    /// Acknowledges an LPI at a vCPU.
    ///
    /// # Errors
    /// Explains why the LPI cannot be signaled there.
    pub fn acknowledge(&mut self, at: usize, number: u32) -> Result<(), String> {
        let (is_enabled, is_shared) = (self.lpis_enabled[at], self.is_shared(number));
        let certain = self.lpis.iter().filter_map(|lpi| lpi.must_be_signaled(at)).min();
        let lpi = self.lpi(number).filter(|_| is_enabled);
        let lpi = lpi.ok_or_else(|| {
            format!("CPU {at} takes {number}, which is not in use, or its LPIs are disabled")
        })?;
        let pending = lpi.pending.pending(at);
        let priority = lpi.cached(at).filter(|cached| cached & ENABLE != 0).min();
        let priority = priority.filter(|_| !pending.is_impossible());
        match (priority, certain) {
            (None, _) => return Err(format!("CPU {at} takes {number}, which is {lpi}")),
            (Some(lower), Some(higher)) if higher < lower => {
                return Err(format!("CPU {at} takes {number} before priority {higher:#x}"));
            }
            _ => {}
        }
        let kept = if is_shared { pending } else { Outcomes(0) };
        lpi.pending = pending.cleared(at).or(kept);
        Ok(())
    }

    /// Finds no signaled interrupt at a vCPU.
    ///
    /// # Errors
    /// Names an LPI that must be signaled there.
    pub fn find_none(&mut self, at: usize) -> Result<(), String> {
        for (lpi, number) in self.lpis.iter_mut().zip(FIRST_LPI..) {
            if self.lpis_enabled[at] && lpi.cached(at).all(|cached| cached & ENABLE != 0) {
                let pending = lpi.pending.not_pending(at);
                if pending.is_impossible() {
                    return Err(format!("CPU {at} does not take {number}, which is {lpi}"));
                }
                lpi.pending = pending;
            }
        }
        Ok(())
    }
}

fn exists(collection: u16) -> Checked {
    if u32::from(collection) < TABLE { Ok(()) } else { Err(CollectionOutOfRange) }
}
