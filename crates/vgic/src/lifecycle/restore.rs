//! Restore of a saved state in two phases: validate the state into an infallible plan, then commit
//! it.

use super::save::{PausedInterfaces, finish_sweeps};
use super::shape;
use crate::config::{VgicConfig, cpu};
use crate::cpu_interface::{CpuInterface, Features};
use crate::frames::its::{
    Its, LockedIts, RestoredRegisters, SavedMappings, check_collection, check_device,
};
use crate::frames::redistributor::{LpiRegisters, RestoredRedistributor};
use crate::lpi::{EnabledRange, LpiTables, NoRoom, Reservation, Restoration, Room, SavedLpi};
use crate::monitor::memory::{GuestMemory, MemoryFault};
use crate::saved_state::{
    CpuState, DeviceState, EventRun, EventState, InterruptState, ItsState, LpiState, NotRestorable,
    Object, Problem, RedistributorState, RestoreError, SavedState, VERSION, WITHOUT_SHAPE,
};
use crate::vgic::Vgic;
use crate::wired::{Bank, RestoredInterrupt};
use alloc::vec::Vec;
use core::cmp::Ordering;
use doorbell_fallible::{OutOfMemory, try_arc, try_collect_results};
use gic_arch::gicr::Ctlr;
use gic_arch::lpi::Config;
use gic_arch::{Affinity, IntId, Lpi};
use msi_types::{Cpu, EventId, Kick};

/// A saved state that was validated and resolved for this machine.
pub(super) struct Plan<'s> {
    control: u32,
    shared: Vec<RestoredInterrupt>,
    /// Plans for the CPUs, in vCPU order.
    cpus: Vec<PlannedCpu<'s>>,
    /// Plans for the ITSes, in the machine's ITS order.
    its: Vec<PlannedIts<'s>>,
}

struct PlannedCpu<'s> {
    redistributor: RestoredRedistributor,
    interface: CpuInterface,
    saved: &'s RedistributorState,
}

struct PlannedIts<'s> {
    registers: RestoredRegisters,
    mappings: SavedMappings<'s>,
}

