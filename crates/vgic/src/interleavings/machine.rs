//! A small machine for the scenarios: two vCPUs, LPIs with 14 INTID bits, and one ITS.

use super::std::vec::Vec;
use crate::lpi::{
    Control, DeviceTable, Injection, ItsIndex, ListedLpi, LpiConfig, LpiCore, LpiFaults,
    MappedDevice, MappedEvent, NextStep, PendingLpis, Priorities, PriorityView, Signaled,
};
use crate::monitor::events::EventLog;
use crate::monitor::{GuestMemory, MemoryFault, Progress};
use crate::wakeup::{VcpuWakeup, WakeupWord};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU8, Ordering::SeqCst};
use gic_arch::its::{CollectionId, Command};
use gic_arch::{Lpi, Priority, gicr};
use msi_types::{Cpu, DeviceId, EventId, Kick};
use shuttle::sync::atomic::AtomicUsize;
use shuttle::thread;

/// An empty list of LPIs.
pub(super) const NO_LPIS: [u32; 0] = [];
const VCPUS: u16 = 2;
const PENDING: u64 = 0x1_0000;
const BYTES: usize = 0x3_0000;

/// Guest memory, starting at address 0. [`machine`] places the configuration table first, followed
/// by the pending tables.
pub(super) struct Ram(Vec<AtomicU8>);

impl Ram {
    pub(super) fn new(bytes: usize) -> Self {
        Self((0..bytes).map(|_| AtomicU8::new(0)).collect())
    }
}

impl GuestMemory for Ram {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let at = usize::try_from(address).unwrap();
        bytes.iter_mut().zip(&self.0[at..]).for_each(|(byte, cell)| *byte = cell.load(SeqCst));
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        let at = usize::try_from(address).unwrap();
        bytes.iter().zip(&self.0[at..]).for_each(|(byte, cell)| cell.store(*byte, SeqCst));
        Ok(())
    }
}

pub(super) struct Kicks([AtomicUsize; VCPUS as usize]);

impl Kicks {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self([AtomicUsize::new(0), AtomicUsize::new(0)]))
    }

    pub(super) fn count(&self, cpu: Cpu) -> usize {
        self.0[cpu.index()].load(SeqCst)
    }
}

impl Kick for Kicks {
    fn kick(&self, cpu: Cpu) {
        self.0[cpu.index()].fetch_add(1, SeqCst);
    }
}

/// State shared by all threads, and the devices of one ITS.
#[derive(Clone)]
pub(super) struct Machine {
    lpis: Arc<LpiCore>,
    devices: Arc<DeviceTable>,
    wakeup: Arc<VcpuWakeup>,
    kicks: Arc<Kicks>,
    ram: Arc<Ram>,
}

/// ITS command interface.
#[derive(Clone)]
pub(super) struct Commands {
    machine: Arc<Machine>,
    its: ItsIndex,
}

fn lpi(number: u32) -> Lpi {
    Lpi::try_from(number).unwrap()
}

fn cpu(vcpu: u16) -> Cpu {
    Cpu::new(vcpu.into())
}

/// Creates a machine with LPIs and the ITS enabled, collection n mapped to vCPU n, and LPIs enabled
/// at priority 0xa0.
pub(super) fn machine() -> (Arc<Machine>, Commands) {
    machine_with(2)
}

/// Creates a [`machine`] with this many DeviceID bits.
pub(super) fn machine_with(device_id_bits: u8) -> (Arc<Machine>, Commands) {
    machine_of(device_id_bits, 64)
}

