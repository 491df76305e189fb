//! An abstract ITS with its redistributors, written from IHI 0069 §5.3. It is nondeterministic:
//! where the architecture leaves open what becomes of a pending LPI or which configuration a
//! redistributor uses, the abstract GIC allows each outcome, until a vCPU acknowledges the LPI or
//! runs out of interrupts.
//!
//! All outcomes of an LPI are independent of those of other LPIs, so a set of outcomes for each LPI
//! represents all possible states. This requires that all LPIs have the same priority, and that no
//! two events are mapped to one LPI.
//!
//! Beyond the architecture, the abstract GIC requires two choices that our model shares with
//! Linux's KVM: MAPC and MOVI move the pending state, and a redistributor reads the configuration
//! of an LPI whose event becomes deliverable. A command that fails must not have any effect.

use gic_arch::its::{Command, MapAction, RdBase};
use std::collections::BTreeMap;
use std::fmt;

/// Maximum number of redistributors.
const MAX_CPUS: usize = 3;
/// Number of entries in the device table, and in the collection table.
const TABLE: u32 = 8192;
/// Number of EventID bits.
const EVENT_BITS: u8 = 16;
const FIRST_LPI: u32 = 8192;
/// End of the implemented LPIs.
const LPIS_END: u32 = 1 << 16;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Translation {
    lpi: u32,
    collection: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Device {
    event_bits: u8,
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
    /// The enable bit in the configuration table.
    enabled: bool,
    /// Redistributors that may have cached the opposite of `enabled`.
    stale: Redistributors,
}

impl fmt::Display for Lpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.enabled { "enabled" } else { "disabled" })?;
        write!(f, " (with stale copies at {:#05b}), and pending at one of", self.stale)?;
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
}

impl AbstractGic {
    /// Creates an enabled ITS without mappings, and `cpus` redistributors whose LPIs are enabled.
    /// `lpis` is the number of LPIs that may be used, starting at INTID 8192. The configuration
    /// table enables all of them.
    ///
    /// # Panics
    /// Panics for more than three redistributors.
    pub fn new(cpus: usize, lpis: usize) -> Self {
        assert!(cpus <= MAX_CPUS, "a set of redistributors has {MAX_CPUS} bits");
        let lpi = Lpi { pending: Outcomes::NOT_PENDING, enabled: true, stale: 0 };
        Self {
            its_enabled: true,
            cpus,
            lpis_enabled: [true; MAX_CPUS],
            devices: BTreeMap::new(),
            collections: BTreeMap::new(),
            lpis: vec![lpi; lpis],
        }
    }

    fn lpi(&mut self, lpi: u32) -> Option<&mut Lpi> {
        self.lpis.get_mut(usize::try_from(lpi.checked_sub(FIRST_LPI)?).ok()?)
    }

    fn translation(&self, device: u32, event: u32) -> Option<Translation> {
        self.devices.get(&device)?.events.get(&event).copied()
    }

    /// Returns the LPI of an event, and the target of its collection.
    fn route(&self, device: u32, event: u32) -> Option<(u32, usize)> {
        let Translation { lpi, collection } = self.translation(device, event)?;
        Some((lpi, *self.collections.get(&collection)?))
    }

    fn cpu(&self, target: RdBase) -> Option<usize> {
        target.processor_number().map(usize::from).filter(|cpu| *cpu < self.cpus)
    }

    /// Sends a message from a device. Returns `true` if the interrupt must be pending afterwards.
    pub fn send(&mut self, device: u32, event: u32) -> bool {
        let route = self.route(device, event).filter(|_| self.its_enabled);
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
        let is_enabled = self.lpis_enabled[at];
        if let Some(lpi) = self.lpi(lpi) {
            let kept = if is_enabled { Outcomes(0) } else { lpi.pending };
            lpi.pending = lpi.pending.cleared(at).or(kept);
        }
    }

    /// Writes an LPI's enable bit to the configuration table.
    pub fn configure(&mut self, lpi: u32, enable: bool) {
        let everywhere = (1 << self.cpus) - 1;
        if let Some(lpi) = self.lpi(lpi).filter(|lpi| lpi.enabled != enable) {
            lpi.enabled = enable;
            lpi.stale = everywhere;
        }
    }

    /// Invalidates a redistributor's cached configuration of an LPI, or of all LPIs
    /// (`GICR_INVLPIR`, `GICR_INVALLR`).
    pub fn invalidate(&mut self, at: usize, only: Option<u32>) {
        for (lpi, number) in self.lpis.iter_mut().zip(FIRST_LPI..) {
            if self.lpis_enabled[at] && only.is_none_or(|only| only == number) {
                lpi.stale &= !(1 << at);
            }
        }
    }

    /// Sets `GICR_CTLR.EnableLPIs` if it is clear, and clears it otherwise. A redistributor caches
    /// no configurations while LPIs are disabled. Returns the new value.
    pub fn toggle_lpis(&mut self, at: usize) -> bool {
        self.lpis_enabled[at] = !self.lpis_enabled[at];
        self.invalidate(at, None);
        self.lpis_enabled[at]
    }

    /// Executes a command. Returns `false` if it fails.
    pub fn execute(&mut self, command: Command) -> bool {
        self.try_execute(command).is_some()
    }