impl VgicConfig {
    /// Checks that a fresh machine with this configuration can be restored from `saved`. To do so,
    /// creates a temporary machine that never runs.
    ///
    /// # Errors
    /// The configuration is invalid, no such machine could be in this state, or the heap is
    /// exhausted.
    pub fn check_restorable(&self, saved: &SavedState) -> Result<(), NotRestorable> {
        let memory = try_arc(Nowhere).map_err(RestoreError::from)?;
        let kick = try_arc(Nowhere).map_err(RestoreError::from)?;
        let config = self.duplicate().map_err(RestoreError::from)?;
        let (gic, _) = Vgic::new(config, memory, kick)?;
        Plan::of(&gic, saved)?;
        Ok(())
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

impl<'s> Plan<'s> {
    /// Validates the whole state, and reserves the memory to restore it.
    pub(super) fn of(gic: &Vgic, saved: &'s SavedState) -> Result<Self, RestoreError> {
        match saved.version {
            VERSION => shape::check(&saved.shape, &shape::of(gic.config())?)?,
            WITHOUT_SHAPE if saved.shape.is_empty() => {}
            other => return Err(Problem::Version(other).of(Object::Machine)),
        }
        let check = Check { gic };
        let distributor = gic.distributor().restorable(&saved.distributor);
        let plan = Self {
            control: distributor.map_err(|problem| problem.of(Object::Distributor))?,
            shared: check.interrupts(
                Bank::Shared,
                &saved.distributor.interrupts,
                Object::Shared,
            )?,
            cpus: check.cpus(&saved.cpus)?,
            its: check.all_its(&saved.its)?,
        };
        check.reserve(&plan).map_err(|no_room| Problem::from(no_room).of(Object::Machine))?;
        Ok(plan)
    }

    /// Commits the plan to the machine.
    pub(super) fn carry_out(
        self,
        gic: &Vgic,
        paused: &mut PausedInterfaces<'_>,
    ) -> Result<(), RestoreError> {
        let mut locked = Vec::new();
        locked.try_reserve_exact(gic.its.len()).map_err(OutOfMemory::from)?;
        gic.reset();
        gic.wired.restore(Bank::Shared, &self.shared);
        for (index, (interface, planned)) in paused.iter_mut().zip(&self.cpus).enumerate() {
            *interface = Some(planned.interface.clone());
            planned.restore_wired(gic, cpu(index));
        }
        gic.wired.restore_control(self.control);
        let mapped = self.restore_lpis(gic, locked);
        gic.wired.settle_restored(Bank::Shared, &self.shared);
        for (index, planned) in self.cpus.iter().enumerate() {
            let bank = Bank::Private(cpu(index));
            gic.wired.settle_restored(bank, &planned.redistributor.interrupts);
        }
        // Finishing the work also sends pending notifications for LPIs. This step can't run out of
        // memory, because the entries already have the values that sweeps would store.
        let _ = finish_sweeps(gic);
        // Commands that were waiting in the restored state resume.
        gic.its.iter().for_each(|its| its.note_restored());
        gic.wakeup.kick_for_work();
        mapped.map_err(|no_room| Problem::from(no_room).of(Object::Machine))
    }

    /// Restores the LPIs. Cannot fail, because the memory was reserved. `locked` must have capacity
    /// for all ITSes.
    fn restore_lpis<'g>(
        &self,
        gic: &'g Vgic,
        mut locked: Vec<LockedIts<'g>>,
    ) -> Result<(), NoRoom> {
        let Some(lpis) = &gic.lpis else { return Ok(()) };
        locked.extend(gic.its.iter().map(|its| its.lock()));
        lpis.with_kicks_deferred(|control| {
            let mut restoration = Restoration::new(control);
            for (vcpu, planned) in (0..).zip(&self.cpus) {
                if let Some(tables) = planned.tables(gic) {
                    restoration.enabled(vcpu, tables, planned.enabled())?;
                }
            }
            self.restore_its(gic, &mut locked, &mut restoration)?;
            (0..)
                .zip(&self.cpus)
                .try_for_each(|(vcpu, planned)| planned.restore_lpis(vcpu, &mut restoration))
        })
    }

    fn restore_its(
        &self,
        gic: &Vgic,
        locked: &mut [LockedIts<'_>],
        restoration: &mut Restoration<'_>,
    ) -> Result<(), NoRoom> {
        let vcpu = |affinity| vcpu_at(gic, affinity);
        locked.iter_mut().zip(&self.its).try_for_each(|(its, planned)| {
            its.restore(planned.registers, &planned.mappings, restoration, vcpu)
        })
    }
}

/// Returns a vCPU's index. The vCPU must exist.
fn vcpu_at(gic: &Vgic, affinity: Affinity) -> u16 {
    gic.wired.cpu_at(affinity).and_then(|cpu| u16::try_from(cpu.get()).ok()).unwrap_or(0)
}

impl PlannedCpu<'_> {
    fn restore_wired(&self, gic: &Vgic, cpu: Cpu) {
        let redistributor = &self.redistributor;
        let participation = redistributor.participation | self.interface.participation();
        gic.wired.restore_participation(cpu, participation);
        gic.wired.restore(Bank::Private(cpu), &redistributor.interrupts);
        if let Some(registers) = gic.redistributors.get(cpu.index()) {
            registers.restore(redistributor.lpi_registers);
        }
    }

    /// Returns the vCPU's LPI tables if its LPIs are enabled.
    fn tables(&self, gic: &Vgic) -> Option<LpiTables> {
        let LpiRegisters { enabled, propbaser, pendbaser, .. } = self.redistributor.lpi_registers;
        let id_bits = gic.config().lpi_id_bits.filter(|_| enabled)?;
        Some(LpiTables::new(propbaser, pendbaser, id_bits))
    }

    /// Iterates over the LPIs that are pending at the redistributor without an event.
    fn pending(&self, vcpu: u32) -> impl Iterator<Item = Result<SavedLpi, NoRoom>> {
        self.saved.lpis.iter().map(move |saved| {
            Ok(SavedLpi {
                lpi: Lpi::try_from(saved.intid).map_err(|_| NoRoom::Budget)?,
                target: vcpu,
                pending: true,
                configuration: saved.configuration.map(Config::from_bits),
            })
        })
    }

    /// Iterates over the direct LPIs that the redistributor has enabled.
    fn enabled(&self) -> impl Iterator<Item = EnabledRange> {
        self.saved.enabled_lpis.iter().map(|range| {
            let first = range.first.get().saturating_sub(Lpi::FIRST.get());
            (first..first.saturating_add(range.count), Config::from_bits(range.configuration))
        })
    }

    fn restore_lpis(&self, vcpu: u32, restoration: &mut Restoration<'_>) -> Result<(), NoRoom> {
        self.pending(vcpu).try_for_each(|saved| Ok(restoration.pending(saved?)?))
    }

    fn reserve(
        &self,
        vcpu: u32,
        gic: &Vgic,
        reservation: &mut Reservation<'_>,
    ) -> Result<(), NoRoom> {
        let tables = self.tables(gic);
        self.pending(vcpu)
            .try_for_each(|saved| Ok::<_, NoRoom>(reservation.pending(saved?, tables)?))?;
        let enabled = self.enabled();
        Ok(tables.map_or(Ok(()), |tables| reservation.enabled(vcpu, tables, enabled))?)
    }
}

/// Validates the objects in a saved state.
#[derive(Clone, Copy)]
struct Check<'a> {
    gic: &'a Vgic,
}

