//! A small machine: two vCPUs, LPIs of 14 INTID bits, one ITS.

use super::config::{LpiConfig, Priorities, PriorityView};
use super::consumer::{Consumer, ListedLpi, fold};
use super::control::Control;
use super::device_table::DeviceTable;
use super::injection::{self, Injection};
use super::mapping::{ItsIndex, MappedDevice};
use super::mappings::MappedEvent;
use super::shared::Shared;
use crate::events::Events;
use crate::memory::{GuestMemory, MemoryFault};
use crate::progress::Progress;
use crate::wakeup::VcpuWakeup;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};
use gic_arch::{Lpi, Priority, gicr};
use msi_types::{Cpu, Kick};

const VCPUS: u16 = 2;
const PENDING: u64 = 0x1_0000;
const BYTES: usize = 0x3_0000;

/// Memory from address 0 on: the configuration table, then the pending tables.
struct Ram(Vec<AtomicU8>);

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

impl Kick for Kicks {
    fn kick(&self, cpu: Cpu) {
        self.0[cpu.index()].fetch_add(1, SeqCst);
    }
}

/// State that threads share.
pub(super) struct Machine {
    shared: Arc<Shared>,
    senders: Arc<DeviceTable>,
    wakeup: Arc<VcpuWakeup>,
    kicks: Arc<Kicks>,
    ram: Arc<Ram>,
}

/// State of the command thread.
pub(super) struct Commands {
    machine: Arc<Machine>,
    control: Control,
    its: ItsIndex,
}

pub(super) fn lpi(number: u32) -> Lpi {
    Lpi::try_from(number).unwrap()
}

/// LPIs and the ITS are enabled, collection n is mapped to vCPU n, LPIs are enabled at priority
/// 0xa0.
pub(super) fn machine() -> (Arc<Machine>, Commands) {
    machine_with(2)
}

/// The same, with so many bits of DeviceIDs.
pub(super) fn machine_with(device_id_bits: u8) -> (Arc<Machine>, Commands) {
    let config = LpiConfig {
        vcpus: VCPUS,
        entries: 64,
        devices: 4,
        id_bits: 14,
        direct: false,
        priorities: Priorities { view: PriorityView::Unshifted, bits: 5 },
    };
    let shared = Arc::new(Shared::new(&config).unwrap());
    // As `EnableLPIs` does for all LPIs where they are direct.
    (0..VCPUS).for_each(|vcpu| shared.own(vcpu.into()).unwrap().ensure(lpi(8192)).unwrap());
    let ram = Arc::new(Ram((0..BYTES).map(|_| AtomicU8::new(0)).collect()));
    let kicks = Arc::new(Kicks([AtomicUsize::new(0), AtomicUsize::new(0)]));
    let senders = Arc::new(DeviceTable::new(device_id_bits).unwrap());
    let wakeup = Arc::new(VcpuWakeup::new(usize::from(VCPUS), kicks.clone()).unwrap());
    let events = Arc::new(Events::new());
    let control = Control::new(config, shared.clone(), ram.clone(), events, wakeup.clone());
    let mut control = control.unwrap();
    let its = control.add_its(senders.clone()).unwrap();
    let machine = Arc::new(Machine { shared, senders, wakeup, kicks, ram });
    (8192..8200).for_each(|number| machine.configure(number, true, 0xa0));
    control.set_its_enabled(its, true);
    let mut commands = Commands { machine: machine.clone(), control, its };
    for vcpu in 0..VCPUS {
        commands.enable_lpis(vcpu);
        commands.control.map_collection(its, vcpu, vcpu).unwrap();
        commands.control.finish_sweeps().unwrap();
    }
    (machine, commands)
}

impl Machine {
    pub(super) fn configure(&self, number: u32, enable: bool, priority: u8) {
        let config =
            gic_arch::lpi::Config::new().with_enable(enable).with_priority(Priority::new(priority));
        self.ram.write(u64::from(number - 8192), &[config.into_bits()]).unwrap();
    }

    pub(super) fn send(&self, device: u32, event: u32) -> Injection {
        injection::kick(&self.wakeup, self.shared.signal(&self.senders, device, event))
    }

    /// `GICR_SETLPIR`.
    pub(super) fn ring(&self, vcpu: u16, number: u32) -> Injection {
        injection::kick(&self.wakeup, self.shared.set_lpi(vcpu.into(), lpi(number)))
    }

    pub(super) fn vcpu(self: &Arc<Self>, vcpu: u16) -> Vcpu {
        Vcpu {
            machine: self.clone(),
            cpu: Cpu::new(vcpu.into()),
            consumer: Consumer::new(vcpu.into()),
        }
    }

    /// An access leaves work over.
    pub(super) fn leaves_work(&self) {
        self.wakeup.note_work(&mut false, Progress::Unfinished);
        self.wakeup.kick_for_work();
    }

    pub(super) fn kicks(&self, vcpu: u16) -> usize {
        self.kicks.0[usize::from(vcpu)].load(SeqCst)
    }

    /// Is the LPI in the pending table?
    pub(super) fn table_has(&self, vcpu: u16, number: u32) -> bool {
        let mut byte = [0];
        let address = PENDING * (1 + u64::from(vcpu)) + u64::from(number / 8);
        self.ram.read(address, &mut byte).unwrap();
        byte[0] & (1 << (number % 8)) != 0
    }
}