    fn try_execute(&mut self, command: Command) -> Option<()> {
        match command {
            Command::Mapd { device, event_bits_minus_one, action, .. } => {
                self.map_device(device.get(), event_bits_minus_one + 1, action)
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
                Some(())
            }
            Command::Int { device, event } => {
                self.route(device.get(), event.get())?;
                self.send(device.get(), event.get());
                Some(())
            }
            Command::Inv { device, event } => {
                let (lpi, at) = self.route(device.get(), event.get())?;
                self.invalidate(at, Some(lpi));
                Some(())
            }
            Command::Invall { collection } => {
                let at = *self.collections.get(&collection.get())?;
                self.invalidate(at, None);
                Some(())
            }
            Command::Movall { from, to } => {
                let (from, to) = (self.cpu(from)?, self.cpu(to)?);
                (FIRST_LPI..LPIS_END)
                    .take(self.lpis.len())
                    .for_each(|lpi| self.carry(lpi, from, to));
                Some(())
            }
            Command::Sync { target } => self.cpu(target).map(drop),
        }
    }

    fn map_device(&mut self, device: u32, event_bits: u8, action: MapAction) -> Option<()> {
        if device >= TABLE || action == MapAction::Map && event_bits > EVENT_BITS {
            return None;
        }
        let events = self.devices.get(&device).map(|device| device.events.clone());
        events.into_iter().flatten().for_each(|(_, mapped)| self.abandon(mapped));
        match action {
            MapAction::Map => {
                self.devices.insert(device, Device { event_bits, events: BTreeMap::new() })
            }
            MapAction::Unmap => self.devices.remove(&device),
        };
        Some(())
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

    fn map_collection(&mut self, collection: u16, target: RdBase, action: MapAction) -> Option<()> {
        if u32::from(collection) >= TABLE {
            return None;
        }
        let to = match action {
            MapAction::Map => self.cpu(target)?,
            MapAction::Unmap => {
                self.collections.remove(&collection);
                return Some(());
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
        Some(())
    }

    /// Makes an LPI deliverable whose collection has just been mapped. An LPI that is pending at
    /// another redistributor may be moved, or stay there.
    fn find_again(&mut self, lpi: u32, to: usize) {
        for from in 0..self.cpus {
            if let Some(lpi) = self.lpi(lpi) {
                lpi.pending = lpi.pending.or(lpi.pending.moved(from, to));
            }
        }
        self.invalidate(to, Some(lpi));
    }

    fn map_event(&mut self, device: u32, event: u32, new: Translation) -> Option<()> {
        let mapped = self.devices.get_mut(&device)?;
        let fits = event >> mapped.event_bits == 0
            && u32::from(new.collection) < TABLE
            && (FIRST_LPI..LPIS_END).contains(&new.lpi);
        if !fits {
            return None;
        }
        if let Some(old) = mapped.events.insert(event, new) {
            self.abandon(old);
        }
        if let Some((lpi, at)) = self.route(device, event) {
            self.invalidate(at, Some(lpi));
        }
        Some(())
    }

    fn move_event(&mut self, device: u32, event: u32, collection: u16) -> Option<()> {
        let to = *self.collections.get(&collection)?;
        let (lpi, from) = self.route(device, event)?;
        self.devices.get_mut(&device)?.events.get_mut(&event)?.collection = collection;
        self.carry(lpi, from, to);
        Some(())
    }

    /// Moves an LPI's pending state and cached configuration. If LPIs are disabled at the old
    /// redistributor, a pending state in its table in memory may stay there, also if the
    /// redistributor itself has moved another one.
    fn carry(&mut self, lpi: u32, from: usize, to: usize) {
        let is_enabled = self.lpis_enabled[from];
        if let Some(lpi) = self.lpi(lpi) {
            let moved = lpi.pending.moved(from, to);
            let kept = lpi.pending.or(lpi.pending.pending(from).pended(to));
            lpi.pending = if is_enabled { moved } else { moved.or(kept) };
            lpi.stale |= (lpi.stale >> from & 1) << to;
        }
    }

    fn discard(&mut self, device: u32, event: u32) -> Option<()> {
        let old = self.translation(device, event)?;
        match self.route(device, event) {
            Some((lpi, at)) => self.clear_lpi(at, lpi),
            None => self.abandon(old),
        }
        self.devices.get_mut(&device)?.events.remove(&event);
        Some(())
    }

    /// Acknowledges an LPI at a vCPU.
    ///
    /// # Errors
    /// Explains why the LPI cannot be signaled there.
    pub fn acknowledge(&mut self, at: usize, number: u32) -> Result<(), String> {
        let is_enabled = self.lpis_enabled[at];
        let lpi = self.lpi(number).filter(|_| is_enabled);
        let lpi = lpi.ok_or_else(|| {
            format!("CPU {at} takes {number}, which is not in use, or its LPIs are disabled")
        })?;
        let pending = lpi.pending.pending(at);
        if pending.is_impossible() || !lpi.enabled && lpi.stale >> at & 1 == 0 {
            return Err(format!("CPU {at} takes {number}, which is {lpi}"));
        }
        lpi.pending = pending.cleared(at);
        Ok(())
    }

    /// Finds no signaled interrupt at a vCPU.
    ///
    /// # Errors
    /// Names an LPI that must be signaled there.
    pub fn find_none(&mut self, at: usize) -> Result<(), String> {
        for (lpi, number) in self.lpis.iter_mut().zip(FIRST_LPI..) {
            if self.lpis_enabled[at] && lpi.enabled && lpi.stale >> at & 1 == 0 {
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
