//! Restore of a saved state: checks each object against the machine and writes it, one after the
//! other, into a machine that was reset. A failure resets the machine again.

use super::save::{PausedInterfaces, finish_sweeps};
use super::shape;
use crate::config::{VgicConfig, cpu};
use crate::cpu_interface::{CpuInterface, Features};
use crate::frames::its::{Its, check_collection, check_device};
use crate::lpi::{
    Control, EnabledRange, LpiCore, MappedDevice, NoRoom, Restoration, SavedEvents, SavedLpi,
};
use crate::monitor::{GuestMemory, MemoryFault};
use crate::saved_state::{
    CpuState, DeviceState, EnabledLpis, EventRun, EventState, InterruptState, ItsState, LpiState,
    NotRestorable, Object, Problem, RestoreError, SavedState, VERSION, WITHOUT_SHAPE,
};
use crate::vgic::Vgic;
use crate::wired::Bank;
use core::cmp::Ordering;
use doorbell_fallible::try_arc;
use gic_arch::its::CollectionId;
use gic_arch::lpi::Config;
use gic_arch::{Affinity, IntId, Lpi};
use msi_types::{Cpu, EventId, Kick};

impl VgicConfig {
    /// Checks that a fresh machine with this configuration can be restored from `saved`. To do so,
    /// restores a temporary machine that never runs.
    ///
    /// # Errors
    /// The configuration is invalid, no such machine could be in this state, or the heap is
    /// exhausted.
    pub fn check_restorable(&self, saved: &SavedState) -> Result<(), NotRestorable> {
        let memory = try_arc(Nowhere).map_err(RestoreError::from)?;
        let kick = try_arc(Nowhere).map_err(RestoreError::from)?;
        let config = self.duplicate().map_err(RestoreError::from)?;
        let (gic, _) = Vgic::new(config, memory, kick)?;
        Ok(Restore { gic: &gic }.write(saved, &mut gic.paused.lock())?)
    }
}

/// Empty guest memory, and a kick handler that does nothing.
struct Nowhere;

impl GuestMemory for Nowhere {
    fn read(&self, address: u64, _: &mut [u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }

    fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }
}

impl Kick for Nowhere {
    fn kick(&self, _: Cpu) {}
}

/// Restores a machine from a saved state. On error, the machine is in its reset state with all
/// lines low.
pub(super) fn restore(
    gic: &Vgic,
    saved: &SavedState,
    paused: &mut PausedInterfaces<'_>,
) -> Result<(), RestoreError> {
    clear(gic, paused);
    let restored = Restore { gic }.write(saved, paused);
    if restored.is_err() {
        clear(gic, paused);
    }
    restored
}

/// Resets the machine, and lowers all lines.
fn clear(gic: &Vgic, paused: &mut PausedInterfaces<'_>) {
    gic.power_on(paused);
    gic.wired.lower_lines(Bank::Shared);
    (0..paused.len()).for_each(|index| gic.wired.lower_lines(Bank::Private(cpu(index))));
}

/// A restore into a machine in its reset state with all lines low.
#[derive(Clone, Copy)]
struct Restore<'a> {
    gic: &'a Vgic,
}