/// Like [`machine_with`], with this number of entries. Few entries are soon reused; more than one
/// ITS needs 512.
pub(super) fn machine_of(device_id_bits: u8, entries: u32) -> (Arc<Machine>, Commands) {
    let config = LpiConfig {
        vcpus: VCPUS,
        entries,
        devices: 4,
        id_bits: 14,
        direct: false,
        priorities: Priorities { view: PriorityView::Unshifted, bits: 5 },
        work_per_access: 1024,
    };
    let ram = Arc::new(Ram::new(BYTES));
    let kicks = Kicks::new();
    let wakeup = Arc::new(VcpuWakeup::new(usize::from(VCPUS), kicks.clone()).unwrap());
    let events = Arc::new(EventLog::new(crate::FaultReason::COUNT).unwrap());
    let faults = LpiFaults::new(events, Box::default());
    let lpis = LpiCore::new(config, ram.clone(), wakeup.clone(), faults).unwrap();
    let devices = Arc::new(DeviceTable::new(device_id_bits).unwrap());
    let (machine, mut commands) = Machine { lpis, devices, wakeup, kicks, ram }.with_its();
    (8192..8200).for_each(|number| machine.configure(number, true, 0xa0));
    (0..VCPUS).for_each(|vcpu| commands.enable_direct(vcpu));
    (machine, commands)
}

/// Adds a second ITS, with devices of its own.
pub(super) fn second_its(machine: &Machine) -> (Arc<Machine>, Commands) {
    let devices = Arc::new(DeviceTable::new(2).unwrap());
    Machine { devices, ..machine.clone() }.with_its()
}

impl Machine {
    /// Adds an enabled ITS with the machine's devices, which maps collection n to vCPU n.
    fn with_its(self) -> (Arc<Self>, Commands) {
        let its = self.lpis.add_its(0, self.devices.clone()).unwrap();
        let machine = Arc::new(self);
        let mut commands = Commands { machine: machine.clone(), its };
        commands.set_its_enabled(true);
        for vcpu in 0..VCPUS {
            commands.run(|control| control.map_collection(its, vcpu, vcpu).unwrap());
        }
        (machine, commands)
    }

    pub(super) fn configure(&self, number: u32, enable: bool, priority: u8) {
        let config =
            gic_arch::lpi::Config::new().with_enable(enable).with_priority(Priority::new(priority));
        self.ram.write(u64::from(number - 8192), &[config.into_bits()]).unwrap();
    }

    pub(super) fn send(&self, device: u32, event: u32) -> Injection {
        let signaled = match self.lpis.signal(&self.devices, device, event) {
            Ok(signaled) => Some(signaled),
            Err(NextStep::ByNode(node)) => self.lpis.signal_by_node(node, event),
            Err(NextStep::Far) => None,
        };
        match signaled.unwrap_or_else(|| self.lpis.signal_far(&self.devices, device, event)) {
            Signaled::Fresh(pended) => self.lpis.notify(pended),
            Signaled::Coalesced => Injection::Coalesced,
            Signaled::Dropped => Injection::Dropped,
        }
    }

    /// Writes `GICR_SETLPIR`.
    pub(super) fn ring(&self, vcpu: u16, number: u32) -> Injection {
        self.lpis.set_lpi(cpu(vcpu), lpi(number))
    }

    /// Writes `GICR_INVLPIR`, and waits until it has taken effect.
    pub(super) fn invalidate(&self, vcpu: u16, number: u32) {
        self.lpis.invalidate(cpu(vcpu), lpi(number)).unwrap();
        while self.lpis.finish_sweeps().is_err() {
            thread::yield_now();
        }
    }

    /// Leaves an event's ready bit set for a vCPU.
    pub(super) fn leave_ready_bit(&self, vcpu: u16, event: (u32, u32)) {
        self.lpis.leave_ready_bit(cpu(vcpu), &self.devices, event);
    }

    /// Makes an event pending but does not set its ready bit, like a message that is delayed.
    pub(super) fn begin_signal(&self, event: (u32, u32)) {
        let _ = self.lpis.begin_signal(&self.devices, event);
    }

    pub(super) fn vcpu(self: &Arc<Self>, vcpu: u16) -> Vcpu {
        let lpis = self.lpis.pending_lpis(cpu(vcpu)).unwrap().expect("the vCPU already runs");
        Vcpu { machine: self.clone(), cpu: cpu(vcpu), lpis }
    }

    /// Returns a vCPU's wake-up word.
    fn word(&self, cpu: Cpu) -> &WakeupWord {
        &self.wakeup.words()[cpu.index()]
    }

    /// Records deferred work, as a register access does.
    pub(super) fn leaves_work(&self) {
        self.wakeup.note_work(&mut false, Progress::Unfinished);
        self.wakeup.kick_for_work();
    }