impl Commands {
    fn send_kicks(&mut self) {
        while let Some(vcpu) = self.control.pop_kick() {
            self.machine.wakeup.kick(Cpu::new(vcpu));
        }
    }

    fn event(&self, device: u32, event: u32) -> MappedEvent {
        self.control.event(self.its, device, event).unwrap()
    }

    pub(super) fn map_device(&mut self, device: u32, bits: u8) {
        self.control
            .map_device(self.its, device, MappedDevice { event_bits: bits, itt: 0 })
            .unwrap();
    }

    pub(super) fn unmap_device(&mut self, device: u32) {
        self.control.unmap_device(self.its, device);
        self.control.finish_sweeps().unwrap();
    }

    pub(super) fn map_event(&mut self, device: u32, event: u32, number: u32, collection: u16) {
        self.control.map_event(self.its, (device, event), lpi(number), collection).unwrap();
    }

    pub(super) fn discard(&mut self, device: u32, event: u32) {
        self.control.discard_event(self.event(device, event));
    }

    pub(super) fn movi(&mut self, device: u32, event: u32, collection: u16) {
        self.control.move_event(self.event(device, event), collection).unwrap();
        self.send_kicks();
    }

    pub(super) fn movall(&mut self, from: u16, to: u16) {
        self.control.move_all(self.its, from, to);
        self.control.finish_sweeps().unwrap();
        self.send_kicks();
    }

    pub(super) fn inv(&mut self, device: u32, event: u32) {
        self.control.invalidate_event(self.event(device, event)).unwrap();
        self.send_kicks();
    }

    /// SYNC: is everything before it complete?
    pub(super) fn sync(&self) -> bool {
        !self.control.awaits(self.control.recalls())
    }

    pub(super) fn enable_lpis(&mut self, vcpu: u16) {
        let propbaser = gicr::Propbaser::new().with_id_bits_minus_one(13);
        let pendbaser = gicr::Pendbaser::new().with_address(PENDING * (1 + u64::from(vcpu)));
        self.control.enable_lpis(vcpu.into(), propbaser, pendbaser).unwrap();
        self.control.finish_sweeps().unwrap();
        self.send_kicks();
    }

    /// `GICR_INVLPIR`.
    pub(super) fn invalidate(&mut self, vcpu: u16, number: u32) {
        self.control.invalidate(vcpu.into(), lpi(number)).unwrap();
        self.control.finish_sweeps().unwrap();
        self.send_kicks();
    }

    pub(super) fn set_its_enabled(&mut self, enabled: bool) {
        self.control.set_its_enabled(self.its, enabled);
        self.control.finish_sweeps().unwrap();
        self.send_kicks();
    }

    pub(super) fn disable_lpis(&mut self, vcpu: u16) {
        self.control.disable_lpis(vcpu.into());
        self.control.finish_sweeps().unwrap();
    }

    pub(super) fn clear_lpi(&mut self, vcpu: u16, number: u32) {
        self.control.clear_lpi(vcpu.into(), lpi(number));
        self.send_kicks();
    }

    pub(super) fn pending(&mut self, vcpu: u16) -> Vec<u32> {
        self.control.pending(vcpu.into()).into_iter().map(Lpi::get).collect()
    }
}

/// A vCPU's thread.
pub(super) struct Vcpu {
    machine: Arc<Machine>,
    cpu: Cpu,
    consumer: Consumer,
}

impl Vcpu {
    pub(super) fn take(&mut self) -> Option<u32> {
        self.consumer.take(&self.machine.shared, Priority::IDLE).map(|ready| ready.lpi.get())
    }

    pub(super) fn drain(&mut self) -> Vec<u32> {
        core::iter::from_fn(|| self.take()).collect()
    }

    /// Says that it leaves, then looks. `true`: it is gone.
    pub(super) fn leave(&mut self) -> bool {
        let machine = self.machine.clone();
        machine.wakeup.leave_unless(self.cpu, || self.highest())
    }

    /// Says that it leaves, then looks for work. `true`: it is gone.
    pub(super) fn leave_unless_work(&self) -> bool {
        let wakeup = &self.machine.wakeup;
        wakeup.leave_unless(self.cpu, || wakeup.has_work())
    }

    fn highest(&mut self) -> bool {
        self.consumer.highest(&self.machine.shared, Priority::IDLE).is_some()
    }

    /// Takes what is most urgent into its list register and runs guest code.
    pub(super) fn enter(&mut self) -> Option<ListedLpi> {
        self.machine.wakeup.leave(self.cpu);
        self.machine.wakeup.fills(self.cpu);
        self.consumer.list(&self.machine.shared, Priority::IDLE)
    }

    /// Brings it back, acknowledged by the guest or not.
    pub(super) fn exit(&mut self, listed: Option<ListedLpi>, pending: bool) {
        self.machine.wakeup.returned(self.cpu);
        if let Some(vcpu) = listed.and_then(|listed| fold(&self.machine.shared, listed, pending)) {
            self.machine.wakeup.kick(Cpu::new(vcpu));
        }
        self.machine.wakeup.folded(self.cpu);
    }
}