impl Restore<'_> {
    fn write(
        self,
        saved: &SavedState,
        paused: &mut PausedInterfaces<'_>,
    ) -> Result<(), RestoreError> {
        let gic = self.gic;
        match saved.version {
            VERSION => shape::check(&saved.shape, &shape::of(gic.config())?)?,
            WITHOUT_SHAPE if saved.shape.is_empty() => {}
            other => return Err(Problem::Version(other).of(Object::Machine)),
        }
        let control = gic.distributor().restorable(&saved.distributor);
        let control = control.map_err(|problem| problem.of(Object::Distributor))?;
        self.interrupts(Bank::Shared, &saved.distributor.interrupts, Object::Shared)?;
        self.cpus(&saved.cpus, paused)?;
        gic.wired.restore_control(control);
        self.all_its(&saved.its)?;
        saved.cpus.iter().try_for_each(|cpu| self.lpis(cpu))?;

        gic.wired.settle_restored(Bank::Shared, &saved.distributor.interrupts);
        for state in &saved.cpus {
            let bank = Bank::Private(Cpu::new(self.vcpu(state.affinity)?.into()));
            gic.wired.settle_restored(bank, &state.redistributor.interrupts);
        }
        // Finishing the work also sends pending notifications for LPIs. This step can't run out of
        // memory, because the entries already have the values that sweeps would store.
        let _ = finish_sweeps(gic);
        // Commands that were waiting in the restored state resume.
        gic.its.iter().for_each(|its| its.note_restored());
        gic.wakeup.kick_for_work();
        Ok(())
    }

    fn interrupts(
        self,
        bank: Bank,
        saved: &[InterruptState],
        object: impl Fn(IntId) -> Object,
    ) -> Result<(), RestoreError> {
        ascending(saved, |interrupt| interrupt.intid)
            .map_err(|intid| Problem::Order.of(object(intid)))?;
        saved.iter().try_for_each(|saved| {
            let restored = self.gic.wired.restore(&self.gic.config, bank, saved);
            restored.map_err(|problem| problem.of(object(saved.intid)))
        })
    }

    fn cpus(
        self,
        saved: &[CpuState],
        paused: &mut PausedInterfaces<'_>,
    ) -> Result<(), RestoreError> {
        ascending(saved, |cpu| cpu.affinity).map_err(|cpu| Problem::Order.of(Object::Cpu(cpu)))?;
        if let Some(unknown) =
            saved.iter().find(|cpu| self.gic.wired.cpu_at(cpu.affinity).is_none())
        {
            return Err(Problem::Unknown.of(Object::Cpu(unknown.affinity)));
        }
        let wanted = self.gic.config().cpus.iter().enumerate();
        for ((index, of), interface) in wanted.zip(paused.iter_mut()) {
            let found = saved.binary_search_by_key(&of.affinity, |cpu| cpu.affinity).ok();
            let found = found.and_then(|at| saved.get(at));
            let absent = Problem::Absent.of(Object::Cpu(of.affinity));
            *interface = Some(self.cpu(cpu(index), found.ok_or(absent)?)?);
        }
        Ok(())
    }

    /// Restores a CPU except for its LPIs, and returns its interface.
    fn cpu(self, cpu: Cpu, saved: &CpuState) -> Result<CpuInterface, RestoreError> {
        let affinity = saved.affinity;
        let interface = CpuInterface::restored(Features::of(self.gic.config()), &saved.interface)
            .map_err(|problem| problem.of(Object::Interface(affinity)))?;
        let redistributor =
            self.gic.redistributor_of(cpu).ok_or(Problem::Unknown.of(Object::Cpu(affinity)))?;
        let of_redistributor = |problem: Problem| problem.of(Object::Redistributor(affinity));
        let tables = redistributor
            .restore(&saved.redistributor, interface.participation())
            .map_err(of_redistributor)?;
        self.interrupts(Bank::Private(cpu), &saved.redistributor.interrupts, |intid| {
            Object::Private { cpu: affinity, intid }
        })?;
        let enabled = &saved.redistributor.enabled_lpis;
        let has_direct = tables.is_some() && self.gic.config().direct_lpi;
        self.check_enabled(has_direct, enabled).map_err(of_redistributor)?;
        if let Some((lpis, tables)) = self.gic.lpis.as_ref().zip(tables) {
            let ranges = enabled.iter().map(enabled_range);
            lpis.with_kicks_deferred(|control| {
                Restoration::new(control).enabled(cpu.get(), tables, ranges)
            })?;
        }
        Ok(interface)
    }

    /// Checks that the ranges of enabled LPIs are in order, don't overlap, and are possible.
    fn check_enabled(self, has_direct: bool, saved: &[EnabledLpis]) -> Result<(), Problem> {
        let mut next = 0;
        saved.iter().try_for_each(|range| {
            let first = range.first.get();
            let last = first.saturating_add(range.count.saturating_sub(1));
            let is_range = range.count > 0 && first >= next;
            let exist =
                [first, last].into_iter().all(|intid| self.lpi(IntId::new(intid)).is_some());
            next = last.saturating_add(1);
            Problem::unless(has_direct && is_range && exist, "range of enabled LPIs", first)
        })
    }

    /// Restores the LPIs that are pending at a CPU's redistributor without an event.
    fn lpis(self, saved: &CpuState) -> Result<(), RestoreError> {
        let object = |intid| Object::Lpi { cpu: saved.affinity, intid };
        let target = self.vcpu(saved.affinity)?.into();
        let saved = &saved.redistributor.lpis;
        ascending(saved, |lpi| lpi.intid).map_err(|intid| Problem::Order.of(object(intid)))?;
        saved.iter().try_for_each(|LpiState { intid, configuration }| {
            let lpi = self.lpi(*intid).ok_or(Problem::Unknown.of(object(*intid)))?;
            let configuration = configuration.map(Config::from_bits);
            let state = SavedLpi { lpi, target, pending: true, configuration };
            let pend = |control: &mut Control| Restoration::new(control).pending(state);
            let lpis = self.gic.lpis.as_ref();
            Ok(lpis.map_or(Ok(()), |lpis| lpis.with_kicks_deferred(pend))?)
        })
    }

    /// Converts an INTID to an LPI, if the distributor implements this LPI.
    fn lpi(self, intid: IntId) -> Option<Lpi> {
        let within = |bits: u8| u64::from(intid.get()) >> bits == 0;
        let lpi = Lpi::try_from(intid).ok()?;
        self.gic.config().lpi_id_bits.is_some_and(within).then_some(lpi)
    }

    /// Returns the index of the vCPU at an affinity.
    fn vcpu(self, affinity: Affinity) -> Result<u16, RestoreError> {
        let cpu = self.gic.wired.cpu_at(affinity);
        let index = cpu.and_then(|cpu| u16::try_from(cpu.get()).ok());
        index.ok_or(Problem::Unknown.of(Object::Cpu(affinity)))
    }

    fn all_its(self, saved: &[ItsState]) -> Result<(), RestoreError> {
        ascending(saved, |its| its.base).map_err(|base| Problem::Order.of(Object::Its(base)))?;
        let bases = || self.gic.its.iter().map(|its| its.base());
        if let Some(unknown) = saved.iter().find(|its| bases().all(|base| base != its.base)) {
            return Err(Problem::Unknown.of(Object::Its(unknown.base)));
        }
        for its in &self.gic.its {
            let found = saved.iter().find(|saved| saved.base == its.base());
            let saved = found.ok_or(Problem::Absent.of(Object::Its(its.base())))?;
            if let Some(lpis) = &self.gic.lpis {
                self.its(its, saved, lpis)?;
            }
        }
        Ok(())
    }

    fn its(self, its: &Its, saved: &ItsState, lpis: &LpiCore) -> Result<(), RestoreError> {
        let mut locked = its.lock();
        let enabled = locked.restore_registers(saved);
        let enabled = enabled.map_err(|problem| problem.of(Object::Its(saved.base)))?;
        lpis.with_kicks_deferred(|control| {
            let mut restoration = Restoration::new(control);
            restoration.its(its.index(), enabled);
            self.collections(its, saved, &mut restoration)?;
            ascending(&saved.devices, |device| device.device)
                .map_err(|device| Problem::Order.of(Object::Device { its: saved.base, device }))?;
            saved
                .devices
                .iter()
                .try_for_each(|device| self.device((its, saved), device, &mut restoration))
        })
    }

    fn collections(
        self,
        its: &Its,
        saved: &ItsState,
        restoration: &mut Restoration<'_>,
    ) -> Result<(), RestoreError> {
        let object = |collection| Object::Collection { its: saved.base, collection };
        ascending(&saved.collections, |state| state.collection)
            .map_err(|collection| Problem::Order.of(object(collection)))?;
        saved.collections.iter().try_for_each(|state| {
            let target = self.gic.wired.named_cpu("target", state.target).map(drop);
            let possible = check_collection(its, state.collection).and(target);
            possible.map_err(|problem| problem.of(object(state.collection)))?;
            let vcpu = self.vcpu(state.target)?;
            Ok(restoration.collection(its.index(), state.collection, vcpu)?)
        })
    }

    fn device(
        self,
        (its, saved): (&Its, &ItsState),
        device: &DeviceState,
        restoration: &mut Restoration<'_>,
    ) -> Result<(), RestoreError> {
        let object = Object::Device { its: saved.base, device: device.device };
        check_device(its, device).map_err(|problem| problem.of(object))?;
        let at = (its.index(), device.device.get());
        let mapped = MappedDevice { event_bits: device.event_bits, itt: device.itt };
        restoration.device(at.0, at.1, mapped)?;
        let mut before = None;
        for run in device.runs() {
            self.check_events((its, saved, device), before, run)?;
            before = run.events.last().map(|event| event.event);
            restoration.events(at, self.events(run)?, run.groups())?;
        }
        Ok(())
    }

    /// Converts a run of events that were checked.
    fn events(self, run: EventRun<'_>) -> Result<SavedEvents, RestoreError> {
        let first = run.events.first().ok_or(NoRoom::Budget)?;
        Ok(SavedEvents {
            first: first.event.get(),
            count: u32::try_from(run.events.len()).map_err(|_| NoRoom::Budget)?,
            lpi: Lpi::try_from(first.intid).map_err(|_| NoRoom::Budget)?,
            collection: first.collection,
            pending: first.pending,
            stays_at: first.stays_at.map_or(Ok(0), |cpu| self.vcpu(cpu))?,
            configuration: first.configuration.map(Config::from_bits),
        })
    }

    /// Checks a run of a device's events, given the event before it.
    fn check_events(
        self,
        (its, saved, device): (&Its, &ItsState, &DeviceState),
        before: Option<EventId>,
        run: EventRun<'_>,
    ) -> Result<(), RestoreError> {
        let object = |event| Object::Event { its: saved.base, device: device.device, event };
        let check = |state: &EventState| {
            let (number, intid) = (state.event.get(), state.intid);
            let within = u64::from(number) >> device.event_bits == 0;
            Problem::unless(within, "EventID", number)
                .and_then(|()| Problem::unless(self.lpi(intid).is_some(), "LPI", intid.get()))
                .and_then(|()| check_collection(its, state.collection))
                .and_then(|()| self.check_stay(saved, state.collection, state.stays_at))
                .map_err(|problem| problem.of(object(state.event)))
        };
        if let Some(first) = run.events.first().filter(|first| before >= Some(first.event)) {
            return Err(Problem::Order.of(object(first.event)));
        }
        // If neither end of a run exceeds a limit, no event does, except for its collection.
        let mut ends = run.events.first().into_iter().chain(run.events.last());
        let is_possible = |(collection, _)| check_collection(its, collection).is_ok();
        if run.groups().all(is_possible) && ends.all(|state| check(state).is_ok()) {
            return Ok(());
        }
        run.events.iter().try_for_each(check)
    }

    /// Checks that an event records a redistributor only if its collection is unmapped.
    fn check_stay(
        self,
        its: &ItsState,
        collection: CollectionId,
        stays_at: Option<Affinity>,
    ) -> Result<(), Problem> {
        const FIELD: &str = "redistributor of a pending event";
        let Some(cpu) = stays_at else { return Ok(()) };
        match its.collections.binary_search_by_key(&collection, |state| state.collection) {
            Ok(_) => Err(Problem::NoSuchCpu { field: FIELD, cpu }),
            Err(_) => self.gic.wired.named_cpu(FIELD, cpu).map(drop),
        }
    }
}

/// Returns the indices of the LPIs in a range, and their configuration.
fn enabled_range(saved: &EnabledLpis) -> EnabledRange {
    let first = saved.first.get().saturating_sub(Lpi::FIRST.get());
    (first..first.saturating_add(saved.count), Config::from_bits(saved.configuration))
}

/// Checks that the keys are in ascending order. The error is the first key that isn't greater than
/// its predecessor.
fn ascending<T, K: Ord + Copy>(items: &[T], key: impl Fn(&T) -> K) -> Result<(), K> {
    let pairs =
        items.iter().zip(items.iter().skip(1)).map(|(first, second)| (key(first), key(second)));
    match pairs
        .map(|(first, second)| (first.cmp(&second), second))
        .find(|(order, _)| *order != Ordering::Less)
    {
        Some((_, key)) => Err(key),
        None => Ok(()),
    }
}