    pub(super) fn kicks(&self, vcpu: u16) -> usize {
        self.kicks.count(cpu(vcpu))
    }

    fn table_byte(vcpu: u16, number: u32) -> (u64, u8) {
        (PENDING * (1 + u64::from(vcpu)) + u64::from(number / 8), 1 << (number % 8))
    }

    /// Returns `true` if the LPI is set in the pending table.
    pub(super) fn table_has(&self, vcpu: u16, number: u32) -> bool {
        let (address, bit) = Self::table_byte(vcpu, number);
        let mut byte = [0];
        self.ram.read(address, &mut byte).unwrap();
        byte[0] & bit != 0
    }
}

impl Commands {
    /// Runs commands to completion, and sends the kicks that they request. Waits for vCPUs that the
    /// commands recall.
    fn run<R>(&self, commands: impl FnOnce(&mut Control) -> R) -> R {
        let (result, mut finished) = self.machine.lpis.with_kicks_deferred(|control| {
            let result = commands(control);
            (result, control.finish_sweeps())
        });
        self.machine.lpis.send_kicks();
        while finished.is_err() {
            thread::yield_now();
            finished = self.machine.lpis.finish_sweeps();
        }
        result
    }

    /// Runs a command on a mapped event.
    fn run_of<R>(
        &self,
        (device, event): (u32, u32),
        command: impl FnOnce(&mut Control, MappedEvent) -> R,
    ) -> R {
        self.run(|control| {
            let event = control.event(self.its, device, event).unwrap();
            command(control, event)
        })
    }

    /// Executes a command beside those of other threads, and sends the kicks that it requests.
    fn run_beside(&self, command: Command) -> bool {
        let lpis = &self.machine.lpis;
        let is_done = lpis.execute_beside(&lpis.read(self.its.get().into()), self.its, command);
        lpis.send_kicks();
        is_done
    }

    pub(super) fn map_device(&mut self, device: u32, bits: u8) {
        let mapped = MappedDevice { event_bits: bits, itt: 0 };
        self.run(|control| control.map_device(self.its, device, mapped).unwrap());
    }

    pub(super) fn unmap_device(&mut self, device: u32) {
        self.run(|control| control.unmap_device(self.its, device));
    }

    pub(super) fn map_event(&mut self, device: u32, event: u32, number: u32, collection: u16) {
        let (device_id, event_id) = (DeviceId::new(device), EventId::new(event));
        let collection_id = CollectionId::new(collection);
        if !self.run_beside(Command::Mapti {
            device: device_id,
            event: event_id,
            intid: number,
            collection: collection_id,
        }) {
            self.run(|control| {
                control.map_event(self.its, (device, event), lpi(number), collection).unwrap();
            });
        }
    }

    pub(super) fn discard(&mut self, device: u32, event: u32) {
        let (device_id, event_id) = (DeviceId::new(device), EventId::new(event));
        if !self.run_beside(Command::Discard { device: device_id, event: event_id }) {
            self.run_of((device, event), Control::discard_event);
        }
    }

    pub(super) fn clear(&mut self, device: u32, event: u32) {
        assert!(self.run_beside(Command::Clear {
            device: DeviceId::new(device),
            event: EventId::new(event),
        }));
    }

    pub(super) fn movi(&mut self, device: u32, event: u32, collection: u16) {
        let (device_id, event_id) = (DeviceId::new(device), EventId::new(event));
        let moved = Command::Movi {
            device: device_id,
            event: event_id,
            collection: CollectionId::new(collection),
        };
        if !self.run_beside(moved) {
            self.run_of((device, event), |control, event| control.move_event(event, collection))
                .unwrap();
        }
    }

    pub(super) fn movall(&mut self, from: u16, to: u16) {
        self.run(|control| control.move_all(self.its, from, to));
    }

    pub(super) fn inv(&mut self, device: u32, event: u32) {
        let (device_id, event_id) = (DeviceId::new(device), EventId::new(event));
        if !self.run_beside(Command::Inv { device: device_id, event: event_id }) {
            self.run_of((device, event), Control::invalidate_event).unwrap();
        }
    }