impl Check<'_> {
    fn interrupts(
        self,
        bank: Bank,
        saved: &[InterruptState],
        object: impl Fn(IntId) -> Object,
    ) -> Result<Vec<RestoredInterrupt>, RestoreError> {
        ascending(saved, |interrupt| interrupt.intid)
            .map_err(|intid| Problem::Order.of(object(intid)))?;
        let check = |saved: &InterruptState| {
            let restorable = self.gic.wired.restorable(&self.gic.config, bank, saved);
            restorable.map_err(|problem| problem.of(object(saved.intid)))
        };
        try_collect_results(saved.iter().map(check))
    }

    /// Validates the CPUs, and returns their plans in vCPU order.
    fn cpus(self, saved: &[CpuState]) -> Result<Vec<PlannedCpu<'_>>, RestoreError> {
        ascending(saved, |cpu| cpu.affinity).map_err(|cpu| Problem::Order.of(Object::Cpu(cpu)))?;
        if let Some(unknown) =
            saved.iter().find(|cpu| self.gic.wired.cpu_at(cpu.affinity).is_none())
        {
            return Err(Problem::Unknown.of(Object::Cpu(unknown.affinity)));
        }
        let wanted = self.gic.config().cpus.iter().enumerate();
        try_collect_results(wanted.map(|(index, of)| {
            let found = saved.binary_search_by_key(&of.affinity, |cpu| cpu.affinity).ok();
            let found = found.and_then(|at| saved.get(at));
            let absent = Problem::Absent.of(Object::Cpu(of.affinity));
            self.cpu(cpu(index), found.ok_or(absent)?)
        }))
    }

    fn cpu(self, cpu: Cpu, saved: &CpuState) -> Result<PlannedCpu<'_>, RestoreError> {
        let affinity = saved.affinity;
        let redistributor =
            self.gic.redistributor_of(cpu).ok_or(Problem::Unknown.of(Object::Cpu(affinity)))?;
        let mut redistributor = redistributor
            .restorable(&saved.redistributor)
            .map_err(|problem| problem.of(Object::Redistributor(affinity)))?;
        redistributor.interrupts =
            self.interrupts(Bank::Private(cpu), &saved.redistributor.interrupts, |intid| {
                Object::Private { cpu: affinity, intid }
            })?;
        let features = Features::of(self.gic.config());
        let interface = CpuInterface::restored(features, &saved.interface)
            .map_err(|problem| problem.of(Object::Interface(affinity)))?;
        self.lpis(affinity, &saved.redistributor.lpis)?;
        self.enabled_lpis(&saved.redistributor)
            .map_err(|problem| problem.of(Object::Redistributor(affinity)))?;
        Ok(PlannedCpu { redistributor, interface, saved: &saved.redistributor })
    }

    fn lpis(self, cpu: Affinity, saved: &[LpiState]) -> Result<(), RestoreError> {
        let object = |intid| Object::Lpi { cpu, intid };
        ascending(saved, |lpi| lpi.intid).map_err(|intid| Problem::Order.of(object(intid)))?;
        match saved.iter().find(|lpi| !self.implements(lpi.intid)) {
            Some(unknown) => Err(Problem::Unknown.of(object(unknown.intid))),
            None => Ok(()),
        }
    }

    /// Checks that the ranges of enabled LPIs are in order, don't overlap, and are possible.
    fn enabled_lpis(self, saved: &RedistributorState) -> Result<(), Problem> {
        let enabled = Ctlr::from(saved.ctlr).enable_lpis() && self.gic.config().direct_lpi;
        let mut next = 0;
        saved.enabled_lpis.iter().try_for_each(|range| {
            let first = range.first.get();
            let last = first.saturating_add(range.count.saturating_sub(1));
            let is_range = range.count > 0 && first >= next;
            let exist = [first, last].into_iter().all(|intid| self.implements(IntId::new(intid)));
            next = last.saturating_add(1);
            Problem::unless(enabled && is_range && exist, "range of enabled LPIs", first)
        })
    }

    /// Returns `true` if the distributor implements this LPI.
    fn implements(self, intid: IntId) -> bool {
        let within = |bits: u8| u64::from(intid.get()) >> bits == 0;
        Lpi::try_from(intid).is_ok() && self.gic.config().lpi_id_bits.is_some_and(within)
    }

    /// Validates the ITSes, and returns their plans in the machine's ITS order.
    fn all_its(self, saved: &[ItsState]) -> Result<Vec<PlannedIts<'_>>, RestoreError> {
        ascending(saved, |its| its.base).map_err(|base| Problem::Order.of(Object::Its(base)))?;
        let bases = || self.gic.its.iter().map(|its| its.base());
        if let Some(unknown) = saved.iter().find(|its| bases().all(|base| base != its.base)) {
            return Err(Problem::Unknown.of(Object::Its(unknown.base)));
        }
        try_collect_results(self.gic.its.iter().map(|its| {
            let found = saved.iter().find(|saved| saved.base == its.base());
            let saved = found.ok_or(Problem::Absent.of(Object::Its(its.base())))?;
            let registers = RestoredRegisters::of(its, saved);
            let registers = registers.map_err(|problem| problem.of(Object::Its(saved.base)))?;
            self.collections(its, saved)?;
            ascending(&saved.devices, |device| device.device)
                .map_err(|device| Problem::Order.of(Object::Device { its: saved.base, device }))?;
            let vcpu = |affinity| vcpu_at(self.gic, affinity);
            let check = |device: &DeviceState| {
                let object = Object::Device { its: saved.base, device: device.device };
                check_device(its, device).map_err(|problem| problem.of(object))
            };
            let check_run = |device: &DeviceState, before, run: EventRun<'_>| {
                self.events((&**its, saved, device), before, run)
            };
            let mappings = SavedMappings::of(saved, vcpu, check, check_run)?;
            Ok(PlannedIts { registers, mappings })
        }))
    }

    fn collections(self, its: &Its, saved: &ItsState) -> Result<(), RestoreError> {
        let object = |collection| Object::Collection { its: saved.base, collection };
        ascending(&saved.collections, |state| state.collection)
            .map_err(|collection| Problem::Order.of(object(collection)))?;
        saved.collections.iter().try_for_each(|state| {
            let target = self.gic.wired.named_cpu("target", state.target).map(drop);
            let possible = check_collection(its, state.collection).and(target);
            possible.map_err(|problem| problem.of(object(state.collection)))
        })
    }

    /// Checks a run of a device's events, given the event before it.
    fn events(
        self,
        (its, saved, device): (&Its, &ItsState, &DeviceState),
        before: Option<EventId>,
        run: EventRun<'_>,
    ) -> Result<(), RestoreError> {
        let object = |event| Object::Event { its: saved.base, device: device.device, event };
        let check = |state: &EventState| {
            let number = state.event.get();
            let within = u64::from(number) >> device.event_bits == 0;
            Problem::unless(within, "EventID", number)
                .and_then(|()| {
                    Problem::unless(self.implements(state.intid), "LPI", state.intid.get())
                })
                .and_then(|()| check_collection(its, state.collection))
                .and_then(|()| self.stay(saved, state.collection, state.stays_at))
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
    fn stay(
        self,
        its: &ItsState,
        collection: gic_arch::its::CollectionId,
        stays_at: Option<Affinity>,
    ) -> Result<(), Problem> {
        const FIELD: &str = "redistributor of a pending event";
        let Some(cpu) = stays_at else { return Ok(()) };
        match its.collections.binary_search_by_key(&collection, |state| state.collection) {
            Ok(_) => Err(Problem::NoSuchCpu { field: FIELD, cpu }),
            Err(_) => self.gic.wired.named_cpu(FIELD, cpu).map(drop),
        }
    }

    /// Checks that all mappings fit into the machine's budgets, and reserves their memory.
    fn reserve(self, plan: &Plan<'_>) -> Result<(), NoRoom> {
        let Some(lpis) = &self.gic.lpis else { return Ok(()) };
        let mut room = Room::default();
        plan.its.iter().for_each(|its| its.mappings.add_to(&mut room));
        lpis.with_kicks_deferred(|control| {
            let devices = self.gic.its.iter().zip(&plan.its).all(|(its, planned)| {
                control.has_room_for_devices(its.index(), planned.mappings.device_ids())
            });
            if !devices {
                return Err(NoRoom::Budget);
            }
            let mut reservation = Reservation::new(control, &room)?;
            (0..)
                .zip(&plan.cpus)
                .try_for_each(|(vcpu, cpu)| cpu.reserve(vcpu, self.gic, &mut reservation))?;
            let tables = |vcpu| plan.cpus.get(vcpu as usize)?.tables(self.gic);
            let vcpu = |affinity| vcpu_at(self.gic, affinity);
            let mut all = self.gic.its.iter().zip(&plan.its);
            all.try_for_each(|(its, planned)| {
                planned.mappings.reserve(its.index(), &mut reservation, vcpu, tables)
            })
        })
    }
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