    /// Returns `true` if a SYNC would complete now, i.e. if all earlier commands have taken full
    /// effect.
    pub(super) fn sync(&self) -> bool {
        self.machine.lpis.with_kicks_deferred(|control| !control.awaits(control.recalls()))
    }

    pub(super) fn enable_lpis(&mut self, vcpu: u16) {
        let propbaser = gicr::Propbaser::new().with_id_bits_minus_one(13);
        let pendbaser = gicr::Pendbaser::new().with_address(PENDING * (1 + u64::from(vcpu)));
        self.run(|control| control.enable_lpis(vcpu.into(), propbaser, pendbaser).unwrap());
    }

    /// Enables LPIs so that `GICR_SETLPIR` can signal the LPIs with the lowest INTIDs. To allocate
    /// the entries' page, one of these LPIs is first set in the pending table.
    fn enable_direct(&mut self, vcpu: u16) {
        let (address, bit) = Machine::table_byte(vcpu, 8192);
        self.machine.ram.write(address, &[bit]).unwrap();
        self.enable_lpis(vcpu);
        self.disable_lpis(vcpu);
        self.machine.ram.write(address, &[0]).unwrap();
        self.enable_lpis(vcpu);
        // The vCPU finds that the ready bit is stale, and prunes the path to it.
        assert_eq!(self.machine.vcpu(vcpu).drain(), NO_LPIS);
    }

    pub(super) fn set_its_enabled(&mut self, enabled: bool) {
        self.run(|control| control.set_its_enabled(self.its, enabled));
    }

    pub(super) fn disable_lpis(&mut self, vcpu: u16) {
        self.run(|control| control.disable_lpis(vcpu.into()));
    }

    pub(super) fn clear_lpi(&mut self, vcpu: u16, number: u32) {
        self.machine.lpis.clear_lpi(cpu(vcpu), lpi(number));
    }

    pub(super) fn pending(&mut self, vcpu: u16) -> Vec<u32> {
        self.machine.lpis.pending(cpu(vcpu)).into_iter().map(Lpi::get).collect()
    }
}

/// State that a vCPU's thread owns.
pub(super) struct Vcpu {
    machine: Arc<Machine>,
    cpu: Cpu,
    lpis: PendingLpis,
}

impl Vcpu {
    pub(super) fn take(&mut self) -> Option<u32> {
        self.lpis.take(Priority::IDLE).map(|ready| ready.lpi.get())
    }

    pub(super) fn drain(&mut self) -> Vec<u32> {
        core::iter::from_fn(|| self.take()).collect()
    }

    /// Declares that the vCPU is leaving, then checks for interrupts. Returns `true` if the vCPU
    /// left.
    pub(super) fn leave(&mut self) -> bool {
        let machine = self.machine.clone();
        machine.word(self.cpu).leave_unless(|| self.lpis.highest(Priority::IDLE).is_some())
    }

    /// Declares that the vCPU is leaving, then checks for deferred work. Returns `true` if the vCPU
    /// left.
    pub(super) fn leave_unless_work(&self) -> bool {
        self.machine.word(self.cpu).leave_unless(|| self.machine.wakeup.has_work())
    }

    /// Enters the guest with the highest-priority LPI in the list register. If no LPI is pending,
    /// prunes stale ready bits, so that the next entry needs only one load.
    pub(super) fn enter(&mut self) -> Option<ListedLpi> {
        self.machine.word(self.cpu).enter();
        if self.lpis.is_empty() {
            return None;
        }
        let mut listed = None;
        self.lpis.list(Priority::IDLE, |_, found| {
            listed = Some(found);
            ControlFlow::Break(())
        });
        if listed.is_none() {
            self.lpis.prune();
        }
        listed
    }

    /// Exits the guest. `pending` is `true` if the guest has not acknowledged the LPI in the list
    /// register.
    pub(super) fn exit(&mut self, listed: Option<ListedLpi>, pending: bool) {
        self.machine.word(self.cpu).returned();
        if let Some(listed) = listed {
            self.lpis.fold(listed, pending);
        }
        self.machine.wakeup.folded(self.machine.word(self.cpu));
    }
}
